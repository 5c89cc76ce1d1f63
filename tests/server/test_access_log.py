import pytest

from extproc.envoy.server.access_log import read
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.exchange import Target
from extproc.words.tries import OUTCOMES, DownstreamEnd, Try

TARGETS = contract.encode_targets([Target("one", "a", "model-1"), Target("two/x", "b", "model-2")])


def entry(
    status=200,
    details="via_upstream",
    *,
    flags=(),
    told=None,
    seconds=1.5,
    first_byte=None,
    headers=None,
    sizes=(0, 0),
):
    found = pb.HTTPAccessLogEntry()
    found.request.request_body_bytes, found.response.response_body_bytes = sizes
    found.response.response_code.value = status
    found.response.response_code_details = details
    found.response.response_headers.update(headers or {})
    for flag in flags:
        setattr(found.common_properties.response_flags, flag, True)
    found.common_properties.duration.FromNanoseconds(int(seconds * 1e9))
    if first_byte is not None:
        found.common_properties.time_to_first_upstream_rx_byte.FromNanoseconds(int(first_byte * 1e9))
    if told:
        found.common_properties.metadata.filter_metadata[contract.LOG_NAMESPACE].update(told)
    return found


def message(*entries, name="try-a"):
    found = pb.StreamAccessLogsMessage()
    found.identifier.log_name = name
    found.http_logs.log_entry.extend(entries)
    return found.SerializeToString()


def one(*arguments, name="try-a", **more):
    [found] = read(message(entry(*arguments, **more), name=name), "")[1]
    return found


@pytest.mark.parametrize(
    ("status", "details", "flags", "outcome"),
    [
        (200, "via_upstream", (), "ok"),
        (302, "via_upstream", (), "3xx"),
        *((status, "via_upstream", (), f"{status}") for status in (401, 403, 408, 429)),
        (307, "via_upstream", (), "3xx"),
        (404, "via_upstream", (), "4xx"),
        (422, "via_upstream", (), "4xx"),
        (500, "via_upstream", (), "5xx"),
        (529, "via_upstream", (), "5xx"),
        (200, "via_upstream", ("upstream_remote_reset",), "cut"),
        (200, "via_upstream", ("upstream_connection_termination",), "cut"),
        (200, "via_upstream", ("upstream_protocol_error",), "cut"),
        (200, "via_upstream", ("downstream_remote_reset",), "client_left"),
        (0, "downstream_remote_disconnect", ("downstream_connection_termination",), "client_left"),
        (503, "downstream_remote_disconnect", ("downstream_connection_termination",), "5xx"),  # failed over at once
        (401, "downstream_remote_disconnect", ("downstream_connection_termination",), "401"),
        (429, "upstream_reset_after_response_started{connection_termination}", (), "429"),
        (503, "via_upstream", ("upstream_remote_reset",), "5xx"),
        (
            503,
            "upstream_reset_before_response_started{connection_failure}",
            ("upstream_connection_failure",),
            "connect",
        ),
        (503, "upstream_reset_before_response_started", ("upstream_remote_reset",), "reset"),
        (503, "upstream_reset_before_response_started", ("upstream_connection_termination",), "reset"),
        (504, "upstream_response_timeout", ("upstream_request_timeout",), "timeout"),
        (504, "stream_idle_timeout", ("stream_idle_timeout",), "timeout"),
        (503, "upstream_reset_before_response_started{overflow}", ("upstream_overflow",), "overflow"),
        (503, "no_healthy_upstream", ("no_healthy_upstream",), "unhealthy"),
        (401, "credential_injector_failed", (), "credential"),
        (500, "ext_proc_error", (), "other"),
        (0, "", (), "other"),
    ],
)
def test_a_try_has_the_outcome_of_its_ending(status, details, flags, outcome):
    found = one(status, details, flags=flags)
    assert found.outcome == outcome
    assert outcome in OUTCOMES


@pytest.mark.parametrize("status", [*range(100, 600, 7), 600, 999])
def test_every_status_has_an_outcome(status):
    assert one(status).outcome in OUTCOMES


@pytest.mark.parametrize(
    ("told", "attempt", "target"),
    [
        ({"id": "x", "attempt": 1, "targets": TARGETS}, 1, "one"),
        ({"id": "x", "attempt": 2, "targets": TARGETS}, 2, "two/x"),
        ({"id": "x", "attempt": 3, "targets": TARGETS}, 3, "two/x"),
        ({"id": "x", "targets": TARGETS}, 1, "one"),
        ({"id": "x", "attempt": 2}, 2, ""),
    ],
)
def test_a_try_has_its_exchange_attempt_and_target(told, attempt, target):
    found = one(told=told)
    assert (found.exchange_id, found.provider, found.attempt, found.target) == ("x", "a", attempt, target)


@pytest.mark.parametrize(("seconds", "outcome"), [(0.3, "client_left"), (0.51, "timeout")])
def test_a_try_that_the_public_listener_ends_timed_out(seconds, outcome):
    flags = ("downstream_connection_termination",)
    assert one(0, "", flags=flags, told={"id": "x", "timeout": 500}, seconds=seconds).outcome == outcome


@pytest.mark.parametrize("flags", [(), ("downstream_connection_termination",)])
def test_a_web_page_is_not_an_answer(flags):
    assert one(200, flags=flags, headers={"content-type": "text/html; charset=utf-8"}).outcome == "other"


def test_an_entry_with_every_field_is_read():
    headers = {"retry-after": "7", "content-type": "application/json"}
    told = {"id": "x", "targets": TARGETS}
    assert one(429, told=told, seconds=2.25, first_byte=0.5, headers=headers, sizes=(300, 40)) == Try(
        exchange_id="x",
        provider="a",
        target="one",
        attempt=1,
        status=429,
        outcome="429",
        seconds=2.25,
        first_byte=0.5,
        retry_after="7",
        request_bytes=300,
        answer_bytes=40,
        streamed=False,
    )


def test_an_entry_with_few_fields_is_read():
    found = one(0, "")
    assert (found.exchange_id, found.target, found.first_byte, found.retry_after) == ("", "", None, "")
    assert (found.request_bytes, found.answer_bytes, found.streamed) == (0, 0, False)


@pytest.mark.parametrize(
    ("content_type", "streamed"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_streamed_answers_are_recognised(content_type, streamed):
    assert one(headers={"content-type": content_type}).streamed is streamed


@pytest.mark.parametrize(
    ("status", "details", "flags", "reason"),
    [
        (0, "", ("downstream_connection_termination",), "client_left"),
        (408, "request_headers_timeout", (), "request_timeout"),
        (504, "stream_idle_timeout", (), "idle_timeout"),
        (413, "request_payload_exceeded_max_request_bytes", (), "body_too_large"),
        (503, "overload", (), "overloaded"),
        (200, "upstream_reset_after_response_started{connection_termination}", (), "cut"),
        (404, "route_not_found", (), "4xx"),
        (500, "ext_proc_error_gRPC_error_13", (), "5xx"),
    ],
)
def test_an_end_without_an_answer_has_its_reason(status, details, flags, reason):
    assert one(status, details, flags=flags, name="gateway") == DownstreamEnd(reason, "", status)


@pytest.mark.parametrize("details", ["via_upstream", "extproc_invalid_key"])
def test_an_end_with_an_answer_is_not_counted_as_unseen(details):
    assert read(message(entry(401, details), name="gateway"), "")[1] == []


def test_only_the_first_message_of_a_stream_names_the_log():
    name, _ = read(message(entry(), name="try-b"), "")
    assert name == "try-b"
    name, [found] = read(message(entry(), name=""), name)
    assert (name, found.provider) == ("try-b", "b")


def test_a_message_without_entries_is_accepted():
    assert read(b"", "gateway") == ("gateway", [])

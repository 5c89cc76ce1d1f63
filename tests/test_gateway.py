"""Conversations: what Envoy says and what we answer."""

import asyncio
import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.accounting.books import row_of
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.words import contract
from extproc.words.actions import CONTINUE, Chunk, Continue

TOKENS = "budgets: [{name: t, unit: tokens, limit: 100000, window: minute}]"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
STREAMED = QUESTION | {"stream": True}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHOICE = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
ANSWER = {"model": "m-1", "choices": [CHOICE], "usage": USAGE}


def event(value):
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


TEXT = event({"model": "m-1", "choices": [{"index": 0, "delta": {"content": "Hi"}}], "usage": None})
STOP = event({"model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
USED = event({"model": "m-1", "choices": [], "usage": USAGE})
DONE = event(b"[DONE]")


# --- what Envoy says


def asks(path="/v1/chat/completions", *, method="POST", end=False, **headers):
    given = {":method": method, ":path": path, "x-request-id": "r-1"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda stream: stream.on_request_headers(given, end)


def sends(body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda stream: stream.on_request_body(data)


def answers(status=200, kind="application/json", *, attempts=1.0, details="via_upstream", end=False, **headers):
    given = {":status": str(status), "content-type": kind}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    attributes = {"upstream.request_attempt_count": attempts, "response.code_details": details}
    return lambda stream: stream.on_response_headers(given, attributes, end)


def streams(chunk, end=False):
    data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
    return lambda stream: stream.on_response_body(data, end)


async def talk(stream, *says):
    """What we answer to each. The stream is over after the last, as the server does it."""
    replies = []
    for say in says:
        assert not stream.done, "Envoy would not say this: the stream is over"
        replies.append(await say(stream))
    await stream.on_end()
    assert stream.done
    return replies


def error(answer):
    return answer.status, json.loads(answer.body)["error"]["code"], answer.headers["x-ai-error-origin"]


# --- answers


async def test_a_plain_answer(world):
    gateway = world(TOKENS)
    body = json.dumps(ANSWER).encode()
    headers, onward, told, first, last = await talk(
        gateway.stream(), asks(), sends(QUESTION), answers(), streams(body[:20]), streams(body[20:], end=True)
    )
    assert headers == CONTINUE
    assert onward.reroute
    assert onward.order == ("try-a",)
    rates = {"x-ratelimit-limit-tokens": "100000", "x-ratelimit-remaining-tokens": "95838"}
    rates["x-ratelimit-reset-tokens"] = "60s"
    assert told == Continue({"x-ai-provider": "a", "x-ai-model": "m", "x-ai-attempts": "1"} | rates, read_answer=True)
    assert (first, last) == (Chunk(b""), Chunk(body, end=True))
    assert await gateway.level("t") == (10, 0)
    [entry] = gateway.log
    assert (entry["status"], entry["error"], entry["complete"]) == (200, "", True)
    assert (entry["input_tokens"], entry["output_tokens"], entry["usage_source"]) == (7, 3, "provider")
    assert (entry["response_model"], entry["finish_reasons"], entry["provider"]) == ("m-1", ["stop"], "a")


async def test_the_rates_of_the_gateways_account_are_not_mixed_with_the_clients(world):
    theirs = {"x_ratelimit_limit_requests": "9999", "x_ratelimit_remaining_requests": "9998"}
    *_, told = await talk(world(TOKENS).stream(), asks(), sends(QUESTION), answers(end=True, **theirs))
    assert set(told.remove_headers) == {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"}
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(end=True, **theirs))
    assert told.remove_headers == ()


@pytest.mark.parametrize(("model", "served"), [("m2", True), ("n", False)])
async def test_a_conversation_is_downgraded_only_where_its_provider_keeps_it(world, model, served):
    budget = "name: b, unit: tokens, limit: 1, window: day, match: {model: m}, on_exceed: downgrade"
    models = "models: {m: {provider: a, context: 9000}, m2: {provider: a}, n: {provider: b}}"
    keyless = "kind: openai, base_url: 'http://127.0.0.1:8090/v1'"
    providers = f"providers: {{a: {{{keyless}}}, b: {{{keyless}}}}}"
    gateway = world(f"{providers}\n{models}\nbudgets: [{{{budget}, downgrade_to: {model}}}]")
    body = {"model": "m", "input": "Hello", "previous_response_id": "resp_1"}
    [_, onward] = await talk(gateway.stream(), asks("/v1/responses"), sends(body))
    assert isinstance(onward, Continue) is served
    if served:
        assert json.loads(onward.body)["model"] == model
    else:
        assert error(onward)[:2] == (402, "budget_exceeded")


async def test_the_usage_event_is_hidden_from_a_client_that_did_not_ask(world):
    gateway = world(TOKENS)
    replies = await talk(
        gateway.stream(),
        asks(),
        sends(STREAMED),
        answers(kind="text/event-stream; charset=utf-8"),
        *(streams(chunk) for chunk in (TEXT, STOP, USED, DONE)),
        streams(b"", end=True),
    )
    assert json.loads(replies[1].body)["stream_options"] == {"include_usage": True}
    assert replies[3:] == [Chunk(TEXT), Chunk(STOP), Chunk(b""), Chunk(DONE), Chunk(b"", end=True)]
    assert await gateway.level("t") == (10, 0)


async def test_the_usage_event_reaches_a_client_that_asked(world):
    body = STREAMED | {"stream_options": {"include_usage": True}, "max_tokens": 5}
    _, onward, *_, last = await talk(
        world(TOKENS).stream(),
        asks(),
        sends(body),
        answers(kind="text/event-stream"),
        streams(TEXT + STOP + USED + DONE, end=True),
    )
    assert onward.body is None
    assert last == Chunk(TEXT + STOP + USED + DONE, end=True)


async def test_a_stream_without_usage_is_counted_from_its_text(world):
    gateway = world(TOKENS)
    text = event({"choices": [{"index": 0, "delta": {"content": "x" * 300}}]})
    await talk(
        gateway.stream(), asks(), sends(STREAMED), answers(kind="text/event-stream"), streams(text + DONE, end=True)
    )
    [entry] = gateway.log
    assert (entry["usage_source"], entry["output_tokens"]) == ("estimated", 100)


async def test_usage_in_the_last_text_event_is_counted_and_passes(world):
    gateway = world(TOKENS)
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    *_, chunk = await talk(
        gateway.stream(), asks(), sends(STREAMED), answers(kind="text/event-stream"), streams(TEXT + last, end=True)
    )
    assert chunk.body == TEXT + last
    assert await gateway.level("t") == (10, 0)


async def test_a_plain_answer_to_a_request_for_a_stream_passes(world):
    body = json.dumps(ANSWER).encode()
    *_, chunk = await talk(world().stream(), asks(), sends(STREAMED), answers(), streams(body, end=True))
    assert chunk == Chunk(body, end=True)


async def test_a_plain_answer_is_never_hidden(world):
    body = json.dumps({"choices": [], "usage": USAGE}).encode()
    *_, chunk = await talk(world().stream(), asks(), sends(STREAMED), answers(), streams(body, end=True))
    assert chunk == Chunk(body, end=True)


async def test_an_error_event_is_never_hidden(world):
    failed = event({"error": {"message": "overloaded"}, "usage": USAGE})
    *_, chunk = await talk(
        world().stream(), asks(), sends(STREAMED), answers(kind="text/event-stream"), streams(failed, end=True)
    )
    assert chunk == Chunk(failed, end=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"kind": "audio/mpeg"},
        {"kind": ""},
        {"kind": "text/plain"},
        {"kind": "text/event-stream", "content_encoding": "br"},
        {"kind": "application/json", "content_encoding": "br"},
    ],
)
async def test_an_answer_of_a_kind_nobody_can_read_passes_and_is_charged_in_full(world, headers):
    gateway = world(TOKENS)
    body = QUESTION | {"max_tokens": 100}
    *_, told = await talk(gateway.stream(), asks(), sends(body), answers(**headers))
    assert not told.read_answer
    [entry] = gateway.log
    assert (entry["usage_source"], entry["output_tokens"], entry["complete"]) == ("estimated", 100, True)


async def test_a_web_page_is_no_answer(world):
    gateway = world(TOKENS)
    *_, refused = await talk(gateway.stream(), asks(), sends(QUESTION), answers(kind="text/html; charset=utf-8"))
    assert (refused.status, refused.reason, refused.headers["x-ai-error-origin"]) == (
        502,
        "provider_bad_answer",
        "provider",
    )
    assert await gateway.level("t") == (0, 0)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_compressed_answer_leaves_as_it_was_before(world, whole):
    body = gzip.compress(json.dumps(ANSWER).encode())
    gateway = world()
    pieces = [body] if whole else [body[:20], body[20:]]
    *first, last = [streams(piece) for piece in pieces[:-1]] + [streams(pieces[-1], end=True)]
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(content_encoding="gzip"), *first, last)
    assert (json.loads(told.body), told.end) == (ANSWER, True)
    assert gateway.log[0]["usage_source"] == "provider"


async def test_a_compressed_answer_that_is_corrupt_is_cut(world):
    gateway = world()
    *_, last = await talk(
        gateway.stream(), asks(), sends(QUESTION), answers(content_encoding="gzip"), streams(b"no gzip", end=True)
    )
    assert (last, gateway.log[0]["error"]) == (Chunk(b"", end=True), "provider_bad_answer")


async def test_gzip_bytes_under_a_false_name_pass_unchanged(world):
    body = gzip.compress(json.dumps(ANSWER).encode())
    *_, chunk = await talk(world().stream(), asks(), sends(QUESTION), answers(), streams(body, end=True))
    assert chunk == Chunk(body, end=True)


async def test_an_answer_over_the_limit_passes_and_is_charged_by_its_size(world):
    gateway = world("limits: {buffered_response: 1KiB}\n" + TOKENS)
    chunks = [b"x" * 800, b"y" * 800, b"z" * 800]
    *_, first, second, third, last = await talk(
        gateway.stream(), asks(), sends(QUESTION), answers(), *map(streams, chunks), streams(b"", end=True)
    )
    assert [first, second, third] == [Chunk(b""), Chunk(chunks[0] + chunks[1]), Chunk(chunks[2])]
    assert last == Chunk(b"", end=True)
    assert gateway.log[0]["output_tokens"] == 800


async def test_an_answer_without_a_body(world):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(204, end=True))
    assert not told.read_answer
    assert await gateway.level("t") != (0, 0)


@given(cuts=st.lists(st.integers(min_value=0), max_size=12), newline=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_an_unedited_stream_leaves_as_the_bytes_it_came_in_however_it_is_split(world, cuts, newline):
    stream = (b": ping\n\n" + TEXT * 3 + STOP + USED + DONE + b"\n").replace(b"\n", newline)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    body = STREAMED | {"stream_options": {"include_usage": True}}
    gateway = world()
    *replies, last = asyncio.run(
        talk(
            gateway.stream(),
            asks(),
            sends(body),
            answers(kind="text/event-stream"),
            *map(streams, chunks),
            streams(b"", end=True),
        )
    )
    assert b"".join(chunk.body for chunk in [*replies[3:], last]) == stream
    assert gateway.log[0]["output_tokens"] == 3


@given(cuts=st.lists(st.integers(min_value=0), max_size=12))
def test_the_usage_event_stays_hidden_however_the_stream_is_split(world, cuts):
    stream = TEXT + STOP + USED + DONE
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    *replies, last = asyncio.run(
        talk(
            world().stream(),
            asks(),
            sends(STREAMED),
            answers(kind="text/event-stream"),
            *map(streams, chunks),
            streams(b"", end=True),
        )
    )
    assert b"".join(chunk.body for chunk in [*replies[3:], last]) == TEXT + STOP + DONE


# --- refusals


@pytest.mark.parametrize(
    ("says", "status", "code"),
    [
        (asks(authorization="Bearer nope"), 401, "invalid_key"),
        (asks("/v1/nothing"), 404, "path_not_found"),
        (asks("//v1/chat/completions"), 404, "path_not_found"),
        (asks("/v1/chat/completions/"), 404, "path_not_found"),
        (asks("/v1%2Fchat%2Fcompletions"), 404, "path_not_found"),
        (asks("/v1/chat/completions;a"), 404, "path_not_found"),
        (asks("/V1/chat/completions"), 404, "path_not_found"),
        (asks(method="GET"), 405, "method_not_allowed"),
        (asks(content_type="text/plain"), 415, "unsupported_encoding"),
        (asks(content_type="application/json;charset=utf-7"), 415, "unsupported_encoding"),
        (asks(content_encoding="gzip"), 415, "unsupported_encoding"),
        (asks(content_encoding="identity, gzip"), 415, "unsupported_encoding"),
        (asks(end=True), 400, "invalid_json"),
    ],
)
async def test_a_refusal_at_the_headers(world, says, status, code):
    gateway = world()
    stream = gateway.stream()
    [answer] = await talk(stream, says)
    assert error(answer) == (status, code, "gateway")
    assert answer.reason == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "r-1"
    assert [entry["error"] for entry in gateway.log] == [code]
    assert gateway.metric("extproc_refusals_total", code=code) == 1
    assert gateway.telemetry.in_flight == 0


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json; charset=utf-8; a=b",
    ],
)
async def test_json_by_any_of_its_names_is_read(world, kind):
    [reply, _] = await talk(world().stream(), asks(content_type=kind), sends(QUESTION))
    assert reply == CONTINUE


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"model":"m","model":"n"}', 400, "invalid_json"),
        (b"[]", 400, "invalid_request"),
        ({"model": "m"}, 400, "invalid_request"),
        (QUESTION | {"model": "unknown"}, 404, "model_not_found"),
        (QUESTION | {"model": "a\r\nx: y"}, 400, "invalid_request"),
        (QUESTION | {"model": "../../x"}, 404, "model_not_found"),
        (QUESTION | {"model": "m" * 1_000_000}, 400, "invalid_request"),
        (QUESTION | {"model": "м"}, 400, "invalid_request"),
        (QUESTION | {"model": ["m"]}, 400, "invalid_request"),
        (QUESTION | {"stream": "true"}, 400, "invalid_request"),
    ],
)
async def test_a_refusal_at_the_body(world, body, status, code):
    gateway = world(TOKENS)
    _, answer = await talk(gateway.stream(), asks(), sends(body))
    assert error(answer) == (status, code, "gateway")
    assert len(answer.body) < 1000
    assert await gateway.level("t") == (0, 0)
    assert gateway.metric("extproc_requests_total", operation="chat", status=str(status)) == 1


async def test_a_body_over_the_limit(world):
    gateway = world("limits: {request_body: 1KiB}")
    _, answer = await talk(gateway.stream(), asks(), sends(b'{"a":"' + b"x" * 1024 + b'"}'))
    assert error(answer) == (413, "body_too_large", "gateway")


async def test_one_exchange_too_many_is_refused(world):
    gateway = world("limits: {exchanges: 1}")
    first, second = gateway.stream(), gateway.stream()
    assert await asks()(first) == CONTINUE
    [answer] = await talk(second, asks())
    assert error(answer) == (503, "overloaded", "gateway")
    assert answer.headers["retry-after"] == "1"
    await first.on_end()
    assert (await talk(gateway.stream(), asks()))[0] == CONTINUE


async def test_the_list_of_models_is_answered_at_the_headers(world):
    gateway = world()
    stream = gateway.stream()
    [answer] = await talk(stream, asks("/v1/models", method="GET", end=True))
    assert [model["id"] for model in json.loads(answer.body)["data"]] == ["m", "n"]
    assert gateway.metric("extproc_requests_total", operation="list_models", status="200") == 1
    assert gateway.telemetry.in_flight == 0


# --- what providers and Envoy answer


@pytest.mark.parametrize("status", [400, 404, 408, 422, 429, 500, 503])
async def test_an_error_of_the_provider_passes_and_costs_no_tokens(world, status):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(status))
    assert not told.read_answer
    assert told.set_headers["x-ai-error-origin"] == "provider"
    assert told.set_headers["x-ai-provider"] == "a"
    assert await gateway.level("t") == (0, 0)
    assert gateway.log[0]["status"] == status


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_a_502_and_not_the_clients_fault(world, status):
    gateway = world(TOKENS)
    *_, answer = await talk(gateway.stream(), asks(), sends(QUESTION), answers(status))
    assert error(answer) == (502, "provider_credential_rejected", "provider")
    assert answer.headers["x-ai-provider"] == "a"
    assert await gateway.level("t") == (0, 0)


@pytest.mark.parametrize("reason", ["connect", "reset", "timeout", "overflow", "unhealthy", "credential", "other"])
async def test_a_failure_inside_the_hop_comes_from_the_gateway(world, reason):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(503, x_extproc_hop=reason))
    assert told == Continue({"x-ai-error-origin": "gateway"}, ("x-extproc-hop",))
    assert await gateway.level("t") == (0, 0)
    assert gateway.log[0]["error"] == reason


@pytest.mark.parametrize(
    ("details", "attempts"), [("no_healthy_upstream", 0.0), ("response_timeout", 1.0), ("via_upstream", 0.0)]
)
async def test_a_local_reply_of_the_public_listener_comes_from_the_gateway(world, details, attempts):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(503, details=details, attempts=attempts))
    assert told == Continue({"x-ai-error-origin": "gateway"})
    assert await gateway.level("t") == (0, 0)


async def test_a_local_reply_before_the_body_came(world):
    gateway = world(TOKENS)
    _, told = await talk(gateway.stream(), asks(), answers(413, details="request_payload_too_large", attempts=0.0))
    assert told.set_headers == {"x-ai-error-origin": "gateway"}
    assert gateway.telemetry.in_flight == 0


async def test_a_local_reply_to_a_request_that_never_came(world):
    gateway = world(TOKENS)
    stream = gateway.stream()
    [told] = await talk(stream, answers(413, details="request_headers_too_large", attempts=0.0, x_ai_provider="forged"))
    assert told == Continue({"x-ai-error-origin": "gateway"}, ("x-ai-provider",))
    assert gateway.log == []
    assert gateway.telemetry.in_flight == 0


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_provider_cannot_forge_internal_or_x_ai_headers(world, status):
    forged = {
        "x_extproc_id": "1",
        "x_extproc_targets": "2",
        "x_ai_cost": "0",
        "x_ai_provider": "other",
        "x_ai_new": "3",
    }
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(status, **forged))
    assert set(told.remove_headers) == {name.replace("_", "-") for name in forged}
    assert told.set_headers["x-ai-provider"] == "a"


async def test_the_providers_request_id_is_told_under_another_name(world):
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(x_request_id="theirs"))
    assert told.set_headers["x-ai-provider-request-id"] == "theirs"


FALLBACK = """
providers: {a: {kind: mock}, b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1'}}
models: {one: {provider: a}, two: {provider: b, model: deux}}
virtual_models: {v: {targets: [{model: one}, {model: two}]}}
"""


@pytest.mark.parametrize(("attempts", "provider", "model"), [(1, "a", "one"), (2, "b", "deux"), (3, "b", "deux")])
async def test_who_served_is_told_by_the_number_of_the_try(world, attempts, provider, model):
    gateway = world(FALLBACK)
    _, onward, told = await talk(
        gateway.stream(), asks(), sends(QUESTION | {"model": "v"}), answers(attempts=float(attempts))
    )
    assert onward.order == ("try-a", "try-b")
    assert onward.set_headers[contract.ATTEND] == contract.ATTEND_LATER
    assert told.set_headers["x-ai-provider"] == provider
    assert told.set_headers["x-ai-model"] == model
    assert told.set_headers["x-ai-attempts"] == str(attempts)


async def test_what_was_skipped_is_in_the_log_and_what_served_is_told(world):
    text = FALLBACK.replace("{model: one}", "{model: one, disabled: true}, {model: two, tries: 2}")
    gateway = world(text)
    _, onward, told = await talk(gateway.stream(), asks(), sends(QUESTION | {"model": "v"}), answers(attempts=2.0))
    assert onward.order == ("try-b", "try-b")
    assert told.set_headers["x-ai-provider"] == "b"
    assert gateway.log[0]["skipped"] == {"one": "disabled"}
    assert gateway.metric("extproc_targets_skipped_total", reason="disabled") == 1


async def test_a_request_that_no_target_can_serve_is_refused_before_anything_is_held(world):
    gateway = world(FALLBACK.replace("one: {provider: a}", "one: {provider: a, supports: []}") + TOKENS)
    body = QUESTION | {"model": "one", "tools": [{"type": "function", "function": {"name": "f"}}]}
    _, answer = await talk(gateway.stream(), asks(), sends(body))
    assert error(answer) == (400, "unsupported_by_targets", "gateway")
    assert json.loads(answer.body)["error"]["param"] == "tools"
    assert await gateway.level("t") == (0, 0)


async def test_only_the_targets_that_will_be_tried_are_held_for(world):
    text = FALLBACK.replace("}]}}", "}], retry: {attempts: 1}}}")
    gateway = world(text + "budgets: [{name: t, per: [provider], unit: requests, limit: 9, window: minute}]")
    stream = gateway.stream()
    await asks()(stream)
    await sends(QUESTION | {"model": "v"})(stream)
    assert await gateway.level("t:provider=a") == (0, 1)
    assert await gateway.level("t:provider=b") == (0, 0)
    await stream.on_end()


# --- ends


CONVERSATION = [
    asks(),
    sends(STREAMED),
    answers(kind="text/event-stream"),
    streams(TEXT),
    streams(STOP),
    streams(USED + DONE, end=True),
]


@pytest.mark.parametrize("said", range(len(CONVERSATION) + 1))
async def test_a_client_may_leave_at_any_point(world, said):
    gateway = world(TOKENS)
    stream = gateway.stream()
    await talk_until(stream, said)
    await stream.on_end()
    await stream.on_end()  # twice is once
    settled, reserved = await gateway.level("t")
    assert reserved == 0
    assert gateway.leases == set()
    assert gateway.telemetry.in_flight == 0
    assert len(gateway.log) == (1 if said else 0)
    assert (settled > 0) == (said >= 2)  # what may have reached a provider is charged
    if 2 <= said < len(CONVERSATION):
        assert gateway.log[0]["error"] == ("incomplete" if said > 2 else "client_left")
        assert not gateway.log[0]["complete"]


async def talk_until(stream, said):
    for say in CONVERSATION[:said]:
        await say(stream)


async def test_a_client_that_leaves_before_any_answer_is_charged_what_was_held(world):
    gateway = world(TOKENS)
    body = QUESTION | {"max_tokens": 50}
    await talk(gateway.stream(), asks(), sends(body))
    assert await gateway.level("t") == (len(json.dumps(body)) + 50, 0)


class CountingStore(MemoryCounters):
    def __init__(self):
        super().__init__()
        self.settled = 0

    async def settle(self, id, amounts, *, keep=False):
        self.settled += 1
        await asyncio.sleep(0)
        return await super().settle(id, amounts, keep=keep)


@pytest.mark.parametrize("said", range(2, len(CONVERSATION) + 1))
async def test_an_exchange_is_settled_once(world, said):
    store = CountingStore()
    gateway = world(TOKENS, store)
    stream = gateway.stream()
    await talk_until(stream, said)
    await stream.on_end()
    await stream.on_end()
    assert store.settled == 1


async def test_a_handler_that_is_cancelled_while_it_settles_still_settles(world):
    store = CountingStore()
    gateway = world(TOKENS, store)
    stream = gateway.stream()
    await talk_until(stream, len(CONVERSATION) - 1)
    last = asyncio.create_task(CONVERSATION[-1](stream))
    while not store.settled:
        await asyncio.sleep(0)
    last.cancel()
    with pytest.raises(asyncio.CancelledError):
        await last
    await stream.on_end()
    await asyncio.sleep(0.01)
    assert await gateway.level("t") == (10, 0)
    assert len(gateway.log) == 1


async def test_a_request_that_left_is_charged_even_if_this_process_dies(world):
    gateway = world(TOKENS)
    stream = gateway.stream()
    await talk_until(stream, 2)
    gateway.clock.now += 61  # nobody renews the lease
    [expired] = await gateway.counters.expire()
    assert expired.forwarded
    assert expired.amounts[0] > 0


async def test_an_exchange_keeps_the_settings_it_began_with(world):
    before, after = world(), world("models: {other: {provider: a}}")
    stream = before.stream()
    await asks()(stream)
    onward = await sends(QUESTION)(stream)
    assert onward.order == ("try-a",)
    _, answer = await talk(after.stream(), asks(), sends(QUESTION))
    assert answer.status == 404
    await stream.on_end()


# --- attached to somebody else's Envoy


async def test_attach_mode_names_the_provider_and_gives_no_order(world):
    gateway = world()
    _, onward, told = await talk(gateway.stream(attached=True), asks(), sends(QUESTION), answers())
    assert onward.set_headers == {"x-extproc-provider": "a"}
    assert onward.order == ()
    assert onward.reroute
    assert told.set_headers["x-ai-provider"] == "a"


@pytest.mark.parametrize(("attached", "seconds"), [(True, 30), (False, 0)])
async def test_attach_mode_has_no_log_of_tries_so_the_answer_says_who_wants_to_be_left_alone(world, attached, seconds):
    gateway = world()
    await talk(gateway.stream(attached=attached), asks(), sends(QUESTION), answers(429, retry_after="30"))
    assert gateway.pipeline.history.cooling("a/m") == pytest.approx(seconds)


async def test_attach_mode_removes_the_clients_key_and_labels(world, monkeypatch):
    monkeypatch.setenv("ALICE", "sk-alice")
    gateway = world("consumers: [{name: alice, keys: [{env: ALICE}]}]")
    _, onward = await talk(
        gateway.stream(attached=True), asks(x_api_key="sk-alice", x_ai_agent="planner"), sends(QUESTION)
    )
    assert set(onward.remove_headers) == {"x-api-key", "x-ai-agent"}


async def test_attach_mode_has_no_hop_so_a_provider_cannot_claim_one(world):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(attached=True), asks(), sends(QUESTION), answers(x_extproc_hop="mine"))
    assert told.remove_headers == ("x-extproc-hop",)
    assert told.set_headers.get("x-ai-provider") == "a"
    assert told.read_answer


# --- money

PRICED = """
models: {m: {provider: a, price: {input: 1, output: 2, cached_input: 0.5}}, n: {provider: b}}
virtual_models: {v: {targets: [{model: n}, {model: m}]}}
"""
MONEY = PRICED + "budgets: [{name: usd, unit: usd, limit: 1, window: month, alert_at: [0.00001]}]\n"
TOLD = PRICED + "usage: {cost_in_response: true}\n"
COST = 0.000013  # of USAGE


async def test_money_is_settled_logged_and_counted(world):
    gateway = world(MONEY)
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    assert await gateway.level("usd", -1) == (13_000, 0)
    [entry] = gateway.log
    assert entry["cost_usd"] == COST
    spent = gateway.metric("extproc_cost_usd_total", provider="a", model="m", consumer="anonymous", team="")
    assert spent == pytest.approx(COST)
    *_, told, _ = await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    assert told.set_headers["x-ai-budget"] == "usd; used=0.00"
    assert gateway.metric("extproc_budget_used_ratio", budget="usd") == 0  # its window is long over


async def test_cached_tokens_have_their_price(world):
    gateway = world(MONEY)
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER | {"usage": usage}, end=True))
    assert await gateway.level("usd", -1) == (11_000, 0)


async def test_no_money_left_is_a_402(world):
    gateway = world(MONEY.replace("limit: 1", "limit: 0.001"))
    _, refused = await talk(gateway.stream(), asks(), sends(QUESTION))
    assert error(refused) == (402, "budget_exceeded", "gateway")
    assert "0.001 USD per month" in json.loads(refused.body)["error"]["message"]
    assert gateway.log[0]["status"] == 402


async def test_what_it_cost_is_written_into_a_plain_answer(world):
    body = b'{ "id" : 1.50, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3} , "z":[ ] }'
    *_, told, first, last = await talk(
        world(TOLD).stream(),
        asks(),
        sends(QUESTION),
        answers(content_length="99"),
        streams(body[:9]),
        streams(body[9:], end=True),
    )
    assert "content-length" in told.remove_headers
    assert "x-ai-cost" not in told.set_headers
    assert first == Chunk(b"")
    usage = b'{"prompt_tokens":7,"completion_tokens":3,"cost":0.000013}'
    assert last == Chunk(b'{"id":1.50,"choices":[],"usage":' + usage + b',"z":[ ]}', end=True)


async def test_what_it_cost_is_written_into_the_usage_event_alone(world):
    body = STREAMED | {"stream_options": {"include_usage": True}}
    *_, last = await talk(
        world(TOLD).stream(),
        asks(),
        sends(body),
        answers(kind="text/event-stream"),
        streams(TEXT + STOP + USED + DONE, end=True),
    )
    before, after = last.body.removeprefix(TEXT + STOP), last.body.removesuffix(DONE)
    assert after == TEXT + STOP + before.removesuffix(DONE)
    assert json.loads(before.removesuffix(DONE)[6:])["usage"] == USAGE | {"cost": COST}


async def test_what_it_cost_is_written_where_the_responses_api_has_its_usage(world):
    usage = {"input_tokens": 7, "output_tokens": 3}
    done = {"type": "response.completed", "response": {"id": "r", "output": [], "usage": usage}}
    raw = b"event: response.completed\n" + event(done)
    said = asks("/v1/responses"), sends({"model": "m", "input": "Hello", "stream": True})
    providers = "providers: {a: {kind: openai, api_key: env:PATH}, b: {kind: mock}}\n"
    *_, last = await talk(
        world(TOLD + providers).stream(), *said, answers(kind="text/event-stream"), streams(raw, end=True)
    )
    name, data = last.body.strip().split(b"\n")
    assert name == b"event: response.completed"
    assert json.loads(data[6:])["response"]["usage"] == usage | {"cost": COST}


@pytest.mark.parametrize(
    "text",
    [PRICED, TOLD.replace("price: {input: 1, output: 2, cached_input: 0.5}", "context: 9000")],
    ids=["not asked for", "unknown price"],
)
async def test_otherwise_the_answer_leaves_as_it_came(world, text):
    body = json.dumps(ANSWER, indent=1).encode()
    *_, told, last = await talk(world(text).stream(), asks(), sends(QUESTION), answers(), streams(body, end=True))
    assert last.body == body
    assert "content-length" not in told.remove_headers


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1, "completion_tokens": 3}, None, {}])
async def test_what_nobody_believes_has_no_cost(world, usage):
    body = json.dumps(ANSWER | {"usage": usage}).encode()
    *_, last = await talk(world(TOLD).stream(), asks(), sends(QUESTION), answers(), streams(body, end=True))
    assert last.body == body


async def test_a_translated_plain_answer_has_its_cost_in_a_header(world):
    told_usage = {contract.TRANSLATED.replace("-", "_"): "1", contract.USAGE.replace("-", "_"): "[1000, 10, 0, 0, 0]"}
    *_, told, last = await talk(
        world(TOLD).stream(), asks(), sends(QUESTION), answers(**told_usage), streams(ANSWER, end=True)
    )
    assert told.set_headers["x-ai-cost"] == "0.00102"
    assert json.loads(last.body)["usage"]["cost"] == 0.00102


@pytest.mark.parametrize("model", ["n", "v"])
async def test_an_unknown_price_may_be_refused(world, model):
    gateway = world(MONEY + "unknown_price: refuse\n")
    said = asks(), sends(QUESTION | {"model": model})
    if model == "n":
        _, refused = await talk(gateway.stream(), *said)
        assert error(refused) == (400, "unsupported_by_targets", "gateway")
        assert "the budget 'usd' counts money" in json.loads(refused.body)["error"]["message"]
    else:
        _, onward = await talk(gateway.stream(), *said)
        assert onward.order == ("try-a",)
    assert gateway.metric("extproc_targets_skipped_total", reason="no_price") == 1


async def test_an_unknown_price_counts_as_nothing_and_can_be_seen(world):
    gateway = world(MONEY)
    await talk(gateway.stream(), asks(), sends(QUESTION | {"model": "n"}), answers(), streams(ANSWER, end=True))
    assert await gateway.level("usd", -1) == (0, 0)
    assert gateway.log[0]["cost_usd"] is None
    assert gateway.metric("extproc_cost_unknown_total", provider="b", model="n") == 1


async def test_a_price_that_begins_later_does_not_count_yet(world):
    prices = "{model: m, input: 100, output: 0, from: 2099-01-01}, {model: m, input: 3, output: 0, from: 2020-01-01}"
    gateway = world(MONEY + f"prices: [{prices}]\n")
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    assert await gateway.level("usd", -1) == (21_000, 0)


# --- a stream that its budget ends

LONG = "word " * 40
PROVIDERS = "providers: {a: {kind: %s, api_key: env:PATH}, b: {kind: mock}}\n"


def cut_settings(kind, reserve="worst"):
    budgets = (
        "{name: t, unit: tokens, limit: 500, window: hour, reserve: %s}, {name: slots, unit: concurrency, limit: 1}"
    )
    return PROVIDERS % kind + f"budgets: [{budgets % reserve}]"


def named(name, value):
    return f"event: {name}\n".encode() + event({"type": name, **value})


CLIENTS = {
    "chat": (
        *("mock", "/v1/chat/completions", STREAMED | {"max_tokens": 9}),
        event({"model": "m-1", "choices": [{"index": 0, "delta": {"content": LONG}}]}),
        lambda data: (data["error"]["code"], data["error"]["message"]),
    ),
    "completions": (
        *("openai", "/v1/completions", {"model": "m", "prompt": "Hello", "stream": True, "max_tokens": 9}),
        event({"model": "m-1", "choices": [{"index": 0, "text": LONG}]}),
        lambda data: (data["error"]["code"], data["error"]["message"]),
    ),
    "responses": (
        *("openai", "/v1/responses", {"model": "m", "input": "Hello", "stream": True, "max_output_tokens": 16}),
        named("response.output_text.delta", {"item_id": "i", "output_index": 0, "content_index": 0, "delta": LONG}),
        lambda data: (data["code"], data["message"]),
    ),
    "anthropic": (
        *("anthropic", "/v1/messages", STREAMED | {"max_tokens": 9}),
        named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": LONG}}),
        lambda data: (data["error"]["type"], data["error"]["message"]),
    ),
}


@pytest.mark.parametrize("split", [0, 7, 150])
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_stream_that_its_budget_ends_gets_an_error_event_and_is_settled(world, client, split):
    kind, path, body, piece, said = CLIENTS[client]
    gateway = world(cut_settings(kind))
    stream = gateway.stream()
    for say in (asks(path), sends(body), answers(kind="text/event-stream")):
        await say(stream)
    out, sent, rest = [], 0, b""
    while not stream.done:
        assert sent < 50, "nobody ended it"
        data = rest + piece
        data, rest = (data[:-split], data[-split:]) if split else (data, b"")  # the last event comes in two parts
        out.append(await streams(data)(stream))
        sent += 1
    assert [chunk.end for chunk in out] == [False] * (sent - 1) + [True]
    *parts, last, nothing = b"".join(chunk.body for chunk in out).split(b"\n\n")
    assert nothing == b""
    assert len(parts) == sent - bool(split)
    assert all(part + b"\n\n" == piece for part in parts), "what came before is delivered"
    code, message = said(json.loads(last.split(b"data: ")[1]))
    assert code == ("rate_limit_error" if client == "anthropic" else "rate_limited")
    assert "Budget 't'" in message
    await stream.on_end()
    settled, reserved = await gateway.level("t", 3600)
    assert (reserved, gateway.leases) == (0, set())
    assert settled > 0
    assert await gateway.level("slots", 0) == (0, 0)
    [entry] = gateway.log
    assert (entry["error"], entry["complete"], entry["status"]) == ("rate_limited", False, 200)
    assert entry["usage_source"] == "estimated"
    row = row_of(stream._exchange, 0.0)
    assert (row.error, row.denied_by, row.charges) == ("rate_limited", "t", {"t": settled})
    assert gateway.metric("extproc_refusals_total", code="rate_limited") == 1
    assert gateway.metric("extproc_budget_decisions_total", budget="t", verdict="cut") == 1
    assert gateway.telemetry.in_flight == 0


async def test_a_stream_goes_on_where_its_budget_has_room(world):
    _, path, body, piece, _ = CLIENTS["chat"]
    gateway = world(cut_settings("mock").replace("500", "100000"))
    replies = await talk(
        gateway.stream(),
        *(asks(path), sends(body), answers(kind="text/event-stream")),
        *[streams(piece)] * 30,
        streams(USED + DONE, end=True),
    )
    assert [chunk.body for chunk in replies[3:-1]] == [piece] * 30
    assert await gateway.level("t", 3600) == (10, 0)


class NoExtension(MemoryCounters):
    async def extend(self, id, holds):
        raise StoreError("down")


@pytest.mark.parametrize("failure", ["deny", "allow"])
async def test_a_stream_that_cannot_be_checked_ends_where_the_budget_says_so(world, failure):
    _, path, body, piece, _ = CLIENTS["chat"]
    text = cut_settings("mock").replace("reserve:", f"store_failure: {failure}, reserve:")
    gateway = world(text, NoExtension())
    stream = gateway.stream()
    for say in (asks(path), sends(body), answers(kind="text/event-stream"), *[streams(piece)] * 3):
        await say(stream)
    reply = await streams(piece)(stream)
    assert reply.end == (failure == "deny")
    assert (b"store_unavailable" in reply.body) == (failure == "deny")
    await stream.on_end()
    assert (await gateway.level("t", 3600))[1] == 0


async def test_a_plain_answer_is_never_cut(world):
    gateway = world(cut_settings("mock"))
    body = json.dumps(ANSWER | {"choices": [CHOICE | {"message": {"content": LONG * 50}}]}).encode()
    *_, last = await talk(gateway.stream(), asks(), sends(QUESTION | {"max_tokens": 9}), answers(), streams(body, True))
    assert last == Chunk(body, end=True)


async def test_what_is_estimated_of_an_honest_answer_is_never_more_than_was_held(world):
    """Prose has more than three bytes for a token: who leaves before the usage comes must not close a budget."""
    gateway = world("budgets: [{name: t, unit: output_tokens, limit: 40, window: minute}]")
    text = event({"choices": [{"index": 0, "delta": {"content": "x" * 200}}]})
    stream = gateway.stream()
    for say in (asks(), sends(STREAMED | {"max_tokens": 40}), answers(kind="text/event-stream"), streams(text)):
        await say(stream)
    await stream.on_end()
    assert await gateway.level("t") == (40, 0)

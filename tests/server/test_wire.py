"""Real protobuf bytes in and out."""

import itertools
import json

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from extproc.envoy.server import wire
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Malformed
from extproc.words.actions import CONTINUE, Chunk, Continue, LocalReply
from extproc.words.exchange import NOTHING_VERIFIED


class Scripted:
    """An attachment that gives the answers of a test and records its calls."""

    done = more = False

    def __init__(self, reply):
        self.reply = reply
        self.heard = []

    async def on_request_headers(self, headers, end, verified):
        self.heard.append((dict(headers), end))
        self.verified = verified
        return self.reply

    async def on_request_body(self, body):
        self.heard.append(body)
        return self.reply

    async def on_response_headers(self, headers, attributes, end):
        self.heard.append((dict(headers), dict(attributes), end))
        return self.reply

    async def on_response_body(self, chunk, end):
        self.heard.append((chunk, end))
        return self.reply

    async def on_end(self):
        pass


def headers_message(phase, headers, *, end=False, attributes=None):
    message = pb.ProcessingRequest()
    part = getattr(message, phase)
    part.end_of_stream = end
    for key, value in headers:
        part.headers.headers.add(key=key, raw_value=value)
    if attributes:
        message.attributes["envoy.filters.http.ext_proc"].update(attributes)
    return message.SerializeToString()


def body_message(phase, body, *, end=True):
    message = pb.ProcessingRequest()
    getattr(message, phase).body = body
    getattr(message, phase).end_of_stream = end
    return message.SerializeToString()


TRAILERS = b"\x3a\x00"  # response_trailers, empty
HEADERS = headers_message("request_headers", [(":path", b"/v1")])
RESPONSE_HEADERS = headers_message("response_headers", [(":status", b"200")])


async def say(attachment, data):
    return [pb.ProcessingResponse.FromString(reply) for reply in await wire.converse(attachment, data)]


async def reply_to(data, reply):
    [message] = await say(Scripted(reply), data)
    return message


def set_headers(mutation):
    for option in mutation.set_headers:
        assert option.append_action == pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return {option.header.key: option.header.raw_value for option in mutation.set_headers}


# --- messages from Envoy


async def test_request_headers_are_read():
    attachment = Scripted(CONTINUE)
    headers = [(":method", b"POST"), ("x-a", b"1"), ("x-b", "é".encode()), ("x-a", b"2"), ("x-c", b"\xff")]
    await wire.converse(attachment, headers_message("request_headers", headers, end=True))
    assert attachment.heard == [({":method": "POST", "x-a": "1,2", "x-b": "é", "x-c": "�"}, True)]


async def test_response_headers_are_read_with_their_attributes():
    attachment = Scripted(CONTINUE)
    attributes = {"upstream.request_attempt_count": 2, "response.code_details": "via_upstream", "list": [1]}
    await wire.converse(attachment, headers_message("response_headers", [(":status", b"200")], attributes=attributes))
    known = {"upstream.request_attempt_count": 2.0, "response.code_details": "via_upstream"}
    assert attachment.heard == [({":status": "200"}, known, False)]


async def test_values_that_envoy_verified_come_with_the_request_headers():
    attachment = Scripted(CONTINUE)
    message = pb.ProcessingRequest.FromString(HEADERS)
    claims = {"sub": "a", "n": 42, "x": 1.5, "b": True, "none": None, "list": ["a", 1, {"c": []}], "o": {"p": {}}}
    failure = {"code": 3, "message": "Jwt is expired"}
    namespaces = message.metadata_context.filter_metadata
    namespaces["envoy.filters.http.jwt_authn"].update({"claims-0": claims, "failure-1": failure})
    namespaces["somebody.else"].update({"claims-0": {"sub": "root"}})
    message.attributes["envoy.filters.http.ext_proc"].update({"connection.uri_san_peer_certificate": "spiffe://a"})
    await wire.converse(attachment, message.SerializeToString())
    assert attachment.verified.token == {"claims-0": claims, "failure-1": failure}
    assert attachment.verified.connection == {"connection.uri_san_peer_certificate": "spiffe://a"}


async def test_requests_without_verified_values_are_read():
    attachment = Scripted(CONTINUE)
    await wire.converse(attachment, HEADERS)
    assert attachment.verified is NOTHING_VERIFIED


async def test_bodies_are_read():
    attachment = Scripted(CONTINUE)
    await wire.converse(attachment, body_message("request_body", b"\x00\xff"))
    attachment.reply = Chunk(b"")
    await wire.converse(attachment, body_message("response_body", b"a", end=False))
    await wire.converse(attachment, body_message("response_body", b"b", end=True))
    assert attachment.heard == [b"\x00\xff", (b"a", False), (b"b", True)]


@pytest.mark.parametrize("data", [b"", b"\x32\x00"], ids=["nothing", "request_trailers"])
async def test_messages_that_envoy_is_configured_not_to_send_are_a_fault_of_the_peer(data):
    with pytest.raises(Malformed):
        await wire.converse(Scripted(CONTINUE), data)


# --- answers to headers and bodies


@pytest.mark.parametrize(("data", "phase"), [(HEADERS, "request_headers"), (RESPONSE_HEADERS, "response_headers")])
@pytest.mark.parametrize("action", [CONTINUE, Continue()])
async def test_an_answer_without_changes_is_empty(data, phase, action):
    message = await reply_to(data, action)
    assert message.WhichOneof("response") == phase
    assert getattr(message, phase).HasField("response")
    assert not message.HasField("mode_override")


@pytest.mark.parametrize(
    ("data", "phase"),
    [
        (HEADERS, "request_headers"),
        (RESPONSE_HEADERS, "response_headers"),
        (body_message("request_body", b"{}"), "request_body"),
    ],
)
async def test_headers_are_set_by_raw_value_and_removed(data, phase):
    message = await reply_to(data, Continue({"x-a": "é", "x-b": ""}, ("x-c", "x-d")))
    assert message.WhichOneof("response") == phase
    mutation = getattr(message, phase).response.header_mutation
    assert set_headers(mutation) == {"x-a": "é".encode(), "x-b": b""}
    assert list(mutation.remove_headers) == ["x-c", "x-d"]


async def test_an_unchanged_body_has_no_mutation_and_no_length():
    message = await reply_to(body_message("request_body", b"{}"), Continue(reroute=True))
    assert message.request_body.response.clear_route_cache
    assert not message.request_body.response.HasField("body_mutation")
    assert not message.request_body.response.HasField("header_mutation")


@pytest.mark.parametrize("body", [b"", b"{}", "é".encode() * 40_000])
async def test_a_replaced_body_comes_with_its_length_in_bytes(body):
    message = await reply_to(body_message("request_body", b"{}"), Continue(body=body))
    assert message.request_body.response.body_mutation.WhichOneof("mutation") == "body"
    assert message.request_body.response.body_mutation.body == body
    assert set_headers(message.request_body.response.header_mutation) == {"content-length": str(len(body)).encode()}


async def test_the_order_of_the_tries_is_metadata_of_priority_group():
    message = await reply_to(body_message("request_body", b"{}"), Continue(order=("try-a", "try-a", "try-b")))
    groups = message.dynamic_metadata["ai.groups"]["priority_groups"]
    assert [
        (group["name"], [(cluster["cluster_name"], cluster["weight"]) for cluster in group["clusters"]])
        for group in groups
    ] == [("0", [("try-a", 1)]), ("1", [("try-a", 1)]), ("2", [("try-b", 1)])]


async def test_without_an_order_there_is_no_metadata():
    message = await reply_to(body_message("request_body", b"{}"), Continue())
    assert not message.HasField("dynamic_metadata")


async def test_a_mode_override_always_sends_all_six_fields():
    message = await reply_to(RESPONSE_HEADERS, Continue(read_answer=True))
    mode = message.mode_override
    assert {field.name for field, _ in mode.ListFields()} == {field.name for field in mode.DESCRIPTOR.fields}
    assert len(mode.ListFields()) == 6
    assert mode.request_body_mode == pb.ProcessingMode.BUFFERED
    assert mode.response_body_mode == pb.ProcessingMode.FULL_DUPLEX_STREAMED
    assert mode.response_trailer_mode == pb.ProcessingMode.SEND
    assert mode.request_header_mode == mode.response_header_mode == pb.ProcessingMode.SEND


@pytest.mark.parametrize("data", [HEADERS, RESPONSE_HEADERS, body_message("request_body", b"{}")])
async def test_a_local_reply_ends_the_exchange(data):
    message = await reply_to(data, LocalReply(429, b'{"error":1}', {"retry-after": "7"}, "rate_limited"))
    answer = message.immediate_response
    assert message.WhichOneof("response") == "immediate_response"
    assert (answer.status.code, answer.body, answer.details) == (429, b'{"error":1}', "extproc_rate_limited")
    assert set_headers(answer.headers) == {"retry-after": b"7"}


# --- answers to the response's body


async def chunks_of(chunk, data=None):
    replies = await say(Scripted(chunk), data or body_message("response_body", b"x", end=False))
    streamed = [reply.response_body.response.body_mutation.streamed_response for reply in replies]
    return [(part.body, part.end_of_stream) for part in streamed]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (Chunk(b""), []),
        (Chunk(b"a"), [(b"a", False)]),
        (Chunk(b"", end=True), [(b"", True)]),
        (Chunk(b"a", end=True), [(b"a", True)]),
        (Chunk(b"a" * 62_000), [(b"a" * 62_000, False)]),
        (Chunk(b"a" * 62_001, end=True), [(b"a" * 62_000, False), (b"a", True)]),
    ],
)
async def test_chunks_are_written_as_streamed_responses(chunk, expected):
    assert await chunks_of(chunk) == expected


@given(st.integers(0, 300_000), st.booleans())
async def test_a_large_chunk_leaves_in_pieces_and_only_the_last_ends_the_stream(size, end):
    body = bytes(range(256)) * (size // 256 + 1)
    parts = await chunks_of(Chunk(body[:size], end))
    assert b"".join(part for part, _ in parts) == body[:size]
    assert all(len(part) <= 62_000 for part, _ in parts)
    assert [last for _, last in parts] == ([False] * (len(parts) - 1) + [end] if parts else [])


async def test_trailers_end_a_body_without_an_end_mark():
    attachment = Scripted(Chunk(b"rest", end=True))
    body, trailers = await say(attachment, TRAILERS)
    assert attachment.heard == [(b"", True)]
    streamed = body.response_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"rest", False)
    assert trailers.WhichOneof("response") == "response_trailers"


async def test_trailers_after_the_last_chunk_are_empty():
    [trailers] = await say(Scripted(Chunk(b"", end=True)), TRAILERS)
    assert trailers.WhichOneof("response") == "response_trailers"


# --- a whole exchange


async def test_a_whole_exchange_is_answered_in_bytes(world):
    gateway = world("budgets: [{name: t, unit: tokens, limit: 100000, window: minute}]")
    stream = gateway.stream()
    asks = [(":method", b"POST"), (":path", b"/v1/chat/completions")]
    question = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    answered = {"upstream.request_attempt_count": 1, "response.code_details": "via_upstream"}
    event_stream = [(":status", b"200"), ("content-type", b"text/event-stream")]
    text = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'

    [headers] = await say(stream, headers_message("request_headers", asks))
    [onward] = await say(stream, body_message("request_body", question))
    [told] = await say(stream, headers_message("response_headers", event_stream, attributes=answered))
    [first] = await say(stream, body_message("response_body", text, end=False))
    hidden = await say(stream, body_message("response_body", usage, end=False))
    [trailers] = await say(stream, TRAILERS)
    await stream.on_end()

    assert headers.WhichOneof("response") == "request_headers"
    assert json.loads(onward.request_body.response.body_mutation.body)["stream_options"] == {"include_usage": True}
    assert told.HasField("mode_override")
    assert first.response_body.response.body_mutation.streamed_response.body == text
    assert hidden == []
    assert trailers.WhichOneof("response") == "response_trailers"
    assert await gateway.level("t") == (10, 0)


@given(cuts=st.lists(st.integers(0, 400), max_size=8), ends_with_trailers=st.booleans())
async def test_unedited_bytes_leave_as_they_came(world, cuts, ends_with_trailers):
    stream = world().stream()
    question = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"content":"Hi"}]}'
    await say(stream, headers_message("request_headers", [(":method", b"POST"), (":path", b"/v1/chat/completions")]))
    await say(stream, body_message("request_body", question))
    headers = [(":status", b"200"), ("content-type", b"text/event-stream")]
    await say(stream, headers_message("response_headers", headers, attributes={"upstream.request_attempt_count": 1}))
    body = b': hi\r\n\r\ndata: {"choices":[{"delta":{"content":"a"}}]}\r\n\r\ndata:[DONE]\n\n\rid: 1' * 3
    places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    said = [
        body_message("response_body", body[start:end], end=end == len(body) and not ends_with_trailers)
        for start, end in itertools.pairwise(places)
    ]
    replies = [reply for data in [*said, *([TRAILERS] * ends_with_trailers)] for reply in await say(stream, data)]
    await stream.on_end()
    parts = [reply.response_body.response.body_mutation.streamed_response for reply in replies]
    assert b"".join(part.body for part in parts) == body


# --- large bodies


def large(body=b"a" * 300_000, **fields):
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=body, **fields)).SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300_000, 1 << 21])
def test_a_large_body_is_found_without_copies(size):
    for data in (large(b"a" * size), large(b"a" * size, end_of_stream=True)):
        assert wire._large_body(data) == (b"a" * size if size else None)


def test_other_messages_are_left_to_protobuf():
    headers = pb.ProcessingRequest(request_headers=pb.HttpHeaders(end_of_stream=True)).SerializeToString()
    answer = pb.ProcessingRequest(response_body=pb.HttpBody(body=b"a" * 300_000)).SerializeToString()
    for data in (headers, answer, b"", large() + b"\x92\x03\x01" + b"a" * 70_000, large()[:-1], large() + large()):
        assert wire._large_body(data) is None


@given(st.binary(max_size=40))
def test_no_bytes_are_taken_for_a_body_that_is_none(data):
    try:
        message = pb.ProcessingRequest.FromString(data)
    except DecodeError:
        return
    found = wire._large_body(data)
    assert found is None or found == message.request_body.body

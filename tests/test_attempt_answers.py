"""Invalid answers of providers in the attempt attachment: AttemptStream, fed Envoy's messages."""

import gzip
import json
from base64 import b64encode
from dataclasses import replace

import pytest

from extproc.dialects import by_path, client_apis
from extproc.envoy.server import wire
from extproc.exchange.admission import InFlight
from extproc.exchange.attempt import AttemptStream
from extproc.settings.limits import LimitsSettings
from extproc.wire.framing.aws_eventstream import encode
from extproc.wire.framing.rewording import reworded
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.contract import Edit, Service
from extproc.words.exchange import RequestHead, Target
from tests.exchanges import new_exchange

LIMITS = LimitsSettings(buffered_response=64 << 10, sse_event=16 << 10)
OPENAI = Service("openai", "openai_chat", "gpt-5")
CLAUDE = Service("anthropic", "anthropic_messages", "claude-sonnet-4-5")
NOVA = Service("aws_bedrock", "aws_converse", "amazon.nova-pro-v1:0")
ROCK = Service("aws_bedrock", "anthropic_messages", "anthropic.claude-sonnet-4-5-v1:0")
MARKED_ROCK = Service("aws_bedrock", "anthropic_messages", "anthropic.claude-sonnet-4-5-v1:0", anew=True)
GEMINI = Service("gcp_gemini", "gemini_generate_content", "gemini-2.5-pro")
COHERE = Service("cohere", "cohere_chat", "command-a-03-2025")
SERVICES = {"openai": OPENAI, "anthropic": CLAUDE, "bedrock": NOVA, "gemini": GEMINI, "cohere": COHERE}
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "anthropic_messages": "/v1/messages",
    "openai_responses": "/v1/responses",
}
HELLO = [{"role": "user", "content": "Hi"}]
REQUESTS = {
    "openai_chat": {"model": "m", "messages": HELLO},
    "anthropic_messages": {"model": "m", "max_tokens": 50, "messages": HELLO},
    "openai_responses": {"model": "m", "input": "Hi"},
}
AMAZON = "application/vnd.amazon.eventstream"
SSE = "text/event-stream"
END = {"openai_chat": b"data: [DONE]", "anthropic_messages": b"message_stop", "openai_responses": b"response.completed"}


class Talk:
    """One try, as Envoy sees it. `head` is the outcome at the answer's headers, `body` the bytes that may leave."""

    def __init__(self, service, client, *, stream=False, limits=LIMITS, room=None):
        self.attachment = AttemptStream(limits, room)
        self.service, self.client, self.stream = service, client, stream
        self.head = None  # (status or None, headers set, headers removed)
        self.body = b""
        self.ended = False
        self.sent = None  # the request that leaves

    async def say(self, message):
        found = [*await wire.converse(self.attachment, message.SerializeToString())]
        while self.attachment.more:
            found += await wire.go_on(self.attachment)
        for data in found:
            self._take(pb.ProcessingResponse.FromString(data))

    def _take(self, reply):
        kind = reply.WhichOneof("response")
        assert not self.ended, "nothing follows the end"
        if kind == "immediate_response":
            said = reply.immediate_response
            assert self.head is None or kind == "request_body", "the headers have left"
            self.head = (said.status.code, _set(said.headers), ())
            self.body, self.ended = said.body, True
        elif kind == "request_body":
            self.sent = json.loads(reply.request_body.response.body_mutation.body)
        elif kind == "response_headers":
            mutation = reply.response_headers.response.header_mutation
            self.head = (None, _set(mutation), tuple(mutation.remove_headers))
        elif kind == "response_body":
            assert self.head is not None, "the headers come first"
            piece = reply.response_body.response.body_mutation.streamed_response
            self.body += piece.body
            self.ended = piece.end_of_stream

    async def ask(self, body=None):
        message = pb.ProcessingRequest()
        headers = {
            contract.TARGETS: contract.encode_targets([Target("m", "a", "m")]),
            contract.ATTEMPT_COUNT: "1",
            contract.EDITS: contract.encode_edits([Edit({}, (), replace(self.service, stream=self.stream))]),
            contract.DIALECT: self.client,
        }
        for key, value in headers.items():
            message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        await self.say(message)
        message = pb.ProcessingRequest()
        message.request_body.body = json.dumps({**(body or REQUESTS[self.client]), "stream": self.stream}).encode()
        message.request_body.end_of_stream = True
        await self.say(message)

    async def answer(self, *pieces, status=200, kind="application/json", more=(), end=True, trailers=False):
        message = pb.ProcessingRequest()
        part = message.response_headers
        part.end_of_stream = not pieces
        for key, value in ((":status", str(status)), *((("content-type", kind),) if kind else ()), *more):
            part.headers.headers.add(key=key, raw_value=value.encode())
        await self.say(message)
        for index, piece in enumerate(pieces):
            if self.attachment.done:
                return
            message = pb.ProcessingRequest()
            message.response_body.body = piece
            message.response_body.end_of_stream = end and not trailers and index == len(pieces) - 1
            await self.say(message)
        if trailers and not self.attachment.done:
            message = pb.ProcessingRequest()
            message.response_trailers.SetInParent()
            await self.say(message)

    @property
    def error(self):
        """The code of the refusal."""
        error = json.loads(self.body)["error"]
        return error["details"]["error_code"] if self.client == "anthropic_messages" else error["code"]


def _set(mutation):
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


async def talk(service, client, *pieces, stream=False, **answer):
    found = Talk(service, client, stream=stream)
    await found.ask()
    await found.answer(*pieces, **answer)
    return found


def check_refused(found):
    assert found.head[0] == 502
    assert found.head[1]["content-type"] == "application/json"
    assert not [name for name in found.head[1] if name.startswith("x-extproc-")]
    assert found.error == "provider_bad_answer"
    assert found.attachment.done


GOOD = json.dumps(
    {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
).encode()
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
STOP = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USED = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"

# --- plain answers

GARBAGE = {
    "a page": b"<html>It works</html>",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "an empty object": b"{}",
    "an error": b'{"error":{"message":"no"}}',
    "an error of Anthropic's": b'{"type":"error","error":{"type":"api_error","message":"no"}}',
    "cut short": GOOD[:-3],
    "two": GOOD + GOOD,
    "invalid UTF-8": b'{"choices":[{"message":{"content":"\xff"}}]}',
    "a lone surrogate": b'{"choices":[{"message":{"content":"\\ud800"}}]}',
    "nested deeply": b'{"x":' + b"[" * 20_000,
    "a number out of range": b'{"choices":[],"created":1e999}',
    "white space": b" \n ",
}


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize("name", GARBAGE)
async def test_an_invalid_plain_answer_is_refused(name, provider, client):
    if SERVICES[provider].dialect != client:
        check_refused(await talk(SERVICES[provider], client, GARBAGE[name]))


@pytest.mark.parametrize("status", [200, 201, 204, 301, 302, 304])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_a_body_is_refused(stream, status):
    """In particular, a redirect is not passed on."""
    check_refused(await talk(OPENAI, "anthropic_messages", stream=stream, status=status))


@pytest.mark.parametrize("kind", ["", "text/plain", "text/html", "application/octet-stream"])
async def test_the_content_type_of_a_plain_answer_does_not_matter(kind):
    found = await talk(OPENAI, "anthropic_messages", GOOD, kind=kind)
    assert found.head[1]["content-type"] == "application/json"
    assert json.loads(found.body)["content"] == [{"type": "text", "text": "Hi"}]


async def test_an_answer_beyond_the_limit_is_refused_before_it_ends():
    piece = b" " * 10_000
    found = await talk(OPENAI, "anthropic_messages", *[piece] * 1_000, end=False)
    check_refused(found)
    assert "too large" in found.body.decode()


async def test_an_answer_without_room_is_refused_and_the_others_give_theirs_back():
    room = InFlight()
    first, second = (Talk(OPENAI, "anthropic_messages", room=room) for _ in range(2))
    await first.ask()
    await first.answer(GOOD[:-10], end=False)
    held, room.answers = room.answers, LIMITS.answer_memory
    await second.ask()
    await second.answer(GOOD)
    assert (held, second.head[0], second.error) == (len(GOOD) - 10, 503, "overloaded")
    for found in (first, second):
        await found.attachment.on_end()
    assert room.answers == LIMITS.answer_memory - held


async def test_an_answer_at_the_limit_is_read():
    found = await talk(OPENAI, "anthropic_messages", GOOD + b" " * (LIMITS.buffered_response - len(GOOD)))
    assert json.loads(found.body)["content"] == [{"type": "text", "text": "Hi"}]


async def test_trailers_may_end_an_answer():
    for pieces in ((GOOD,), (GOOD[:9], GOOD[9:])):
        found = await talk(OPENAI, "anthropic_messages", *pieces, trailers=True)
        assert json.loads(found.body)["content"] == [{"type": "text", "text": "Hi"}]
    check_refused(await talk(OPENAI, "anthropic_messages", GOOD[:9], trailers=True))


@pytest.mark.parametrize(
    ("pieces", "encoding"),
    [
        ([GOOD], "gzip"),
        ([gzip.compress(GOOD)[:-15]], "gzip"),
        ([gzip.compress(b"<html>")], "gzip"),
        ([gzip.compress(bytes(1 << 24))], "gzip"),
        ([gzip.compress(GOOD)], "deflate, gzip"),
        ([GOOD], "br"),
        ([GOOD], "identity, identity"),
    ],
)
async def test_an_answer_with_invalid_compression_is_refused(pieces, encoding):
    check_refused(await talk(OPENAI, "anthropic_messages", *pieces, more=[("content-encoding", encoding)]))


# --- errors


@pytest.mark.parametrize(("status", "stream"), [(200, True), (400, True), (400, False), (200, False)])
@pytest.mark.parametrize("service", [OPENAI, ROCK], ids=["translated", "unwrapped"])
async def test_a_rewritten_answer_leaves_without_its_content_length(service, status, stream):
    client, kind = "anthropic_messages", AMAZON if service is ROCK else SSE
    pieces = [GOOD] if status == 400 or not stream else [CHUNK]
    kind = kind if stream and status == 200 else "application/json"
    found = await talk(
        service, client, *pieces, status=status, stream=stream, kind=kind, more=[("content-length", "9")]
    )
    assert ("content-length" in found.head[2]) is not (service is ROCK and status == 200 and not stream)


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize("name", [*GARBAGE, "nothing"])
async def test_any_error_gets_the_clients_shape(name, provider, client):
    if SERVICES[provider].dialect == client:
        return
    found = await talk(SERVICES[provider], client, GARBAGE.get(name, b""), status=400)
    assert (found.head[0], found.head[1]) == (None, {"content-type": "application/json"})  # the status is unchanged
    error = json.loads(found.body)["error"]
    assert error["message"]
    assert len(error["message"]) <= 8_000
    assert error["type"].endswith("_error")


async def test_an_error_beyond_the_limit_is_cut_there():
    found = await talk(OPENAI, "anthropic_messages", *[b" " * 10_000] * 1_000, status=500, end=False)
    assert found.ended
    assert json.loads(found.body)["type"] == "error"


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_made_by_envoy_passes(stream, client):
    """The gateway attachment puts it into the client's shape."""
    own = json.dumps(
        {"error": {"message": "gone", "type": "api_error", "param": None, "code": "no_provider_available"}}
    )
    found = await talk(
        COHERE, client, own[:9].encode(), own[9:].encode(), status=503, more=[(contract.HOP, "connect")], stream=stream
    )
    assert (found.body.decode(), found.ended) == (own, True)
    exchange = new_exchange("id", RequestHead("POST", PATHS[client], {}))
    exchange.request.dialect, exchange.answer.status = by_path()[PATHS[client]], 503
    said = json.loads(reworded(exchange, found.body))["error"]
    assert said["message"] == "gone"
    assert "no_provider_available" in json.dumps(said)
    assert reworded(exchange, b"busy") == b"busy"


# --- streams

BROKEN = {
    "nothing": [b""],
    "cut short": [CHUNK],
    "cut in an event": [CHUNK, CHUNK[:20]],
    "an error": [CHUNK, b'data: {"error":{"message":"no"}}\n\n', CHUNK, STOP, USED, DONE],
    "a string for an error": [CHUNK, b'data: {"error":"no"}\n\n'],
    "garbage": [b"\0\1\xff" * 100],
    "JSON without events": [GOOD],
    "comments": [b": a\n\n" * 10],
    "an event that is too large": [CHUNK, b'data: {"x":"' + b"y" * 20_000, b"y" * 20_000, b'"}\n\n', CHUNK, STOP, DONE],
    "an event that never ends": [CHUNK, *[b"y" * 10_000] * 50],
}


@pytest.mark.parametrize("client", ["anthropic_messages", "openai_responses"])
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("size", [1 << 20, 7])
async def test_a_stream_that_breaks_ends_with_one_error(size, name, client):
    """The bytes may be cut anywhere. Bytes after the error are not read."""
    pieces = BROKEN[name]
    if size == 7 and sum(map(len, pieces)) < 5_000:
        whole = b"".join(pieces)
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)] or [b""]
    found = await talk(OPENAI, client, *pieces, stream=True, kind=SSE)
    assert found.head[1]["content-type"] == SSE
    assert found.ended
    assert found.body.count(b"event: error\n") == 1
    assert END[client] not in found.body
    assert found.body.rstrip().split(b"\n\n")[-1].startswith((b"event: error", b"event: response.failed"))


@pytest.mark.parametrize("kind", ["", "application/json", "text/plain", AMAZON, "text/event-streams"])
async def test_the_content_type_of_a_stream_matters(kind):
    """No byte has left yet, so another provider can serve."""
    check_refused(await talk(OPENAI, "anthropic_messages", CHUNK, STOP, DONE, stream=True, kind=kind))


async def test_an_error_ends_a_stream_that_continues():
    failed = b'data: {"error":{"message":"no"}}\n\n'
    found = await talk(OPENAI, "anthropic_messages", CHUNK, failed, *[CHUNK] * 100, stream=True, kind=SSE, end=False)
    assert found.ended
    assert found.attachment.done
    assert found.body.count(b"Hi") == 1


def amazon(kind, **payload):
    return encode({":message-type": "event", ":event-type": kind}, json.dumps(payload).encode())


TEXT = amazon("contentBlockDelta", contentBlockIndex=0, delta={"text": "Hi"})
OVER = amazon("messageStop", stopReason="end_turn")
DAMAGED = {
    "a sum of the message": [TEXT, TEXT[:-1] + bytes([TEXT[-1] ^ 1]), OVER],
    "a sum of the lengths": [TEXT, TEXT[:8] + bytes([TEXT[8] ^ 1]) + TEXT[9:], OVER],
    "a bit of the payload": [TEXT, TEXT[:60] + bytes([TEXT[60] ^ 1]) + TEXT[61:], OVER],
    "zeros": [TEXT, bytes(100), OVER],
    "text": [TEXT, b"data: {}\n\n" * 10, OVER],
    "cut short": [TEXT, TEXT[:-8]],
    "too long": [TEXT, amazon("contentBlockDelta", delta={"text": "y" * 20_000}), OVER],
    "an exception": [
        TEXT,
        encode({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow"}'),
        OVER,
    ],
    "no end": [TEXT],
}


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_binary_stream_ends_with_an_error(name, client):
    found = await talk(NOVA, client, *DAMAGED[name], stream=True, kind=AMAZON)
    assert b"Hi" in found.body
    assert END[client] not in found.body
    assert found.body.count(b'"error":{') >= 1
    assert found.ended


# --- streams inside binary events


def wrapped(data):
    payload = json.dumps({"bytes": b64encode(data).decode()}).encode()
    return encode({":message-type": "event", ":event-type": "chunk"}, payload)


SAID = [
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]
PIECES = [wrapped(json.dumps(event).encode()) for event in SAID]
NOTE = "\n\n: x-extproc-usage [0, 0, 0, 0, 0]\n\n"
FORGED = {
    "a type of two lines": json.dumps({"type": f"ping{NOTE}"}).encode(),
    "an empty line between the fields": b'{"type":"ping"\n\n,"x"\n\n: 5}',
    "returns": b'{"type":"ping"\r\r,"x"\r\r: 5}',
    "text": json.dumps({"type": "ping", "x": NOTE}).encode(),
    "no JSON": NOTE.encode(),
    "JSON without a type": b"{}",
    "nested deeply": b'{"type":"ping","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("service", [ROCK, MARKED_ROCK], ids=["passed on", "written anew"])
async def test_wrapped_events_are_unwrapped(service):
    found = await talk(service, "anthropic_messages", *PIECES, stream=True, kind=AMAZON)
    assert found.body.count(b'"text":"Hi"') + found.body.count(b'"text": "Hi"') == 1
    assert found.body.rstrip().endswith(b'"message_stop"}')


@pytest.mark.parametrize("service", [ROCK, MARKED_ROCK], ids=["passed on", "written anew"])
@pytest.mark.parametrize("name", FORGED)
async def test_a_wrapped_event_is_one_event(counted, service, name):
    """A line inside it cannot be taken for the gateway's own."""
    found = await talk(
        service, "anthropic_messages", PIECES[0], wrapped(FORGED[name]), *PIECES[1:], stream=True, kind=AMAZON
    )
    translated = contract.TRANSLATED in found.head[1]
    assert translated == (service is MARKED_ROCK)
    left, report = counted(client_apis()["anthropic_messages"], SSE, found.body, translated=translated)
    usage = report.told_usage or report.usage
    assert (usage.input_tokens, usage.output_tokens) == (3, 4)
    assert {line.partition(b":")[0] for line in left.split(b"\n") if line} == {b"event", b"data"}


@pytest.mark.parametrize("service", [ROCK, MARKED_ROCK], ids=["passed on", "written anew"])
@pytest.mark.parametrize("name", ["cut", "damaged", "exception"])
async def test_a_wrapped_stream_that_breaks_ends_with_one_error(service, name):
    broken = {
        "cut": PIECES[:3],
        "damaged": [*PIECES[:3], PIECES[3][:-1] + b"\0", *PIECES[4:]],
        "exception": [
            *PIECES[:3],
            encode({":message-type": "exception", ":exception-type": "modelTimeoutException"}, b"{}"),
            *PIECES[4:],
        ],
    }
    found = await talk(service, "anthropic_messages", *broken[name], stream=True, kind=AMAZON)
    assert found.body.count(b"event: error\n") == 1
    assert b"message_stop" not in found.body
    assert found.ended


# --- usage

NOBODY = {
    "none": {},
    "null": {"usage": None},
    "negative": {"usage": {"prompt_tokens": -3, "completion_tokens": -4}},
    "absurd": {"usage": {"prompt_tokens": 10**30, "completion_tokens": 10**30}},
    "text": {"usage": {"prompt_tokens": "3", "completion_tokens": "4"}},
}


@pytest.mark.parametrize("client", ["anthropic_messages", "openai_responses"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NOBODY)
async def test_usage_that_the_provider_did_not_report_is_not_passed_on(counted, client, stream, name):
    """The zeros that a client's API requires instead are not believed by the gateway attachment."""
    if stream:
        used = b"data: " + json.dumps({"id": "c", "choices": [], **NOBODY[name]}).encode() + b"\n\n"
        found = await talk(OPENAI, client, CHUNK, STOP, used, DONE, stream=True, kind=SSE)
        assert b"x-extproc-usage" not in found.body
    else:
        found = await talk(OPENAI, client, json.dumps(json.loads(GOOD) | NOBODY[name]).encode())
        assert contract.USAGE not in found.head[1]
    assert found.head[1][contract.TRANSLATED] == "1"
    _, report = counted(client_apis()[client], found.head[1]["content-type"], found.body)
    assert report.told_usage is None
    assert report.usage is None
    assert report.output_bytes == 2


async def test_the_usage_comes_before_the_end_marker():
    """Clients disconnect after the end marker, even if the provider sends more."""
    found = await talk(OPENAI, "anthropic_messages", CHUNK, STOP, USED, DONE, stream=True, kind=SSE, end=False)
    note, end = found.body.index(contract.USAGE_EVENT + b"[3, 4, 0, 0, 0]"), found.body.index(b"message_stop")
    assert note < end
    assert not found.ended


async def test_comments_of_a_provider_are_removed():
    note = contract.USAGE_EVENT + b"[0, 0, 0, 0, 0]\n\n"
    found = await talk(OPENAI, "anthropic_messages", note, CHUNK, note, STOP, USED, DONE, note, stream=True, kind=SSE)
    assert found.body.count(contract.USAGE_EVENT) == 1
    assert contract.USAGE_EVENT + b"[3, 4, 0, 0, 0]" in found.body


@pytest.mark.parametrize("client", ["anthropic_messages", "openai_responses"])
async def test_a_damaged_event_ends_a_stream_with_an_error(client):
    """The rest would look like a whole answer."""
    damaged = b'data: {"choices":[{"index":0,"delta":{"content":"lo\n\n'
    found = await talk(OPENAI, client, CHUNK, damaged, CHUNK, STOP, DONE, stream=True, kind=SSE)
    assert b"damaged event" in found.body
    assert END[client] not in found.body

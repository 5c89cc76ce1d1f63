"""Fuzz targets: what must hold for every input. A target takes bytes and depends on nothing else.

Targets whose input is JSON read their choices (a dialect, a provider) from it, so a file of the corpus is the whole
case.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from extproc.dialects import client_apis, provider_apis
from extproc.envoy.server import access_log, wire
from extproc.exchange.parsing import OWN_PATHS
from extproc.exchange.translation.translate import TranslatedStream, Translation
from extproc.settings import checks, config
from extproc.settings.document import ConfigError
from extproc.wire.framing import EMPTY, slices
from extproc.wire.framing.aws_eventstream import CORRUPT, AWSEventStream, encode
from extproc.wire.framing.content_types import AMAZON
from extproc.wire.framing.edges import Edges
from extproc.wire.framing.inflate import Inflate
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.wire.framing.sse import SSE
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Malformed
from extproc.words import contract
from extproc.words.actions import CONTINUE, Chunk
from extproc.words.contract import Service
from extproc.words.dialect import NATIVE, PLACE, Ask, Endpoint, Report
from extproc.words.errors import Refusal
from extproc.words.said import Called
from tests.conftest import make_world
from tests.dialects.shapes import SHAPES
from tests.fuzz import rpc
from tests.fuzz.edits import changed_bytes, changed_json, vocabulary
from tests.settings.test_config import FULL
from tests.test_docs import BASE

TESTS = Path(__file__).parent.parent
GOLDEN = TESTS / "golden"
DEPTH = 12
SPOKEN = client_apis()
APIS = {**provider_apis(), **SPOKEN}
SERVICES = (
    Service("openai", "openai_chat", "gpt-5.2", 65536),
    Service("openai", "openai_responses", "gpt-5.2", 65536),
    Service("anthropic", "anthropic_messages", "claude-opus-4-6", 65536, cache=True),
    Service("gcp_gemini", "gemini_generate_content", "gemini-3.8-flash", 65536),
    Service("aws_bedrock", "aws_converse", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 65536),
    Service("cohere", "cohere_chat", "command-a-reasoning-08-2025", 32768, drop_hosted=True),
)
WRAPPED = Service("aws_bedrock", "anthropic_messages", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 65536)


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    json: bool = False  # edit the values of its input rather than the bytes

    def inputs(self, number: int, program: bytes) -> Any:
        """An input after each edit of a seed."""
        seed = self.seeds[number % len(self.seeds)]
        if not self.json:
            return changed_bytes(seed, program)
        names, words = _vocabulary(self.seeds)
        return (json.dumps(value).encode() for value in changed_json(json.loads(seed), program, names, words))


@cache
def _vocabulary(seeds: tuple[bytes, ...]) -> tuple[list[str], list[str]]:
    return vocabulary(json.loads(seed) for seed in seeds)


def cut(data: bytes) -> list[bytes]:
    """The input in pieces that its checksum chooses."""
    chosen, at, pieces = zlib.crc32(data), 0, []
    while at < len(data):
        size = 1 + chosen % 37
        pieces.append(data[at : at + size])
        at, chosen = at + size, (chosen * 1103515245 + 12345) >> 3 & 0xFFFFFFFF
    return pieces


# --- framings


def _exactly(value: Any) -> str:
    return json.dumps(value)


def _own_reading(body: bytes) -> str | None:
    try:
        return _exactly(parse(body, DEPTH))
    except InvalidJSON:
        return None


def _sliced_reading(body: bytes, size: int) -> tuple[str | None, str]:
    with mock.patch.object(slices, "SLICE", size):
        reader = slices.SlicedReader(body, depth=DEPTH, nodes=1 << 20, text=1 << 20)
        try:
            for _ in reader.read():
                pass
        except InvalidJSON as error:
            return None, str(error)
        return _exactly(reader.root), ""


def read_json(body: bytes) -> None:
    """Both readers agree. Accepted text means the same to Python's own decoder, and has no key twice."""
    whole = _own_reading(body)
    sliced, why = _sliced_reading(body, 12 + zlib.crc32(body) % 40)
    assert whole == sliced or (sliced is None and "key of more than" in why), why
    if whole is None:
        return

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    def constant(name: str) -> None:
        raise AssertionError(name)

    assert _exactly(json.loads(body.decode(), object_pairs_hook=once, parse_constant=constant)) == whole
    assert not any(math.isinf(number) for number in _numbers(json.loads(body)))


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [found for item in (value.values() if isinstance(value, dict) else value) for found in _numbers(item)]
    return [value] if isinstance(value, float) else []


def _frames(framing: Any, pieces: Sequence[bytes]) -> list[Any]:
    return [frame for piece in pieces for frame in framing.feed(piece)] + list(framing.end())


def _alone(frames: Sequence[Any]) -> list[bytes]:
    """The data of events with a key, which are frames of their own."""
    return [frame.data for frame in frames if frame.data is not None and frame.name != EMPTY]


def _lines(frames: Sequence[Any]) -> list[bytes]:
    """The data lines with a text. Events in a row without a key are one frame, and those with no text have no data."""
    found = [line for frame in frames if frame.data is not None for line in frame.data.split(b"\n")]
    return [line for line in found if b'"' in line]


def read_sse(data: bytes) -> None:
    """Nothing is lost, and the pieces change nothing. An event that is too long is still passed on."""
    whole, pieces = _frames(SSE(), [data]), _frames(SSE(), cut(data))
    assert b"".join(frame.raw for frame in whole) == data
    assert _alone(whole) == _alone(pieces)
    assert _lines(whole) == _lines(pieces)
    for frame in whole:
        assert frame.data is None or b"data:" in frame.raw
    assert b"".join(frame.raw for frame in _frames(SSE(30), cut(data))) == data


def read_eventstream(data: bytes) -> None:
    """Nothing is lost, and the pieces change nothing. A broken message ends the reading, and is told once."""
    for given in (data, _with_sums(data)):
        whole, pieces = _frames(AWSEventStream(4096), [given]), _frames(AWSEventStream(4096), cut(given))
        assert b"".join(frame.raw for frame in whole) == b"".join(frame.raw for frame in pieces) == given
        named = [
            [(frame.name, frame.data) for frame in each if frame.data is not None and frame.name != EMPTY]
            for each in (whole, pieces)
        ]
        assert named[0] == named[1]
        broken = [at for at, (name, _) in enumerate(named[0]) if name == CORRUPT]
        assert broken in ([], [len(named[0]) - 1])


def _with_sums(data: bytes) -> bytes:
    """The first message with the sums that belong to it: otherwise few edits get behind them."""
    if len(data) < 16:
        return data
    size = min(int.from_bytes(data[:4]), len(data))
    if size < 16:
        return data
    head = data[:8] + zlib.crc32(data[:8]).to_bytes(4)
    message = head + data[12 : size - 4]
    return message + zlib.crc32(message).to_bytes(4) + data[size:]


def inflate(data: bytes) -> None:
    """Never more than the limit, and what Python's own decoder gives."""
    limit = 2000
    stream = Inflate(limit)
    made = b""
    for piece in cut(data):
        made += stream.feed(piece)
        while stream.more:
            made += stream.feed()
    stream.end()
    assert len(made) <= limit
    if not stream.broken:
        assert made == zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data)


# --- dialects


def _endpoint(name: str) -> Endpoint:
    pattern, operation = next(iter(SPOKEN[name].endpoints.paths.items()))
    return Endpoint(pattern, operation, "m" if PLACE in pattern else "")


def ask(data: bytes) -> None:
    """A request is read or refused; one that was read can be scanned, judged and translated, or is refused then."""
    name, number, value = _choices(data)
    if name not in SPOKEN:
        return
    dialect = SPOKEN[name]
    try:
        body = parse(json.dumps(value).encode(), 128)
    except InvalidJSON:
        return
    if not isinstance(body, dict):
        return
    dialect.conversation(body)
    dialect.offers.thinking(body)
    try:
        found = dialect.read(body, _endpoint(name))
    except Refusal as refusal:
        _check_refusal(refusal, 400)
        return
    assert isinstance(found, Ask)
    assert found.max_output_tokens is None or 1 <= found.max_output_tokens <= 10**9
    assert 1 <= found.choices <= 128
    assert 0 <= found.image_bytes <= len(data) * 6
    texts = sum(len(text.value) for text in dialect.texts(body))
    assert texts <= len(data) * 6
    json.dumps(dialect.offers.usage_request(body))
    if dialect.translation is None or dialect.family != "chat":
        return
    translation = Translation(dialect, replace(SERVICES[number % len(SERVICES)], stream=found.stream, anew=True))
    if any(need in translation.api.able.lacks | NATIVE for need in found.needs):
        return
    before = json.dumps(body)
    try:
        _, made = translation.request(body)
    except Refusal as refusal:
        _check_refusal(refusal, 400)
    else:
        assert isinstance(json.loads(made), dict)
    assert json.dumps(body) == before, "the next try begins with it again"


def _check_refusal(refusal: Refusal, status: int) -> None:
    assert refusal.kind.status == status
    assert len(refusal.message) < 1000


def answer(data: bytes) -> None:
    """An answer is read, whatever it holds: as it passes, and on its way into another API."""
    name, number, events = _choices(data)
    if name not in APIS or not isinstance(events, list):
        return
    report = Report()
    payloads = [event.encode(errors="replace") if isinstance(event, str) else _loose(event) for event in events]
    for payload in payloads if name in SPOKEN else ():
        assert SPOKEN[name].observe(payload, report) in (True, False)
        SPOKEN[name].observe_edges(payload[:40], payload[-90:], report, Edges(payload).usages)
    for event in events if name in SPOKEN else ():
        for piece in SPOKEN[name].said(event):
            assert isinstance(piece, Called) or piece.channel is None or isinstance(piece.channel, tuple)
    _check_report(report, sum(map(len, payloads)))
    service = next((one for one in SERVICES if one.dialect == name), None)
    if service is None:
        return
    clients = [
        one for one in SPOKEN.values() if one.translation is not None and one.family == "chat" and one.name != name
    ]
    translation = Translation(clients[number % len(clients)], service)
    for payload in payloads[:1]:
        json.loads(translation.problem(429, payload))
        try:
            json.loads(translation.answer(payload)[0])
        except Refusal as refusal:
            _check_refusal(refusal, 502)
    stream = translation.stream(translation.api.able.stream_type, event_limit=1 << 20, body_limit=1 << 20)
    assert isinstance(stream, TranslatedStream)
    if "amazon" in translation.api.able.stream_type:
        sent = b"".join(encode(_frame_headers(event), payload) for event, payload in zip(events, payloads, strict=True))
    else:
        sent = b"".join(b"data: %b\n\n" % payload.replace(b"\n", b" ").replace(b"\r", b" ") for payload in payloads)
    _frames(SSE(), [_passed(stream, sent)])
    if name == WRAPPED.dialect:  # the same API inside Amazon's events
        translation = Translation(SPOKEN[name], WRAPPED)
        unwrapping = translation.stream(AMAZON, event_limit=1 << 20, body_limit=1 << 20)
        inside = [json.dumps({"bytes": base64.b64encode(payload).decode()}).encode() for payload in payloads]
        headers = {":message-type": "event", ":event-type": "chunk"}
        made = _passed(unwrapping, b"".join(encode(headers, payload) for payload in [*inside, *payloads[:2]]))
        _frames(SSE(), [made])


def _passed(stream: Any, sent: bytes) -> bytes:
    return b"".join([*(stream.feed(piece, False) for piece in cut(sent)), stream.feed(b"", True)])


def _frame_headers(event: Any) -> dict[str, str]:
    kinds = list(event) if isinstance(event, dict) else []
    return {":message-type": "event", ":event-type": kinds[0][:99] if kinds and kinds[0].isascii() else "chunk"}


def _check_report(report: Report, size: int) -> None:
    if report.usage is not None:
        assert 0 <= report.usage.input_tokens <= 10**9
        assert 0 <= report.usage.output_tokens <= 10**9
        assert 0 <= report.usage.cached_tokens <= report.usage.input_tokens
        assert 0 <= report.usage.reasoning_tokens <= report.usage.output_tokens
    assert 0 <= report.output_bytes <= size * 6 + 6
    assert len(report.finish_reasons) <= 128


def _choices(data: bytes) -> tuple[str, int, Any]:
    """The dialect, a number, and the value, of an input that may have lost any of them."""
    given = json.loads(data)
    if not isinstance(given, dict) or not isinstance(given.get("dialect"), str):
        return "", 0, None
    number = given.get("choice")
    return given["dialect"], number if type(number) is int else zlib.crc32(data), given.get("value")


def _loose(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- Envoy's messages


class _Attachment:
    """Takes everything. The text of the last call makes its answer."""

    done = more = False

    async def on_request_headers(self, headers: Any, end: bool, verified: Any) -> Any:
        assert all(isinstance(part, str) for pair in headers.items() for part in pair)
        json.dumps(verified.token)
        return CONTINUE

    async def on_request_body(self, body: bytes) -> Any:
        assert isinstance(body, bytes)
        return CONTINUE

    async def on_response_headers(self, headers: Any, attributes: Any, end: bool) -> Any:
        assert all(isinstance(part, str) for pair in headers.items() for part in pair)
        return CONTINUE

    async def on_response_body(self, chunk: bytes, end: bool) -> Any:
        return Chunk(chunk, end)

    async def on_end(self) -> None:
        pass


def _now(step: Any) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        step.send(None)
    except StopIteration as stop:
        return stop.value
    step.close()
    raise AssertionError("it waits")


def converse(data: bytes) -> None:
    """A message is answered or fails as one; its large form, whose body is not copied, is read alike."""
    heard = []
    for large in (wire._LARGE, 0):
        with mock.patch.object(wire, "_LARGE", large):
            try:
                replies = _now(wire.converse(_Attachment(), memoryview(data) if large else data))
            except Malformed as error:
                heard.append(type(error).__name__)
            else:
                heard.append([pb.ProcessingResponse.FromString(reply).WhichOneof("response") for reply in replies])


YAML = """
providers: {a: {kind: openai, base_url: "http://127.0.0.1:8090/v1", api_key: env:EXTPROC_DEMO_KEY}}
models: {m: {provider: a}, n: {provider: a}}
virtual_models: {v: {targets: [{model: m}, {model: n}]}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
auth: {required: false}
guardrails:
  - {name: keys, kind: regex, patterns: {key: 'sk-[A-Z0-9]{12}'}}
budgets: [{name: month, per: [consumer], limit: 1000000000000, unit: tokens, window: month}]
prices: [{model: m, input: 1, output: 2}, {model: n, input: 1, output: 2}]
stores: {counters: "memory:"}
"""
GUARDED = YAML.replace("patterns", "on: [input, output], action: mask, longest: 20, patterns")


def exchange(data: bytes) -> None:
    """An exchange of any headers and bodies is answered, settled and recorded once, and nothing stays held."""
    given = json.loads(data)
    if not isinstance(given, dict):
        return
    if any(path.partition("?")[0] in OWN_PATHS for name, path in _pairs(given.get("headers")) if name == ":path"):
        return  # answered by a stage that this world does not have
    for text in (YAML, GUARDED):
        _loop().run_until_complete(_exchange(_world(text), given))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _world(text: str) -> Any:
    with mock.patch.dict("os.environ", {"EXTPROC_DEMO_KEY": "sk-gw-demo"}):
        return make_world(text)


async def _exchange(world: Any, given: dict[str, Any]) -> None:
    world.lines.clear()
    stream = world.stream()
    body = given.get("body")
    try:
        head = await wire.converse(stream, _head("request_headers", given.get("headers"), end=False))
        if not _immediate(head):
            sent = body.encode(errors="replace") if isinstance(body, str) else _loose(body)
            head = await wire.converse(stream, _body("request_body", sent, end=True))
        if not _immediate(head):
            status = given.get("status") if type(given.get("status")) is int else 200
            headers = [[":status", str(abs(status) % 600)], *(_pairs(given.get("answer")))]
            head = await wire.converse(stream, _head("response_headers", headers, end=False))
            pieces = given.get("pieces") if isinstance(given.get("pieces"), list) else []
            if not _immediate(head) and stream._exchange.answer.reader is not None:
                for piece in pieces:
                    raw = piece.encode(errors="replace") if isinstance(piece, str) else b"data: %b\n\n" % _loose(piece)
                    replies = await wire.converse(stream, _body("response_body", raw, end=False))
                    while stream.more:
                        replies = await wire.go_on(stream)
                    if stream.done or _ended(replies):
                        break
                else:
                    await wire.converse(stream, _body("response_body", b"", end=True))
    finally:
        await stream.on_end()
    assert all("\n" not in line.rstrip("\n") for line in world.lines)
    assert [json.loads(line)["event"] for line in world.lines].count("exchange") == 1
    assert not list(world.leases)


def _immediate(replies: Sequence[bytes]) -> bool:
    found = [pb.ProcessingResponse.FromString(reply) for reply in replies]
    return any(reply.WhichOneof("response") == "immediate_response" for reply in found)


def _ended(replies: Sequence[bytes]) -> bool:
    found = [pb.ProcessingResponse.FromString(reply).response_body.response.body_mutation for reply in replies]
    return any(mutation.streamed_response.end_of_stream for mutation in found)


def _pairs(value: Any) -> list[list[str]]:
    """Headers as Envoy gives them: names in lower case, no CR, LF or NUL."""
    if not isinstance(value, list):
        return []
    clean = [
        [str(part)[:2000].translate({0: "", 10: "", 13: ""}) for part in pair[:2]]
        for pair in value
        if isinstance(pair, list) and len(pair) >= 2
    ]
    return [[name.lower(), text] for name, text in clean if name and name != ":status"]


def _head(phase: str, headers: Any, *, end: bool) -> bytes:
    message = pb.ProcessingRequest()
    part = getattr(message, phase)
    part.end_of_stream = end
    pairs = headers if phase == "response_headers" else _pairs(headers)
    if phase == "response_headers":
        attributes = {"upstream.request_attempt_count": 1, "response.code_details": "via_upstream"}
        message.attributes["envoy.filters.http.ext_proc"].update(attributes)
    for name, value in pairs:
        part.headers.headers.add(key=name.encode(errors="replace").decode(), raw_value=value.encode(errors="replace"))
    return message.SerializeToString()


def _body(phase: str, body: bytes, *, end: bool) -> bytes:
    message = pb.ProcessingRequest()
    getattr(message, phase).body = body
    getattr(message, phase).end_of_stream = end
    return message.SerializeToString()


def entries(data: bytes) -> None:
    """Each entry of the access log is read."""
    given = json.loads(data)
    message = _message(given) if isinstance(given, dict) else None
    if message is None:
        return
    name, found = access_log.read(message.SerializeToString(), "")
    assert name == message.identifier.log_name
    if name.startswith(contract.TRY_PREFIX):
        assert len(found) == len(message.http_logs.log_entry), "no entry hides another"


def entry_bytes(data: bytes) -> None:
    """Any bytes are entries of the access log, or are refused as no message."""
    try:
        access_log.read(data, "try-a")
    except Malformed:
        return


def _message(given: dict[str, Any]) -> pb.StreamAccessLogsMessage | None:
    """The entries, as far as protobuf can hold them."""
    message = pb.StreamAccessLogsMessage()
    try:
        message.identifier.log_name = given.get("name", "")
        for one in given.get("entries", ()):
            entry = message.http_logs.log_entry.add()
            common, response = entry.common_properties, entry.response
            if "told" in one:
                common.metadata.filter_metadata[contract.LOG_NAMESPACE].update(one["told"])
            for flag in one.get("flags", ()):
                setattr(common.response_flags, flag, True)
            common.duration.seconds = int(one.get("seconds", 1))
            response.response_code.value = int(one.get("status", 200))
            response.response_body_bytes = int(one.get("bytes", 0))
            response.response_code_details = one.get("details", "")
            response.response_headers.update(one.get("headers", {}))
        message.SerializeToString()
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None
    return message


def settings(data: bytes) -> None:
    """A settings file is read, or refused with the place of each mistake."""
    try:
        found = config.parse(data.decode(errors="replace"))
    except ConfigError:
        return
    list(checks.doubts(found))


# --- seeds


def _golden(kind: str) -> list[tuple[str, bytes]]:
    return [(path.parent.name, path.read_bytes()) for path in sorted((GOLDEN / kind).glob("*/*.*")) if path.is_file()]


def _request_seeds() -> list[bytes]:
    found = [(name, json.loads(body)) for name, body in _golden("requests")]
    for path in sorted((TESTS / "dialects/full_requests").glob("*.json")):
        if path.stem in SPOKEN:
            found += [(path.stem, case["body"]) for case in json.loads(path.read_text()).values() if "body" in case]
    found += [(name, dict(dialect.smallest("m"))) for name, dialect in SPOKEN.items()]
    return [json.dumps({"dialect": name, "value": body}).encode() for name, body in found]


def _answer_seeds() -> list[bytes]:
    found: list[tuple[str, list[Any]]] = []
    for name, data in _golden("answers"):
        if b"data: " in data:
            events = [frame.data for frame in _frames(SSE(), [data]) if frame.data is not None]
            found.append((name, [_value(event) for event in events][:12]))
        else:
            value = json.loads(data)
            events = [payload for _, payload in value] if isinstance(value, list) else [value]
            found.append((name, events[:12]))
    found += [(shape.dialect, [_value(data) for data, _ in shape.payloads][:12]) for shape in SHAPES]
    return [json.dumps({"dialect": name, "value": events}).encode() for name, events in found]


def _value(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode()


CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
HEADERS = [
    [":method", "POST"],
    [":path", "/v1/chat/completions"],
    ["content-type", "application/json"],
    ["authorization", "Bearer sk-gw-demo"],
    ["x-ai-run", "a"],
    ["x-ai-guardrails", "keys"],
    ["content-length", "80"],
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
PIECE = {"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
EXCHANGES = [
    {
        "headers": HEADERS,
        "body": CHAT | {"stream": True},
        "status": 200,
        "answer": [["content-type", "text/event-stream"]],
        "pieces": [PIECE, PIECE, {"choices": [], "usage": USAGE}, "data: [DONE]\n\n"],
    },
    {
        "headers": HEADERS,
        "body": CHAT | {"model": "v"},
        "status": 200,
        "answer": [["content-type", "application/json"], ["content-encoding", "identity"]],
        "pieces": ['{"choices":[{"message":{"content":"Hi"}}],', '"usage":{"prompt_tokens":3,"completion_tokens":2}}'],
    },
    {
        "headers": [[":method", "POST"], [":path", "/v1/messages"], ["x-api-key", "sk-gw-demo"]],
        "body": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "sk-ABCDEF123456"}]},
        "status": 429,
        "answer": [["content-type", "application/json"], ["retry-after", "7"], ["x-envoy-attempt-count", "2"]],
        "pieces": ['{"type":"error","error":{"type":"rate_limit_error","message":"x"}}'],
    },
    {"headers": [[":method", "GET"], [":path", "/v1/models?x=1"]], "body": None, "answer": [], "pieces": []},
]


def _entry_seeds() -> list[bytes]:
    told = {"id": "a", "attempt": 1, "targets": "m,n%2Fx", "timeout": 60000}
    html = {"content-type": "text/html", "retry-after": "5"}
    given = [
        {"name": "try-a", "entries": [{"told": told, "details": "via_upstream", "bytes": 320}]},
        {"name": "try-a", "entries": [{"told": told, "flags": ["upstream_overflow"], "status": 503, "headers": html}]},
        {"name": "try-a", "entries": [{"told": told}, {"told": told, "status": 0, "seconds": 60}]},
        {"name": "gateway", "entries": [{"details": "request_headers_timeout", "status": 408}, {"status": 500}]},
    ]
    return [json.dumps(one).encode() for one in given]


def _wire_seeds() -> list[bytes]:
    message = pb.ProcessingRequest.FromString(_head("request_headers", HEADERS, end=True))
    message.attributes["envoy.filters.http.ext_proc"].update({"connection.uri_san_peer_certificate": "spiffe://a"})
    claims = {"claims-0": {"sub": "a", "list": [1, {"b": None}]}}
    message.metadata_context.filter_metadata[contract.JWT_NAMESPACE].update(claims)
    return [
        message.SerializeToString(),
        _head("response_headers", [[":status", "200"], ["x", "é"]], end=False),
        _body("request_body", _loose(CHAT), end=True),
        _body("response_body", b"data: {}\n\n" * 9, end=False),
        b"\x3a\x00",
        b"\x32\x00",
    ]


def _stream_seeds() -> list[bytes]:
    events = ({":message-type": "event", ":event-type": "messageStop"}, {":message-type": "error", ":error-code": "5"})
    typed = b"".join(bytes((1, 97, kind)) + b"\0" * size for kind, size in ((0, 0), (2, 1), (4, 4), (8, 8), (9, 16)))
    size = 16 + len(typed) + 2
    head = size.to_bytes(4) + len(typed).to_bytes(4)
    return [
        *(encode(headers, b'{"delta":{"text":"Hi"}}') for headers in events),
        b"".join(encode(headers, b"{}") for headers in events),
        _with_sums(head + b"\0\0\0\0" + typed + b"{}" + b"\0\0\0\0"),
    ]


def _settings_seeds() -> list[bytes]:
    """Settings of the documentation, as JSON."""
    texts = [GUARDED, FULL, (TESTS.parent / "gateway.yaml").read_text()]
    for page in sorted((TESTS.parent / "docs").glob("*.md")):
        texts += re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    found = [json.loads(json.dumps(yaml.safe_load(text), default=str).replace('"true":', '"on":')) for text in texts]
    return [json.dumps(BASE | one).encode() for one in found if "spec" not in one]


SSE_SEEDS = (
    b'data: {"a":1}\n\ndata: [DONE]\n\n',
    b"event: x\r\ndata: a\r\ndata:b\r\n\r\n: comment\r\n\r\ndata: c",
    b"\xef\xbb\xbfdata: a\r\rid: 1\rdata: b\r\r",
    b": only a comment\n\nevent: ping\n\n",
)
JSON_SEEDS = (
    _loose(CHAT | {"stream": True, "temperature": 0.5, "n": None}),
    b'{"a":[1,-2.5e3,"x\\u00e9\\ud83d\\ude00",{"b":{"c":[[],{}]}}],"d":"\\"\\\\:","e":true}',
    '[ "é中\U0001f600" , { "k" : [ 1 , 2 ] } ]'.encode(),
    b'{"a":"%b","b":["%b"]}' % (b"long " * 20, b"\\\\" * 30),
    b"0.1",
)
TARGETS = {
    "json": Target(read_json, JSON_SEEDS),
    "sse": Target(read_sse, SSE_SEEDS),
    "aws_eventstream": Target(read_eventstream, _stream_seeds()),
    "inflate": Target(inflate, [zlib.compress(b"Hello " * 40), zlib.compress(b"\0" * 5000), zlib.compress(b"a" * 99)]),
    "requests": Target(ask, tuple(_request_seeds()), json=True),
    "answers": Target(answer, tuple(_answer_seeds()), json=True),
    "wire": Target(converse, _wire_seeds()),
    "exchanges": Target(exchange, tuple(map(_loose, EXCHANGES)), json=True),
    "rpc": Target(rpc.read_message, rpc.SEEDS, json=True),
    "rpc_bytes": Target(rpc.read_message, rpc.SEEDS),
    "access_log": Target(entries, tuple(_entry_seeds()), json=True),
    "settings": Target(settings, tuple(_settings_seeds()), json=True),
    "settings_bytes": Target(settings, [(TESTS.parent / "gateway.yaml").read_bytes(), GUARDED.encode()]),
    "access_log_bytes": Target(
        entry_bytes, [_message(json.loads(seed)).SerializeToString() for seed in _entry_seeds()]
    ),
}

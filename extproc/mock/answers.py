"""OpenAI's API, played deterministically: a request's JSON in, an answer's JSON or its stream events out.

The answer repeats the last user message: "You said: hello". Tokens are counted by one rule, the same for plain and
streamed answers: one per word between white space, 85 per image, at least one. The next dialect is a file beside this
one with functions of the same form (Question in, Answer out); it is listed in `server.ENDPOINTS`.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import msgspec

from extproc.mock.faults import DONE, Event, Faults

CREATED = 1_700_000_000
MODELS = ("gpt-4o", "gpt-4o-mini", "stub", "text-embedding-3-small")
TOKENS_PER_IMAGE = 85
QUOTED = 200  # characters of the last message that the answer repeats
MAX_CHOICES = 8

_PIECE = re.compile(r"\s*\S+")

Json = dict[str, Any]


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """Ends the request with an error answer in the dialect's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """A request as an endpoint sees it. `digest` stands for the body in ids, `name` is this mock's name."""

    body: Json
    digest: str
    name: str
    faults: Faults


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON document, or the events of a stream and how many there are."""

    document: Json = field(default_factory=dict)
    events: Iterator[Event] | None = None
    length: int = 0


def error(refused: Refused) -> Json:
    """Write an error as OpenAI does."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if refused.status >= 500 else kinds.get(refused.status, "invalid_request_error")
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}


# --- chat completions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choice:
    pieces: tuple[str, ...]  # of the text; empty when tools are called
    calls: tuple[Json, ...]
    finish_reason: str

    @property
    def message(self) -> Json:
        content = None if self.calls else "".join(self.pieces)
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        return message | ({"tool_calls": list(self.calls)} if self.calls else {"annotations": []})

    @property
    def tokens(self) -> int:
        said = len(self.pieces) + sum(_words(call["function"]["arguments"]) for call in self.calls)
        return max(1, said)


def chat(question: Question) -> Answer:
    """POST /v1/chat/completions."""
    body = question.body
    messages = _messages(body)
    count = min(_positive(body, "n") or 1, MAX_CHOICES)
    choices = [_choice(question, messages, index) for index in range(count)]
    usage = _usage(question.faults, _prompt_tokens(messages), sum(choice.tokens for choice in choices))
    head = {
        "id": "chatcmpl-" + question.digest,
        "object": "chat.completion.chunk" if body.get("stream") is True else "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_" + question.name,
    }
    if body.get("stream") is True:
        return _stream(question, head, choices, usage)
    answers = [
        {"index": index, "message": choice.message, "logprobs": None, "finish_reason": choice.finish_reason}
        for index, choice in enumerate(choices)
    ]
    return Answer(head | {"choices": answers} | ({"usage": usage} if usage else {}))


def _messages(body: Json) -> list[Json]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "'messages' must be a list with at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(400, "A message is an object with a 'role'.", param=f"messages[{index}]")
    return messages


def _positive(body: Json, name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(400, f"{name!r} must be a whole number of at least 1.", param=name)
    return value


def _text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in _parts(message) if isinstance(part.get("text"), str))


def _parts(message: Json) -> list[Json]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _words(text: str) -> int:
    return len(text.split())


def _prompt_tokens(messages: list[Json]) -> int:
    words = sum(_words(_text(message)) for message in messages)
    images = [part for message in messages for part in _parts(message) if part.get("type") == "image_url"]
    return max(1, words + TOKENS_PER_IMAGE * len(images))


def _choice(question: Question, messages: list[Json], index: int) -> _Choice:
    body = question.body
    calls = _tool_calls(question, messages, index)
    if calls:
        return _Choice((), calls, "tool_calls")
    text = _structured(body) or _of_length(_said(messages, index), question.faults.words)
    for stop in _stops(body):
        text = text.partition(stop)[0]
    pieces = _PIECE.findall(text.rstrip())
    limit = _positive(body, "max_completion_tokens") or _positive(body, "max_tokens")
    if limit is not None and len(pieces) > limit:
        return _Choice(tuple(pieces[:limit]), (), "length")
    return _Choice(tuple(pieces), (), "stop")


def _said(messages: list[Json], index: int) -> str:
    """Repeat the last tool result if the conversation ends with one, otherwise the last user message."""
    last = messages[-1]
    if last["role"] == "tool":
        who, text = "The tool said", _text(last)
    else:
        users = (message for message in reversed(messages) if message["role"] == "user")
        who, text = "You said", _text(next(users, {}))
    said = f"{who}: {text[:QUOTED].strip()}" if text.strip() else f"{who} nothing."
    return said if index == 0 else f"({index}) {said}"


def _of_length(text: str, words: int | None) -> str:
    if words is None:
        return text
    spoken = text.split() or ["word"]
    return " ".join((spoken * (words // len(spoken) + 1))[:words])


def _stops(body: Json) -> list[str]:
    stop = body.get("stop")
    stops = stop if isinstance(stop, list) else [stop]
    return [text for text in stops if isinstance(text, str) and text]


def _structured(body: Json) -> str | None:
    wanted = body.get("response_format")
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return '{"answer": "stub"}'
    if wanted.get("type") != "json_schema":
        return None
    schema = wanted.get("json_schema")
    if not isinstance(schema, dict):
        raise Refused(400, "'response_format.json_schema' is missing.", param="response_format.json_schema")
    return _spaced_json(satisfy(schema.get("schema")))


def _spaced_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _tool_calls(question: Question, messages: list[Json], index: int) -> tuple[Json, ...]:
    """Call the first tool, the one that tool_choice names, or every one if the message says "parallel"."""
    body = question.body
    tools = body.get("tools")
    tools = [_function(tool) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    functions = [function for function in tools if function]
    choice = body.get("tool_choice")
    if not functions or choice == "none" or messages[-1]["role"] != "user":
        return ()
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = _function(choice).get("name")
        functions = [function for function in functions if function["name"] == name]
        if not functions:
            raise Refused(400, f"'tool_choice' names {name!r}, which is not among 'tools'.", param="tool_choice")
    elif body.get("parallel_tool_calls") is False or "parallel" not in _text(messages[-1]):
        functions = functions[:1]
    return tuple(
        {
            "id": f"call_{question.digest[:16]}_{index}_{position}",
            "type": "function",
            "function": {"name": function["name"], "arguments": _spaced_json(satisfy(function.get("parameters")))},
        }
        for position, function in enumerate(functions)
    )


def _function(tool: Json) -> Json:
    function = tool.get("function")
    return function if isinstance(function, dict) and isinstance(function.get("name"), str) else {}


def _usage(faults: Faults, prompt: int, completion: int) -> Json | None:
    if faults.usage == "none":
        return None
    return {
        "prompt_tokens": _lie(faults.usage, prompt),
        "completion_tokens": _lie(faults.usage, completion),
        "total_tokens": _lie(faults.usage, prompt + completion),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _lie(kind: str | None, count: int) -> Any:
    match kind:
        case "negative":
            return -count
        case "string":
            return str(count)
        case "float":
            return count + 0.5
        case "huge":
            return 2**64 - 1
        case _:
            return count


def _stream(question: Question, head: Json, choices: list[_Choice], usage: Json | None) -> Answer:
    """Play a stream as OpenAI does: role, one word a chunk, finish_reason; then usage if asked for, and [DONE]."""
    options = question.body.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    head = head | {"choices": [], "usage": None} if include_usage and usage else head | {"choices": []}
    deltas = [_deltas(choice) for choice in choices]
    turns = chain.from_iterable(zip_longest(*deltas))  # choices take turns
    chunks = [
        {"index": position % len(choices), "delta": delta, "logprobs": None, "finish_reason": None}
        for position, delta in enumerate(turns)
        if delta is not None
    ]
    ends: list[Json] = [
        {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice.finish_reason}
        for index, choice in enumerate(choices)
    ]
    sequence: list[Json | None] = [*chunks, *ends]  # None stands for the usage event
    if include_usage and usage:
        sequence.insert(len(chunks) - 1 if question.faults.usage == "early" else len(sequence), None)

    def events() -> Iterator[Event]:
        for choice in sequence:
            chunk = head | ({"usage": usage} if choice is None else {"choices": [choice]})
            yield Event(msgspec.json.encode(chunk))
        yield DONE

    return Answer(events=events(), length=len(sequence) + 1)


def _deltas(choice: _Choice) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if choice.calls else "", "refusal": None}
    for piece in choice.pieces:
        yield {"content": piece}
    for index, call in enumerate(choice.calls):
        function = call["function"]
        yield {"tool_calls": [call | {"index": index, "function": function | {"arguments": ""}}]}
        for start in range(0, len(function["arguments"]), 8):
            yield {
                "tool_calls": [{"index": index, "function": {"arguments": function["arguments"][start : start + 8]}}]
            }


# --- embeddings and models --------------------------------------------------------------------------------------------


def embeddings(question: Question) -> Answer:
    """POST /v1/embeddings."""
    body = question.body
    inputs = _inputs(body.get("input"))
    dimensions = _positive(body, "dimensions") or 8
    if dimensions > 4096:
        raise Refused(400, "'dimensions' must be at most 4096.", param="dimensions")
    encoding = body.get("encoding_format") or "float"
    if encoding not in {"float", "base64"}:
        raise Refused(400, "'encoding_format' must be float or base64.", param="encoding_format")
    vectors = [vector(each, dimensions) for each in inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": each.tolist() if encoding == "float" else _base64(each)}
        for index, each in enumerate(vectors)
    ]
    tokens = max(1, sum(len(each) if isinstance(each, list) else _words(each) for each in inputs))
    usage = _usage(question.faults, tokens, 0)
    document = {"object": "list", "data": data, "model": body["model"]}
    if usage:
        document["usage"] = {name: usage[name] for name in ("prompt_tokens", "total_tokens")}
    return Answer(document)


def _inputs(value: Any) -> list[str | list[int]]:
    """Read the four forms of `input`: a string, strings, tokens, lists of tokens."""
    if value and isinstance(value, str):
        return [value]
    if value and isinstance(value, list):
        if _are(int, value):
            return [value]
        if _are(str, value) or all(isinstance(each, list) and each and _are(int, each) for each in value):
            return value
    raise Refused(400, "'input' must be a string, strings, tokens or lists of tokens.", param="input")


def _are(kind: type, values: list[Any]) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def vector(text: str | list[int], dimensions: int) -> array[float]:
    """Derive a vector of unit length from a text, as the 32-bit floats that both encodings carry."""
    random = hashlib.shake_128(msgspec.json.encode(text)).digest(4 * dimensions)
    values = [int.from_bytes(random[at : at + 4], "little") - 2**31 for at in range(0, len(random), 4)]
    length = math.hypot(*values)
    return array("f", [value / length for value in values])


def _base64(values: array[float]) -> str:
    values = values[:]
    if array("H", [1]).tobytes() != b"\x01\x00":
        values.byteswap()  # the format is little-endian whatever this machine is
    return b64encode(values.tobytes()).decode()


def models() -> Json:
    """GET /v1/models."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> Json:
    """GET /v1/models/{id}: every name is served."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "mock"}


# --- JSON documents that satisfy a schema -----------------------------------------------------------------------------

_FORMATS = {
    "date-time": "2024-01-01T00:00:00Z",
    "date": "2024-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "stub@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/stub",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def satisfy(schema: Any) -> Any:
    """Make the smallest document that satisfies a JSON schema, optional fields left out below the top."""
    return _Stub(schema).value(schema, 0)


class _Stub:
    """One schema being satisfied.

    From `_PLAIN_DEPTH` on the simplest branch is taken, which ends the usual recursions (lists of nodes, next or null).
    A schema that only an infinite document satisfies ends at `_DEPTH` or after `_VALUES`, with a null.
    """

    _PLAIN_DEPTH = 5
    _DEPTH = 40
    _VALUES = 2000

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = self._VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > self._DEPTH:
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        match self._type(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return math.ceil(_number(schema, 1))
            case "number":
                return _number(schema, 0.1)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema)

    def _resolved(self, schema: Any, depth: int) -> Json:
        """Follow $ref, pick a branch of anyOf or oneOf and merge allOf, until none is left at this level."""
        merged: Json = dict(schema) if isinstance(schema, dict) else {}
        for _ in range(self._DEPTH):
            if "$ref" in merged:
                parts = [self._pointed(merged.pop("$ref"))]
            elif branches := merged.pop("anyOf", None) or merged.pop("oneOf", None):
                parts = [self._branch(branches, depth)]
            elif isinstance(parts := merged.pop("allOf", None), list):
                pass
            else:
                return merged
            for part in parts:
                merged = _merged(merged, part)
        return {"type": "null"}

    def _pointed(self, reference: Any) -> Any:
        at = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            at = at.get(name) if isinstance(at, dict) else None
        return at

    def _branch(self, branches: Any, depth: int) -> Any:
        if not isinstance(branches, list):
            return {}
        if depth < self._PLAIN_DEPTH:
            return branches[0]
        return next((branch for branch in branches if branch == {"type": "null"}), branches[-1])

    def _type(self, schema: Json, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            deep = depth >= self._PLAIN_DEPTH and "null" in kind
            kind = "null" if deep else kind[0] if kind else None
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else None
        return kind

    def _object(self, schema: Json, depth: int) -> Json:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        if not isinstance(required, list):
            required = list(properties) if depth == 0 else []
        return {name: self.value(properties.get(name), depth + 1) for name in required if isinstance(name, str)}

    def _array(self, schema: Json, depth: int) -> list[Any]:
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        least = _bound(schema, "minItems", 0)
        most = _bound(schema, "maxItems", self._VALUES)
        usual = 1 if depth < self._PLAIN_DEPTH else 0
        wanted = int(max(0, min(max(least, len(first), usual), most, self._VALUES)))
        items = [*first[:wanted], *[schema.get("items")] * (wanted - len(first))]
        return [self.value(item, depth + 1) for item in items]


def _merged(one: Json, other: Any) -> Json:
    if not isinstance(other, dict):
        return one
    merged = one | other
    if isinstance(one.get("properties"), dict) and isinstance(other.get("properties"), dict):
        merged["properties"] = one["properties"] | other["properties"]
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = one["required"] + other["required"]
    return merged


def _bound(schema: Json, name: str, default: float) -> float:
    value = schema.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 10**15:
        return default
    return value


def _number(schema: Json, step: float) -> float:
    """Pick one, or the number next to it that is within the bounds and a multiple as asked."""
    low = max(_bound(schema, "minimum", -math.inf), _bound(schema, "exclusiveMinimum", -math.inf) + step)
    high = min(_bound(schema, "maximum", math.inf), _bound(schema, "exclusiveMaximum", math.inf) - step)
    value = max(low, min(1, high))
    multiple = _bound(schema, "multipleOf", 0)
    return math.ceil(value / multiple) * multiple if multiple > 10**-9 else value


def _string(schema: Json) -> str:
    text = _FORMATS.get(str(schema.get("format")), "stub")
    least = int(min(_bound(schema, "minLength", 0), 10_000))
    most = int(min(_bound(schema, "maxLength", 10_000), 10_000))
    return text.ljust(least, "x")[: max(most, 0)]

"""Anthropic's Messages, plain or streamed, and its token counts; also as sold by Vertex and Bedrock.

A double refuses what the API refuses (see anthropic_shapes.py and anthropic_rules.py). `input_tokens` excludes tokens
read from the cache or written to it. With the fault `usage=early`, message_start reports all of the usage.

Sources: https://platform.claude.com/docs/en/api/messages/create, .../api/messages/count_tokens,
.../build-with-claude/streaming, .../api/errors, .../api/claude-on-vertex-ai, .../api/claude-on-amazon-bedrock
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tests.doubles import anthropic_shapes as shapes
from tests.doubles import credentials
from tests.doubles.answers import Answer, Json, Question, Refused, header, streamed, told
from tests.doubles.anthropic_rules import blocks, check, worded
from tests.doubles.endpoints import Dialect
from tests.doubles.faults import Event
from tests.doubles.scene import Counts, Line, Part, Play, Scene, Tool, Turn, play, prompt_tokens, result_text
from tests.doubles.seals import seal
from tests.doubles.shapes import Wrong

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "stop_sequence": "stop_sequence"}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def messages(question: Question) -> Answer:
    """POST /v1/messages."""
    checked(question, "api", _version(question))
    return spoken(question, stream=question.body.get("stream") is True)


def count_tokens(question: Question) -> Answer:
    """POST /v1/messages/count_tokens."""
    checked(question, "count", _version(question))
    return Answer({"input_tokens": prompt_tokens(scene(question.body))})


def vertex(question: Question, *, stream: bool) -> Answer:
    """POST …/publishers/anthropic/models/{model}:rawPredict and :streamRawPredict."""
    version = question.body.get("anthropic_version")
    if question.model == "count-tokens":
        checked(question, "vertex count", version)
        return Answer({"input_tokens": prompt_tokens(scene(question.body))})
    checked(question, "vertex", version)
    return spoken(question, stream=stream or question.body.get("stream") is True)


def checked(question: Question, place: str, version: object) -> None:
    """Refuse an invalid body."""
    betas = header(question.headers, "anthropic-beta")
    if place == "bedrock":  # there they are no header
        betas = ",".join(question.body.get("anthropic_beta") or ()) or None
    threads = shapes.THREADS in (betas or "")
    try:
        shapes.request(place, str(version), beta=betas is not None, threads=threads)(question.body, ())
    except Wrong as wrong:
        raise Refused(400, worded(wrong)) from None
    if place in ("bedrock", "vertex"):
        _refuse_urls(question.body["messages"])
    if (question.body.get("thread") or {}).get("type") == "continue":  # a mock keeps nothing
        raise Refused(404, "No usable Thread state was found.", code="thread_not_found")
    check(question.body, question.model or question.body["model"], new=version == shapes.NEW)


def _refuse_urls(messages: list[Json]) -> None:
    """Claude in other clouds fetches nothing. Source: https://github.com/anthropics/anthropic-sdk-typescript/issues/1038."""
    for at, message in enumerate(messages):
        for number, block in enumerate(message["content"] if isinstance(message["content"], list) else ()):
            if (block.get("source") or {}).get("type") == "url":
                where = f"messages.{at}.content.{number}.image.source.base64.data"
                raise Refused(400, f"{where}: URL sources are not supported")


def spoken(question: Question, *, stream: bool) -> Answer:
    """Answer a valid body."""
    played = play(scene(question.body), question)
    return streamed(list(_events(question, played))) if stream else Answer(_message(question, played))


def _version(question: Question) -> str:
    version = header(question.headers, "anthropic-version")
    if version is None:
        raise Refused(400, "anthropic-version: header is required")
    if version not in ("2023-01-01", "2023-06-01", shapes.NEW):
        raise Refused(400, f'anthropic-version: "{version}" is not a valid version')
    return version


# --- the request


def scene(body: Json) -> Scene:
    turns = [Turn("system", _parts(body.get("system") or []))]
    turns += [Turn(message["role"], _parts(message["content"])) for message in body["messages"]]
    if body.get("cache_control"):
        turns.append(Turn("system", [Part(mark=True)]))
    tools = body.get("tools") or []
    choice = body.get("tool_choice") or {"type": "auto"}
    called = [Tool(tool["name"], tool["input_schema"]) for tool in tools if "input_schema" in tool]
    wanted = (body.get("output_config") or {}).get("format")
    return Scene(
        turns,
        tools=[] if choice["type"] == "none" else called,
        tool=choice.get("name"),
        parallel=choice.get("disable_parallel_tool_use") is not True,
        json=wanted is not None,
        schema=wanted and wanted["schema"],
        stops=body.get("stop_sequences") or (),
        limit=body.get("max_tokens"),
        thinks=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
        tools_marked=any(tool.get("cache_control") for tool in tools),
    )


def _parts(content: str | list[Json]) -> list[Part]:
    return [part for block in blocks(content) if (part := _part(block)) is not None]


def _part(block: Json) -> Part | None:
    mark = bool(block.get("cache_control"))
    match block["type"]:
        case "text":
            return Part(block["text"], mark=mark)
        case "image" | "document":
            return Part(media=1, mark=mark)
        case "search_result":
            return Part(" ".join(each["text"] for each in block["content"]), mark=mark)
        case "tool_result":
            inner = _parts(block.get("content") or [])
            text = result_text(" ".join(part.text for part in inner if part.text))
            media = sum(part.media for part in inner)
            return Part(text, media, True, block.get("is_error") is True, mark or any(part.mark for part in inner))
        case "tool_use":
            return Part(mark=True) if mark else None
        case _:
            return None


# --- the answer


def _message(question: Question, played: Play) -> Json:
    line = played.line
    usage = _usage(question, played.counts)
    return _head(question) | {
        "content": list(_content(question, line)),
        "stop_reason": _STOP_REASONS[line.finish],
        "stop_sequence": line.stop or None,
        **({"usage": usage} if usage else {}),
    }


def _head(question: Question) -> Json:
    return {
        "id": "msg_" + question.digest,
        "type": "message",
        "role": "assistant",
        "model": question.model or question.body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _content(question: Question, line: Line) -> Iterator[Json]:
    if line.thinking and line.redacted:
        yield {"type": "redacted_thinking", "data": seal("anthropic", line.thought)}
    elif line.thinking:
        shown = "" if _omits(question) else line.thought
        yield {"type": "thinking", "thinking": shown, "signature": seal("anthropic", line.thought)}
    if line.pieces:
        yield {"type": "text", "text": line.text}
    for call in line.calls:
        yield {"type": "tool_use", "id": "toolu_" + call.key, "name": call.name, "input": call.input}


def _omits(question: Question) -> bool:
    return bool(question.body["thinking"].get("display") == "omitted")


def _usage(question: Question, counts: Counts, output: int | None = None) -> Json | None:
    long = ttl(question.body) == "1h"
    details = {"thinking_tokens": counts.reasoning}
    usage = {
        "input_tokens": counts.input - counts.cached - counts.written,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0 if long else counts.written,
            "ephemeral_1h_input_tokens": counts.written if long else 0,
        },
        "output_tokens": counts.output if output is None else output,
        "service_tier": "standard",
    }
    return told(question.faults, usage | ({"output_tokens_details": details} if output is None else {}))


def ttl(body: Json) -> str:
    """Lifetime of the cache writes, from the last mark."""
    system = body.get("system") or []
    held = [*body.get("tools", []), *([] if isinstance(system, str) else system)]
    held += [block for message in body["messages"] for block in blocks(message["content"])]
    marks = [each["cache_control"] for each in [*held, body] if each.get("cache_control")]
    return str(marks[-1].get("ttl", "5m")) if marks else "5m"


# --- the stream


def _events(question: Question, played: Play) -> Iterator[Event]:
    early = question.faults.usage == "early"
    line = played.line
    start = _usage(question, played.counts, None if early else 1)
    yield _event("message_start", message=_head(question) | ({"usage": start} if start else {}))
    for index, block in enumerate(_content(question, line)):
        yield _event("content_block_start", index=index, content_block=_begun(block))
        if index == 0:
            yield _event("ping")
        for delta in _deltas(question, line, block):
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    delta = {"stop_reason": _STOP_REASONS[line.finish], "stop_sequence": line.stop or None}
    usage = None if early else _usage(question, played.counts)
    last = {name: usage[name] for name in usage if name not in ("cache_creation", "service_tier")} if usage else None
    fields = {"delta": delta, "usage": last} if last else {"delta": delta}
    yield _event("message_delta", **fields)
    yield _event("message_stop")


def _begun(block: Json) -> Json:
    match block["type"]:
        case "text":
            return block | {"text": ""}
        case "thinking":
            return block | {"thinking": "", "signature": ""}
        case "tool_use":
            return block | {"input": {}}
        case _:
            return block


def _deltas(question: Question, line: Line, block: Json) -> Iterator[Json]:
    match block["type"]:
        case "text":
            for piece in line.pieces:
                yield {"type": "text_delta", "text": piece}
        case "thinking":
            for piece in () if _omits(question) else line.thinking:
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use":
            call = next(call for call in line.calls if block["id"].endswith(call.key))
            for fragment in ["", *call.fragments]:
                yield {"type": "input_json_delta", "partial_json": fragment}


def _event(name: str, **fields: object) -> Event:
    return Event(msgspec.json.encode({"type": name} | fields), name, name == "message_stop")


# --- errors


def error(refused: Refused) -> Json:
    kind = _ERRORS.get(refused.status, "api_error" if refused.status >= 500 else "invalid_request_error")
    inner: Json = {"type": kind, "message": refused.message}
    if refused.code and refused.code.startswith("thread_"):
        inner["details"] = {"error_code": refused.code}
    return {"type": "error", "error": inner, "request_id": "req_mock"}


def _failure(refused: Refused, _number: int) -> Event:
    return Event(msgspec.json.encode(error(refused)), "error")


DIALECT = Dialect("anthropic", error, _failure, credentials.anthropic)
ON_VERTEX = DIALECT._replace(name="anthropic_vertex", admit=credentials.vertex)

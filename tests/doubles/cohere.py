"""Cohere's Chat, version 2, plain or streamed.

A double refuses what the API refuses (see cohere_shapes.py and cohere_rules.py). Reasoning models reason unless a
request turns it off. The other models state a plan when they call tools: "I will use the weather tool." Calls without
arguments are written as the API writes them: null in a plain answer, no arguments at all in a stream. `tokens` includes
cached input, `billed_units` excludes it. With the fault `usage=early`, message-start reports all of the usage.

Sources: https://docs.cohere.com/reference/chat, .../reference/chat-stream, .../reference/errors,
https://docs.cohere.com/docs/streaming, .../docs/reasoning
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from tests.doubles import credentials
from tests.doubles.answers import Answer, Json, Question, Refused, count_words, streamed, told
from tests.doubles.cohere_rules import check
from tests.doubles.cohere_shapes import CHAT
from tests.doubles.endpoints import Dialect
from tests.doubles.faults import DONE, Event
from tests.doubles.scene import PIECE, Call, Line, Part, Play, Scene, Tool, Turn, likelihoods, play, result_text
from tests.doubles.shapes import Check, Wrong, kind

_FINISH = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "stop_sequence": "STOP_SEQUENCE"}
_TYPES = {"array": "[]Object", "integer": "int", "number": "float", "boolean": "bool"}
_REASONING = ("command-a-reasoning", "command-a-plus")


def chat(question: Question) -> Answer:
    """POST /v2/chat."""
    body = question.body
    checked(CHAT, body, "chat")
    check(body)
    played = play(_scene(body), question)
    if body.get("stream"):
        return streamed(list(_events(question, played)))
    logprobs = {"logprobs": list(_logprobs(played.line))} if body.get("logprobs") else {}
    usage = _usage(question, played)
    answer = {
        "id": _id(question.digest),
        "message": _message(played.line),
        "finish_reason": _FINISH[played.line.finish],
    }
    return Answer(answer | ({"usage": usage} if usage else {}) | logprobs)


def checked(shape: Check, body: Json, page: str) -> None:
    """Refuse a body of another shape."""
    try:
        shape(body, ())
    except Wrong as wrong:
        status = 422 if wrong.problem == "unknown" else 400
        raise Refused(status, _worded(wrong, page)) from None


def _worded(wrong: Wrong, page: str) -> str:
    where = wrong.at(index="[%d]")
    proper = f"For proper usage, please refer to https://docs.cohere.com/reference/{page}"
    match wrong.problem:
        case "missing":
            return f"invalid request: {where} is required."
        case "unknown":
            return f"unknown field: parameter '{wrong.path[-1]}' is not a valid field. {proper}"
        case "type":
            got, wanted = (_TYPES.get(each, each) for each in (kind(wrong.got), wrong.expected))
            return f"invalid type: parameter '{where}' is of type {got} but should be of type {wanted}. {proper}"
        case _:
            return f"invalid request: {where}: {wrong.expected}"


# --- the request


def _scene(body: Json) -> Scene:
    wanted = body.get("response_format") or {"type": "text"}
    tools = [] if body.get("tool_choice") == "NONE" else body.get("tools") or []
    documents = [Part(_document(each)) for each in body.get("documents") or ()]
    return Scene(
        [Turn("system", documents), *(_turn(message) for message in body["messages"])],
        tools=[Tool(tool["function"]["name"], tool["function"]["parameters"]) for tool in tools],
        json=wanted["type"] == "json_object",
        schema=wanted.get("json_schema") or wanted.get("schema"),
        stops=[stop for stop in body.get("stop_sequences") or () if stop],
        limit=body.get("max_tokens") or None,
        thinks=_reasons(body),
    )


def _reasons(body: Json) -> bool:
    asked = (body.get("thinking") or {}).get("type")
    return asked == "enabled" or (asked is None and body["model"].startswith(_REASONING))


def _turn(message: Json) -> Turn:
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    match message["role"]:
        case "tool":
            return Turn("user", [_result(parts)])
        case role:
            shown = [part for part in parts if part["type"] != "thinking"]
            read = [Part(part["text"]) if part["type"] == "text" else Part(media=1) for part in shown]
            return Turn(role, read)


def _result(parts: Sequence[Json]) -> Part:
    """The content of a result. A document with only a known field such as `output` stands for that field's value."""
    texts = []
    failed = False
    for part in parts:
        data = part["text"] if part["type"] == "text" else part["document"]["data"]
        if isinstance(data, dict) and len(data) == 1 and {*data} & {"output", "result", "error"}:
            failed = failed or "error" in data
            (data,) = data.values()
        texts.append(result_text(data))
    return Part(" ".join(texts), result=True, failed=failed)


def _document(document: str | Json) -> str:
    return document if isinstance(document, str) else result_text(document["data"])


# --- the answer


def _id(digest: str) -> str:
    return str(UUID(hex=(digest * 2)[:32]))


def _message(line: Line) -> Json:
    message: Json = {"role": "assistant"}
    content = [{"type": "thinking", "thinking": line.thought}] if line.thinking else []
    if line.pieces:
        content.append({"type": "text", "text": line.text})
    if content:
        message["content"] = content
    if plan := _plan(line):
        message["tool_plan"] = plan
    if line.calls:
        message["tool_calls"] = [
            _call(call, "null" if call.arguments == "{}" else call.arguments) for call in line.calls
        ]
    return message


def _plan(line: Line) -> str:
    return "" if line.thinking or not line.calls else f"I will use the {line.calls[0].name} tool."


def _call(call: Call, arguments: str) -> Json:
    return {
        "id": f"{call.name}_{call.key}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _logprobs(line: Line) -> Iterator[Json]:
    for token in likelihoods(line, 0):
        yield {"text": token.text, "token_ids": [len(token.text)], "logprobs": [token.logprob]}


def _usage(question: Question, played: Play) -> Json | None:
    counts = played.counts
    output = counts.output + count_words(_plan(played.line))
    tokens = told(question.faults, {"input_tokens": counts.input, "output_tokens": output})
    billed = told(question.faults, {"input_tokens": counts.input - counts.cached, "output_tokens": output})
    if tokens is None:
        return None
    return {"billed_units": billed, "tokens": tokens, "cached_tokens": counts.cached}


# --- the stream


def _events(question: Question, played: Play) -> Iterator[Event]:
    line = played.line
    usage = _usage(question, played)
    told_usage = {"usage": usage} if usage else {}
    early = question.faults.usage == "early"
    begun: Json = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    start = {"message": begun} | (told_usage if early else {})
    yield _event("message-start", id=_id(question.digest), delta=start)
    blocks = [(name, pieces) for name, pieces in (("thinking", line.thinking), ("text", line.pieces)) if pieces]
    logprobs = iter(_logprobs(line) if question.body.get("logprobs") else ())
    for index, (name, pieces) in enumerate(blocks):
        yield _event("content-start", index=index, delta=_delta(content={"type": name, name: ""}))
        for piece in pieces:
            likely = next(logprobs, None) if name == "text" else None
            more = {"logprobs": likely} if likely else {}
            yield _event("content-delta", index=index, delta=_delta(content={name: piece}), **more)
        yield _event("content-end", index=index)
    for piece in PIECE.findall(_plan(line)):
        yield _event("tool-plan-delta", delta=_delta(tool_plan=piece))
    for index, call in enumerate(line.calls, len(blocks)):
        yield _event("tool-call-start", index=index, delta=_delta(tool_calls=_call(call, "")))
        for fragment in () if call.arguments == "{}" else call.fragments:
            yield _event("tool-call-delta", index=index, delta=_delta(tool_calls={"function": {"arguments": fragment}}))
        yield _event("tool-call-end", index=index)
    end = {"finish_reason": _FINISH[line.finish]} | ({} if early else told_usage)
    yield _event("message-end", delta=end)
    yield DONE


def _delta(**message: Any) -> Json:
    return {"message": message}


def _event(name: str, **fields: Any) -> Event:
    return Event(msgspec.json.encode({"type": name} | fields), name, name == "message-end")


# --- errors


def error(refused: Refused) -> Json:
    return {"id": str(UUID(int=0)), "message": refused.message}


def _failure(refused: Refused, _number: int) -> Event:
    return _event("message-end", delta={"finish_reason": "ERROR", "error": refused.message})


DIALECT = Dialect("cohere", error, _failure, credentials.bearer)

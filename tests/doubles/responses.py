"""OpenAI's Responses, plain or streamed.

A double refuses what the API refuses (see responses_shapes.py and responses_rules.py). It stores whole responses
(responses_stored.py), but does not read them again: earlier turns have to come back in the input. The model reasons
when an effort is asked for, and shows its reasoning when a summary is asked for. `include` reasoning.encrypted_content
adds the sealed reasoning. Custom tools are called with the text "stub". With the fault `usage=early`, response.created
reports all of the usage.

Sources: https://platform.openai.com/docs/api-reference/responses, .../docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from tests.doubles import answers, credentials, responses_stored
from tests.doubles.answers import CREATED, Answer, Json, Question, Refused, streamed, told
from tests.doubles.endpoints import Dialect
from tests.doubles.faults import Event
from tests.doubles.responses_rules import check, flat, items_of, parts_of, type_of
from tests.doubles.responses_shapes import CREATE, refusal
from tests.doubles.scene import Call, Line, Part, Play, Scene, Tool, Turn, likelihoods, play, result_text
from tests.doubles.seals import seal
from tests.doubles.shapes import Wrong

_ROLES: dict[str, Literal["user", "assistant"]] = {"user": "user", "assistant": "assistant"}
_OF_CLIENTS = ("function", "custom")
_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}}
_HIDDEN = "abcdefghijklmnop"  # characters of which `obfuscation` is made
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def create(question: Question) -> Answer:
    """POST /v1/responses."""
    body = question.body
    try:
        CREATE(body, ())
    except Wrong as wrong:
        raise refusal(wrong) from None
    check(body, question.name)
    played = play(_scene(body), question)
    ended = _ended(question, played, _usage(question, played))
    if body.get("store") is not False:
        responses_stored.keep(question.name, ended, items_of(body))
    if body.get("stream"):
        return streamed(list(_events(question, played)))
    if body.get("background"):  # it is in progress at the first look
        return Answer(ended | {"status": "queued", "output": [], "usage": None})
    return Answer(ended)


def input_tokens(question: Question) -> Answer:
    """POST /v1/responses/input_tokens."""
    played = _checked(question, ("stream", "store", "max_output_tokens", "include", "user"))
    return Answer({"object": "response.input_tokens", "input_tokens": played.counts.input})


def compact(question: Question) -> Answer:
    """POST /v1/responses/compact."""
    played = _checked(question, ("stream", "store", "max_output_tokens", "tools", "reasoning", "text", "include"))
    item = {"id": "cmp_" + question.digest, "type": "compaction", "encrypted_content": seal("openai", "compacted")}
    answer = {"id": "resp_" + question.digest, "object": "response.compaction", "created_at": CREATED}
    return Answer(answer | {"output": [item], "usage": _usage(question, played)})


def _checked(question: Question, unknown: Sequence[str]) -> Play:
    """The play of a request to an endpoint beside `create`, which takes fewer fields."""
    body = question.body
    if wrong := [name for name in unknown if name in body]:
        raise Refused(400, f"Unknown parameter: '{wrong[0]}'.", param=wrong[0], code="unknown_parameter")
    try:
        CREATE(body, ())
    except Wrong as wrong_shape:
        raise refusal(wrong_shape) from None
    check(body, question.name)
    return play(_scene(body), question)


# --- the request


def _scene(body: Json) -> Scene:
    turns = [Turn("system", [Part(body.get("instructions") or "")])]
    turns += [_turn(item) for item in items_of(body)]
    tools, tool = _tools(body)
    wanted = body.get("text", {}).get("format") or {"type": "text"}
    return Scene(
        turns,
        tools=tools,
        tool=tool,
        parallel=body.get("parallel_tool_calls") is not False,
        json=wanted["type"] != "text",
        schema=wanted.get("schema"),
        limit=body.get("max_output_tokens"),
        thinks=(body.get("reasoning") or {}).get("effort") not in (None, "none"),
    )


def _turn(item: Json) -> Turn:
    parts = parts_of(item)
    texts = [str(part.get("text") or part.get("refusal") or "") for part in parts]
    media = sum(part["type"] in ("input_image", "input_file") for part in parts)
    kind = type_of(item)
    if kind == "message":
        return Turn(_ROLES.get(item["role"], "system"), [*map(Part, texts), Part(media=media)])
    if kind in ("function_call_output", "custom_tool_call_output"):
        return Turn("user", [Part(result_text(" ".join(filter(None, texts))), media, result=True)])
    return Turn("assistant", [])  # calls and reasoning


def _tools(body: Json) -> tuple[list[Tool], str | None]:
    """Read the tools that may be called, and the name of a required one."""
    choice = body.get("tool_choice", "auto")
    offered = [_tool(tool) for tool in flat(body) if tool["type"] in _OF_CLIENTS]
    if choice == "none" or isinstance(choice, str):
        return [] if choice == "none" else offered, None
    if choice["type"] == "allowed_tools":
        allowed = [each.get("name") for each in choice["tools"]]
        return [tool for tool in offered if tool.name in allowed], None
    return offered, choice["name"] if choice["type"] in _OF_CLIENTS else None


def _tool(tool: Json) -> Tool:
    return Tool(tool["name"], _INPUT if tool["type"] == "custom" else tool.get("parameters"))


# --- the answer


def _started(question: Question, usage: Json | None = None) -> Json:
    body = question.body
    reasoning = body.get("reasoning") or {}
    text = {"format": {"type": "text"}, "verbosity": "medium"} | body.get("text", {})
    echoed = {name: default if body.get(name) is None else body[name] for name, default in _ECHOED.items()}
    return {
        "id": "resp_" + question.digest,
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": body["model"],
        "output": [],
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "text": text,
        "tools": [_echo(tool) for tool in body.get("tools") or ()],
        "usage": usage,
        **echoed,
    }


def _echo(tool: Json) -> Json:
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": None} | tool | {"strict": tool.get("strict") is not False}


def _ended(question: Question, played: Play, usage: Json | None) -> Json:
    cut = played.line.finish == "length"
    ended: Json = {"output": list(_output(question, played.line)), "usage": usage}
    if cut:
        ended |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    else:
        ended |= {"status": "completed", "completed_at": CREATED}
    return _started(question) | ended


def _output(question: Question, line: Line) -> Iterator[Json]:
    digest, body = question.digest, question.body
    cut = line.finish == "length"
    if line.thinking:
        item: Json = {"id": "rs_" + digest, "type": "reasoning", "summary": _summary(body, line)}
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            item["encrypted_content"] = seal("openai", line.thought)
        yield item
    if not line.calls and (line.pieces or not cut):
        yield {
            "id": "msg_" + digest,
            "type": "message",
            "status": "incomplete" if cut else "completed",
            "role": "assistant",
            "content": [_text(line.text, _logprobs(body, line))],
        }
    custom = {tool["name"] for tool in flat(body) if tool["type"] == "custom"}
    groups = {tool["name"]: {"namespace": tool["namespace"]} for tool in flat(body) if "namespace" in tool}
    for call in line.calls:
        yield (_custom(call) if call.name in custom else _call(call)) | groups.get(call.name, {})


def _summary(body: Json, line: Line) -> list[Json]:
    reasoning = body["reasoning"]
    shown = (reasoning.get("summary") or reasoning.get("generate_summary")) and not line.redacted
    return [{"type": "summary_text", "text": line.thought}] if shown else []


def _text(text: str, logprobs: list[Json]) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}


def _call(call: Call) -> Json:
    ids = {"id": "fc_" + call.key, "call_id": "call_" + call.key}
    return {**ids, "type": "function_call", "status": "completed", "name": call.name, "arguments": call.arguments}


def _custom(call: Call) -> Json:
    ids = {"id": "ctc_" + call.key, "call_id": "call_" + call.key}
    return {**ids, "type": "custom_tool_call", "status": "completed", "name": call.name, "input": call.input["input"]}


def _logprobs(body: Json, line: Line) -> list[Json]:
    if "message.output_text.logprobs" not in (body.get("include") or ()):
        return []
    tokens = likelihoods(line, body.get("top_logprobs") or 0)
    return [
        _likely(token.text, token.logprob) | {"top_logprobs": [_likely(*each) for each in token.others]}
        for token in tokens
    ]


def _likely(token: str, logprob: float) -> Json:
    return {"token": token, "bytes": list(token.encode()), "logprob": logprob}


def _usage(question: Question, played: Play) -> Json | None:
    counts = played.counts
    return told(
        question.faults,
        {
            "input_tokens": counts.input,
            "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": counts.written},
            "output_tokens": counts.output,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.input + counts.output,
        },
    )


# --- the stream


def _events(question: Question, played: Play) -> Iterator[Event]:
    early = question.faults.usage == "early"
    usage = _usage(question, played)
    started = _started(question, usage if early else None)
    hides = (question.body.get("stream_options") or {}).get("include_obfuscation") is not False
    ended = _ended(question, played, None if early else usage)
    events: list[Json] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
    ]
    for index, item in enumerate(ended["output"]):
        events += [event | {"output_index": index} for event in _told(played.line, item)]
    events.append({"type": f"response.{ended['status']}", "response": ended})
    for number, event in enumerate(events):
        name = event["type"]
        more: Json = {"sequence_number": number}
        if hides and name.endswith(".delta"):
            more["obfuscation"] = _HIDDEN[len(event["delta"]) % len(_HIDDEN) :]
        yield Event(msgspec.json.encode(event | more), name, number == len(events) - 1)


def _told(line: Line, item: Json) -> Iterator[Json]:
    """The events of one item."""
    at = {"item_id": item["id"]}
    begun: Json = {"status": "in_progress"} if "status" in item else {}
    match item["type"]:
        case "reasoning":
            yield _item("added", item | {"summary": []})
            for index, part in enumerate(item["summary"]):
                where = at | {"summary_index": index}
                kind = "response.reasoning_summary"
                yield where | {"type": f"{kind}_part.added", "part": part | {"text": ""}}
                yield from (where | {"type": f"{kind}_text.delta", "delta": piece} for piece in line.thinking)
                yield where | {"type": f"{kind}_text.done", "text": part["text"]}
                yield where | {"type": f"{kind}_part.done", "part": part}
        case "message":
            (part,) = item["content"]
            where = at | {"content_index": 0}
            logprobs = part["logprobs"]
            yield _item("added", item | begun | {"content": []})
            yield where | {"type": "response.content_part.added", "part": part | {"text": "", "logprobs": []}}
            for index, piece in enumerate(line.pieces):
                likely = logprobs[index : index + 1]
                yield where | {"type": "response.output_text.delta", "delta": piece, "logprobs": likely}
            yield where | {"type": "response.output_text.done", "text": part["text"], "logprobs": logprobs}
            yield where | {"type": "response.content_part.done", "part": part}
        case kind:
            field = "arguments" if kind == "function_call" else "input"
            name = "response." + ("function_call_arguments" if kind == "function_call" else "custom_tool_call_input")
            yield _item("added", item | begun | {field: ""})
            text = item[field]
            for start in range(0, len(text), 8):
                yield at | {"type": f"{name}.delta", "delta": text[start : start + 8]}
            yield at | {"type": f"{name}.done", field: text}
    yield _item("done", item)


def _item(step: str, item: Json) -> Json:
    return {"type": f"response.output_item.{step}", "item": item}


# --- errors


def _failure(refused: Refused, number: int) -> Event:
    """Put the fields into `error`, as OpenAI does. Its reference shows them beside the type."""
    error = answers.error(refused)["error"] | {"code": "server_error"}
    return Event(msgspec.json.encode({"type": "error", "sequence_number": number, "error": error}), "error")


DIALECT = Dialect("openai_responses", answers.error, _failure, credentials.openai)

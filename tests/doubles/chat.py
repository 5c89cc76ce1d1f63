"""OpenAI's chat completions: text, tool calls and structured output, plain or streamed.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest

import msgspec

from tests.doubles import mistral_rules
from tests.doubles.answers import CREATED, Answer, Json, Question, Refused, positive, report_usage
from tests.doubles.chat_rules import check
from tests.doubles.faults import DONE, Event
from tests.doubles.scene import Call, Line, Part, Scene, Tool, Turn, likelihoods, play, result_text

_MEDIA = frozenset({"image_url", "file", "input_audio"})
_FINISH = {"stop_sequence": "stop"}


def chat(question: Question) -> Answer:
    """POST /v1/chat/completions."""
    body = question.body
    check(body)
    if question.name == "mistral":
        mistral_rules.check(body)
    played = play(_scene(body), question)
    counts = played.counts
    usage = report_usage(question.faults, counts.input, counts.output, cached=counts.cached, reasoning=counts.reasoning)
    head = {
        "id": "chatcmpl-" + question.digest,
        "object": "chat.completion.chunk" if body.get("stream") is True else "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_" + question.name,
    }
    if body.get("stream") is True:
        return _stream(question, head, played.lines, usage)
    answers = [
        {"index": index, "message": _message(line), "logprobs": _logprobs(body, line), "finish_reason": _finish(line)}
        for index, line in enumerate(played.lines)
    ]
    return Answer(head | {"choices": answers} | ({"usage": usage} if usage else {}))


# --- the request


def _scene(body: Json) -> Scene:
    turns = _turns(body)
    tools, tool = _tools(body)
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    schema = None
    if isinstance(wanted, dict) and kind == "json_schema":
        if not isinstance(wanted.get("json_schema"), dict):
            raise Refused(400, "'response_format.json_schema' is missing.", param="response_format.json_schema")
        schema = wanted["json_schema"].get("schema")
    stop = body.get("stop")
    stops = stop if isinstance(stop, list) else [stop]
    return Scene(
        turns,
        tools=tools,
        tool=tool,
        parallel=body.get("parallel_tool_calls") is not False,
        json=kind in ("json_object", "json_schema"),
        schema=schema,
        stops=[text for text in stops if isinstance(text, str) and text],
        limit=positive(body, "max_completion_tokens") or positive(body, "max_tokens"),
        choices=positive(body, "n") or 1,
        thinks=body.get("reasoning_effort") not in (None, "none"),
    )


def _turns(body: Json) -> list[Turn]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "'messages' must be a list with at least one message.", param="messages")
    turns = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(400, "A message is an object with a 'role'.", param=f"messages[{index}]")
        turns.append(_turn(message))
    return turns


def _turn(message: Json) -> Turn:
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    text = " ".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    text = content if isinstance(content, str) else text
    media = sum(str(part.get("type")) in _MEDIA for part in parts)
    match message["role"]:
        case "tool" | "function":
            return Turn("user", [Part(result_text(text), media, result=True)])
        case "user":
            return Turn("user", [Part(text, media)])
        case "assistant":
            return Turn("assistant", [Part(text, media)])
        case _:
            return Turn("system", [Part(text, media)])


def _tools(body: Json) -> tuple[list[Tool], str | None]:
    """Read the tools that may be called, and the name of a required one."""
    tools = body.get("tools")
    functions = [_function(tool) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    choice = body.get("tool_choice")
    offered = [Tool(each["name"], each.get("parameters")) for each in functions if each]
    if not offered or choice == "none":
        return [], None
    if not isinstance(choice, dict) or choice.get("type") != "function":
        return offered, None
    name = _function(choice).get("name")
    if name is None:
        raise Refused(400, "'tool_choice.function.name' is missing.", param="tool_choice")
    return offered, name


def _function(tool: Json) -> Json:
    function = tool.get("function")
    return function if isinstance(function, dict) and isinstance(function.get("name"), str) else {}


# --- the answer


def _finish(line: Line) -> str:
    return _FINISH.get(line.finish, line.finish)


def _message(line: Line) -> Json:
    content = None if line.calls else line.text
    message: Json = {"role": "assistant", "content": content, "refusal": None}
    calls = [_call(call) for call in line.calls]
    return message | ({"tool_calls": calls} if calls else {"annotations": []})


def _call(call: Call) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": "call_" + call.key, "type": "function", "function": function}


def _logprobs(body: Json, line: Line) -> Json | None:
    others = body.get("top_logprobs")
    if body.get("logprobs") is not True or not line.pieces:
        return None
    tokens = likelihoods(line, others if isinstance(others, int) and 0 < others <= 20 else 0)
    told = [
        _likely(token.text, token.logprob) | {"top_logprobs": [_likely(*other) for other in token.others]}
        for token in tokens
    ]
    return {"content": told, "refusal": None}


def _likely(token: str, logprob: float) -> Json:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _stream(question: Question, head: Json, lines: tuple[Line, ...], usage: Json | None) -> Answer:
    """Play a stream as OpenAI does: role, one word per chunk, finish_reason; then usage if asked for, and [DONE]."""
    options = question.body.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    head = head | {"choices": [], "usage": None} if include_usage and usage else head | {"choices": []}
    likely = [iter((_logprobs(question.body, line) or {"content": []})["content"]) for line in lines]
    turns = chain.from_iterable(zip_longest(*map(_deltas, lines)))  # choices take turns
    chunks = [
        _chunk(position % len(lines), delta, likely[position % len(lines)])
        for position, delta in enumerate(turns)
        if delta is not None
    ]
    ends: list[Json] = [
        {"index": index, "delta": {}, "logprobs": None, "finish_reason": _finish(line)}
        for index, line in enumerate(lines)
    ]
    sequence: list[Json | None] = [*chunks, *ends]  # None is the usage event
    if include_usage and usage:
        sequence.insert(len(chunks) - 1 if question.faults.usage == "early" else len(sequence), None)

    def events() -> Iterator[Event]:
        for choice in sequence:
            chunk = head | ({"usage": usage} if choice is None else {"choices": [choice]})
            yield Event(msgspec.json.encode(chunk))
        yield DONE

    return Answer(events=events(), length=len(sequence) + 1)


def _chunk(index: int, delta: Json, likely: Iterator[Json]) -> Json:
    token = next(likely, None) if delta.get("content") else None
    logprobs = {"content": [token], "refusal": None} if token else None
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _deltas(line: Line) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if line.calls else "", "refusal": None}
    for piece in line.pieces:
        yield {"content": piece}
    for index, call in enumerate(line.calls):
        begun = _call(call)
        yield {"tool_calls": [begun | {"index": index, "function": begun["function"] | {"arguments": ""}}]}
        for fragment in call.fragments:
            yield {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}

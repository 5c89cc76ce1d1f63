"""OpenAI's chat completions: text, tool calls and structured output, plain or streamed.

The answer repeats the last user message: "You said: hello".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import msgspec

from extproc.mock.answers import CREATED, Answer, Json, Question, Refused, count_words, positive, report_usage
from extproc.mock.faults import DONE, Event
from extproc.mock.schemas import satisfy

TOKENS_PER_IMAGE = 85
QUOTED = 200  # characters of the last message that the answer repeats
MAX_CHOICES = 8

_PIECE = re.compile(r"\s*\S+")


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
        said = len(self.pieces) + sum(count_words(call["function"]["arguments"]) for call in self.calls)
        return max(1, said)


def chat(question: Question) -> Answer:
    """POST /v1/chat/completions."""
    body = question.body
    messages = _messages(body)
    count = min(positive(body, "n") or 1, MAX_CHOICES)
    choices = [_choice(question, messages, index) for index in range(count)]
    usage = report_usage(question.faults, _prompt_tokens(messages), sum(choice.tokens for choice in choices))
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


def _text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in _parts(message) if isinstance(part.get("text"), str))


def _parts(message: Json) -> list[Json]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _prompt_tokens(messages: list[Json]) -> int:
    words = sum(count_words(_text(message)) for message in messages)
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
    limit = positive(body, "max_completion_tokens") or positive(body, "max_tokens")
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

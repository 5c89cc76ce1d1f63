"""Texts of the mock's answers: equal for equal requests, in every API.

An answer repeats the last user message: "You said: hello". After results of tools it is "The tool said: 18 degrees". If
tools are offered and the user spoke last, the first tool is called, or the one that the request demands. Arguments and
structured output are small documents that fit their schema. A message with 'call NAME with {"a": 1}' calls the tool
whose name ends in NAME, with these arguments. A word counts as one token, an image, file or sound as 85.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from extproc.upstream.mock.faults import Faults
from extproc.words import messages
from extproc.words.exchange import Usage
from extproc.words.messages import Choice, Delta, Prompt, TextPart, ToolCall, ToolResult

CREATED = 1_700_000_000
TOKENS_PER_IMAGE = 85
QUOTED = 200  # most characters of the last message that the answer repeats
MAX_CHOICES = 8
USER = "You said"
PIECE = re.compile(r"\s*\S+")  # a piece of a streamed text
FRAGMENT = re.compile(r"(?s).{1,8}")  # a piece of streamed arguments
_TELLING = re.compile(r"call (\w+) with (\{.*\})")
_MEDIA = (messages.ImagePart, messages.FilePart, messages.AudioPart)
MOST_DEPTH = 8  # most nested objects and lists of a schema that are filled


def answer(prompt: Prompt, faults: Faults, id: str) -> messages.Answer:
    """The answer to a prompt."""
    choices = [_choice(prompt, faults.words, f"call_{at}_{id}", at) for at in range(min(prompt.choices, MAX_CHOICES))]
    asked = [*prompt.system, *(part for message in prompt.messages for part in message.parts)]
    said = [part for choice in choices for part in choice.parts]
    read, wrote = (max(1, sum(map(_tokens, parts))) for parts in (asked, said))
    return messages.Answer(choices, id, prompt.model, CREATED, None if faults.usage == "none" else Usage(read, wrote))


def events(answer: messages.Answer, *, usage: bool) -> Iterator[messages.Event]:
    """The events of a streamed answer, each with a word or a few characters of arguments. `usage`: report the usage."""
    begun = answer.usage and Usage(answer.usage.input_tokens, 1)
    yield messages.Started(answer.id, answer.model, answer.created, begun)
    for index, choice in enumerate(answer.choices):
        for block, part in enumerate(choice.parts):
            if isinstance(part, ToolCall):
                yield Delta("tool_call", "", block, index, part.id, part.name)
                yield from (Delta("tool_call", piece, block, index) for piece in FRAGMENT.findall(part.arguments))
            elif isinstance(part, TextPart):
                yield from (Delta("text", piece, block, index) for piece in PIECE.findall(part.text))
        yield messages.Finished(choice.finish, index, choice.stop_sequence)
    if usage and answer.usage is not None:
        yield messages.Used(answer.usage)
    yield messages.Ended()


def _choice(prompt: Prompt, words: int | None, key: str, index: int) -> Choice:
    who, heard = _last_speaker(prompt)
    if who == USER and prompt.messages and prompt.messages[-1].role == "user" and prompt.tools:
        told = _TELLING.search(heard)
        if tool := _called(prompt, told[1] if told else ""):
            given = told[2] if told and tool.name.endswith(told[1]) else spaced_json(fitting(tool.schema, tool.schema))
            return Choice([ToolCall(key, tool.name, given)], "tool_calls")
    schema = (prompt.format.schema or {"const": {"answer": "stub"}}) if prompt.format else None
    text = of_length(said(who, heard, index), words) if schema is None else spaced_json(fitting(schema, schema))
    text, stop = stopped(text, prompt.stop)
    pieces = PIECE.findall(text)
    if prompt.max_tokens is not None and len(pieces) > prompt.max_tokens:
        return Choice([TextPart("".join(pieces[: prompt.max_tokens]))], "length")
    return Choice([TextPart(text)], "stop_sequence" if stop else "stop", stop)


def _last_speaker(prompt: Prompt) -> tuple[str, str]:
    """The last speaker other than the assistant, and the speaker's words. Neighbouring messages count as one."""
    run: list[messages.Part] = []
    for message in reversed(prompt.messages):
        if message.role == "user":
            run[:0] = message.parts
        elif run:
            break
    results = [part for part in run if isinstance(part, ToolResult)]
    if not results or run[-1] is not results[-1]:
        return USER, " ".join(part.text for part in run if isinstance(part, TextPart))
    who = "The tool failed" if any(result.error for result in results) else "The tool said"
    return who, "; ".join(part.text for result in results for part in result.parts if isinstance(part, TextPart))


def _called(prompt: Prompt, told: str) -> messages.Tool | None:
    """The tool to call, preferably one whose name ends with the name in the message."""
    choice = prompt.tool_choice or messages.ToolChoice()
    tools = [tool for tool in prompt.tools if choice.mode != "tool" or tool.name == choice.name]
    tools = [tool for tool in tools if told and tool.name.endswith(told)] or tools
    return tools[0] if tools and choice.mode != "none" else None


def _tokens(part: messages.Part) -> int:
    match part:
        case TextPart(text=text) | ToolCall(arguments=text):
            return len(text.split())
        case ToolResult():
            return sum(map(_tokens, part.parts))
    return TOKENS_PER_IMAGE if isinstance(part, _MEDIA) else 0


def said(who: str, heard: str, index: int) -> str:
    """The text of one choice."""
    text = f"{who}: {heard[:QUOTED].strip()}" if heard.strip() else f"{who} nothing."
    return text if index == 0 else f"({index}) {text}"


def of_length(text: str, words: int | None) -> str:
    spoken = text.split() or ["word"]
    return text if words is None else " ".join((spoken * (words // len(spoken) + 1))[:words])


def stopped(text: str, stops: Sequence[str]) -> tuple[str, str]:
    """The text before a stop sequence, and the stop sequence."""
    stop = ""
    for each in stops:
        before, found, _ = text.partition(each)
        text, stop = before, found or stop
    return text.rstrip(), stop


def spaced_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def fitting(schema: Any, root: Any, depth: int = 0) -> Any:
    """A small document that fits a JSON schema's types, const, enum, $ref, first branch and required properties."""
    if not isinstance(schema, dict) or depth > MOST_DEPTH:
        return None
    if "$ref" in schema:
        at = root
        for step in str(schema["$ref"]).split("/")[1:]:
            at = at.get(step) if isinstance(at, dict) else None
        return fitting(at, root, depth)
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if isinstance(branches, list):
        return fitting(branches[0], root, depth)
    if values := [schema["const"]] if "const" in schema else schema.get("enum"):
        return values[0] if isinstance(values, list) else None
    properties, kind = schema.get("properties"), schema.get("type")
    properties = properties if isinstance(properties, dict) else {}
    match kind[0] if isinstance(kind, list) and kind else kind or ("object" if properties else "string"):
        case "object":
            wanted = schema.get("required", None if depth else [*properties])
            names = filter(lambda name: isinstance(name, str), wanted if isinstance(wanted, list) else ())
            return {name: fitting(properties.get(name), root, depth + 1) for name in names}
        case "array":
            return [fitting(schema.get("items"), root, depth + 1)] if depth < MOST_DEPTH else []
        case other:
            return {"string": "stub", "integer": 1, "number": 1, "boolean": True}.get(str(other))

"""Anthropic's demands on a request of valid shape: order, pairs, thinking, schemas, and the fields each model accepts.

Sources: https://platform.claude.com/docs/en/api/messages/create, .../build-with-claude/extended-thinking,
.../build-with-claude/prompt-caching, .../api/migration-2026-10-21, and the migration guides of the models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.doubles.answers import Json, Refused
from tests.doubles.anthropic_schema import check_schema
from tests.doubles.seals import unseal
from tests.doubles.shapes import Wrong

MAX_MARKS = 4
_TYPES = {"object": "dictionary", "array": "list"}
_THOUGHTS = ("thinking", "redacted_thinking")
_GENERATION = re.compile(r"claude-(?:[a-z]+-)*(\d)(?:[-.](\d{1,2})(?!\d))?")


class Run(NamedTuple):
    """Neighbouring messages of one role. `at` is the index of the first."""

    at: int
    role: str
    content: list[Json]


def check(body: Json, model: str, *, new: bool = False) -> None:
    """Refuse the requests that the API would refuse."""
    _check_texts(body)
    runs = _runs(body["messages"])
    _check_order(runs)
    _check_pairs(runs)
    _check_seals(body["messages"])
    _check_tools(body)
    _check_thinking(body, runs)
    _check_marks(body)
    if new:
        _check_new(body["messages"])
    _check_model(body, _generation(model))
    wanted = (body.get("output_config") or {}).get("format")
    if wanted:
        check_schema(wanted["schema"], "output_config.format.schema")


def worded(wrong: Wrong) -> str:
    match wrong.problem:
        case "missing":
            sentence = "Field required"
        case "unknown":
            sentence = "Extra inputs are not permitted"
        case "type":
            sentence = f"Input should be a valid {_TYPES.get(wrong.expected, wrong.expected)}"
        case _:
            sentence = wrong.expected
    return f"{wrong.at()}: {sentence}"


def blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


# --- the conversation


def _check_texts(body: Json) -> None:
    """Refuse empty and blank texts."""
    system = body.get("system") or []
    held = [("system", [] if isinstance(system, str) else system)]
    held += [("messages", blocks(message["content"])) for message in body["messages"] if message["content"]]
    for where, content in held:
        for block in _nested(content):
            if block["type"] == "text":
                _check_text(block, where)
    for index, each in enumerate(body.get("stop_sequences") or []):
        if not each.strip():
            raise Refused(400, f"stop_sequences.{index}: each stop sequence must contain non-whitespace")


def _check_text(block: Json, where: str) -> None:
    if not block["text"] and block.get("cache_control"):
        raise Refused(400, f"{where}: cache_control cannot be set for empty text blocks")
    if not block["text"]:
        raise Refused(400, f"{where}: text content blocks must be non-empty")
    if not block["text"].strip():
        raise Refused(400, f"{where}: text content blocks must contain non-whitespace text")


def _nested(content: list[Json]) -> Iterator[Json]:
    for block in content:
        yield block
        if block["type"] == "tool_result" and isinstance(block.get("content"), list):
            yield from block["content"]


def _runs(messages: list[Json]) -> list[Run]:
    """The turns: neighbouring messages of one role are one. System messages between them are turns of their own."""
    runs: list[Run] = []
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        content = blocks(message["content"]) if message["content"] else []
        if runs and runs[-1].role == message["role"]:
            runs[-1].content.extend(content)
        else:
            runs.append(Run(index, message["role"], [*content]))
    return runs


def _check_order(runs: list[Run]) -> None:
    if not runs:
        raise Refused(400, "messages: at least one message is required")
    if runs[0].role != "user":
        raise Refused(400, 'messages: first message must use the "user" role')
    for run in runs:
        continued = run is runs[-1] and run.role == "assistant"
        if not run.content and not continued:
            optional = "all messages must have non-empty content except for the optional final assistant message"
            raise Refused(400, f"messages.{run.at}: {optional}")
        misplaced = ("tool_use", *_THOUGHTS) if run.role == "user" else ("tool_result",)
        for at, block in enumerate(run.content):
            if block["type"] in misplaced:
                message = f"`{block['type']}` blocks cannot be in `{run.role}` messages"
                raise Refused(400, f"messages.{run.at}.content.{at}: {message}")
        end = run.content[-1].get("text", "") if run.content else ""
        if continued and end != end.rstrip():
            raise Refused(400, "messages: final assistant content cannot end with trailing whitespace")


def _check_pairs(runs: list[Run]) -> None:
    """Every call is followed at once by exactly one result, and results come before other content."""
    known: set[str] = set()
    called: list[str] = []
    for run in runs:
        _check_results(run, called)
        called = [block["id"] for block in run.content if block["type"] == "tool_use"]
        if len({*called}) != len(called) or known & {*called}:
            raise Refused(400, f"messages.{run.at}: `tool_use` ids must be unique")
        known |= {*called}
    if called:
        _check_results(Run(runs[-1].at + 1, "user", []), called)


def _check_results(run: Run, called: list[str]) -> None:
    results = [block["tool_use_id"] for block in run.content if block["type"] == "tool_result"]
    first = next((at for at, block in enumerate(run.content) if block["type"] != "tool_result"), len(run.content))
    missing = [each for each in called if each not in results[:first]]
    if missing:
        pair = "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
        message = "`tool_use` ids were found without `tool_result` blocks immediately after: " + ", ".join(missing)
        raise Refused(400, f"messages.{run.at - 1}: {message}. {pair}")
    for at, each in enumerate(results):
        where = f"messages.{run.at}.content.{at}"
        if each not in called:
            pair = "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            raise Refused(400, f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {each}. {pair}")
        if each in results[:at]:
            message = "each tool_use must have a single result. Found multiple `tool_result` blocks with id: "
            raise Refused(400, f"{where}: {message}{each}")


def _check_seals(messages: list[Json]) -> None:
    """Thinking must come back unchanged."""
    for index, message in enumerate(messages):
        for at, block in enumerate(blocks(message["content"])):
            where = f"messages.{index}.content.{at}"
            if block["type"] == "thinking":
                thought = unseal("anthropic", block["signature"])
                if thought is None or block["thinking"] not in ("", thought):
                    raise Refused(400, f"{where}: Invalid `signature` in `thinking` block")
            if block["type"] == "redacted_thinking" and unseal("anthropic", block["data"]) is None:
                raise Refused(400, f"{where}: Invalid `data` in `redacted_thinking` block")


# --- tools, thinking, cache marks


def _check_tools(body: Json) -> None:
    tools = body.get("tools") or []
    names = [tool["name"] for tool in tools]
    if len({*names}) != len(names):
        raise Refused(400, "tools: Tool names must be unique.")
    choice = body.get("tool_choice")
    if choice and not tools:
        raise Refused(400, "tool_choice: tools must be provided when tool_choice is given")
    if choice and choice["type"] == "tool" and choice["name"] not in names:
        raise Refused(400, f"Tool '{choice['name']}' not found in provided tools")
    for index, tool in enumerate(tools):
        schema = tool.get("input_schema") or {}
        where = f"tools.{index}.custom.input_schema"
        if {"oneOf", "allOf", "anyOf"} & {*schema}:
            raise Refused(400, f"{where}: input_schema does not support oneOf, allOf, or anyOf at the top level")
        if tool.get("strict"):
            check_schema(schema, where)


def _check_thinking(body: Json, runs: list[Run]) -> None:
    thinking = body.get("thinking") or {}
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive"):
        return
    if kind == "enabled" and "max_tokens" in body and thinking["budget_tokens"] >= body["max_tokens"]:
        raise Refused(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    if body.get("temperature", 1) != 1:
        raise Refused(400, "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if body.get("top_p", 1) < 0.95:
        raise Refused(400, "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")
    if "top_k" in body:
        raise Refused(400, "`top_k` must be unset when thinking is enabled or in adaptive mode.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise Refused(400, "Thinking may not be enabled when tool_choice forces tool use.")
    if runs[-1].role == "assistant":
        raise Refused(400, "messages: a final `assistant` message cannot be continued when thinking is enabled.")
    last = next((run for run in reversed(runs) if run.role == "assistant"), None)
    in_loop = any(block["type"] == "tool_result" for block in runs[-1].content)
    found = last.content[0]["type"] if last else "thinking"
    if kind == "enabled" and in_loop and found not in _THOUGHTS:
        message = f"content.0.type: Expected `thinking` or `redacted_thinking`, but found `{found}`."
        message += " When `thinking` is enabled, a final `assistant` message must start with a thinking block."
        raise Refused(400, f"messages.{last.at if last else 0}.{message}")


def _check_marks(body: Json) -> None:
    system = body.get("system") or []
    held: list[Any] = [*body.get("tools", []), *([] if isinstance(system, str) else system), body]
    for message in body["messages"]:
        held += _nested(blocks(message["content"]))
    count = sum(bool(each.get("cache_control")) for each in held)
    if count > MAX_MARKS:
        raise Refused(400, f"A maximum of {MAX_MARKS} blocks with cache_control may be provided. Found {count}.")


def _check_new(messages: list[Json]) -> None:
    """Refuse the fields that version 2026-10-21 no longer accepts."""
    for index, message in enumerate(messages):
        for at, block in enumerate(blocks(message["content"])):
            where = f"messages.{index}.content.{at}"
            if message["role"] == "assistant" and block["type"] == "document":
                raise Refused(400, f"{where}: `document` blocks cannot be in `assistant` messages")
            held = block["content"] if block["type"] == "search_result" else [block]
            if message["role"] == "user" and any(each.get("citations") for each in held if each["type"] == "text"):
                raise Refused(400, f"{where}.citations: citations are not permitted in `user` messages")


# --- models


def _generation(model: str) -> tuple[int, int] | None:
    """(4, 5) for claude-sonnet-4-5. None for unknown names, for which every field is accepted."""
    match = _GENERATION.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _check_model(body: Json, generation: tuple[int, int] | None) -> None:
    if generation is None:
        return
    kind = (body.get("thinking") or {}).get("type")
    config = body.get("output_config") or {}
    if generation >= (4, 7):
        sampling = [name for name in ("temperature", "top_p", "top_k") if name in body]
        if sampling and (sampling != ["temperature"] or body["temperature"] != 1):
            raise Refused(400, f"`{sampling[0]}` is deprecated for this model.")
        if kind == "enabled":
            raise Refused(400, '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".')
    elif generation >= (4, 1) and "temperature" in body and "top_p" in body:
        raise Refused(400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if generation < (4, 6) and kind == "adaptive":
        raise Refused(400, "adaptive thinking is not supported on this model")
    if generation < (3, 7) and kind == "enabled":
        raise Refused(400, "thinking is not supported on this model")
    if generation < (4, 5) and config.get("effort"):
        raise Refused(400, "This model does not support the effort parameter.")
    if generation < (4, 1) and config.get("format"):
        raise Refused(400, "This model does not support output format.")
    last = body["messages"][-1]
    if generation >= (4, 6) and last["role"] == "assistant":
        message = "This model does not support assistant message prefill."
        raise Refused(400, f"{message} The conversation must end with a user message.")

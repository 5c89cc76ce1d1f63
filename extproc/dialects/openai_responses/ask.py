"""The gateway's reading of a request.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create

Content on OpenAI's servers is "state": earlier responses, conversations, stored prompts and items, compacted history,
answers in the background. Tools that the provider runs itself are "hosted_tools", and so are the items they leave in
the input. Other APIs have neither. Their tokens are unknown before the provider has read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, _safety, read_flag, read_integer, read_model
from extproc.dialects._conversation import count, effort_of, first_instructions, inner, last_said, pieces
from extproc.dialects._effort import asked
from extproc.dialects._safety import read_safety
from extproc.dialects.openai_responses.shapes import is_ours
from extproc.words.dialect import SAFETY, Ask, Conversation, Fields, Text, strings
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.objects import Objects

_STORED = ("previous_response_id", "conversation", "prompt")

FIELDS = Fields(
    model="model",
    fixed=("model", "input", "stream"),
    output_limits=("max_output_tokens",),
    needs={
        **dict.fromkeys(("images", "files", "audio"), ("input",)),
        "tools": ("tools", "input"),
        "json_schema": ("text",),
        "logprobs": ("include", "top_logprobs"),
        "state": (*_STORED, "background", "input"),
        "hosted_tools": ("tools", "tool_choice", "input"),
        "hosted_call": ("tool_choice",),
        SAFETY: _safety.FIELDS,
    },
    spoken=frozenset(("input", "instructions")),
    files=frozenset(("data", "file_data")),
    opaque=frozenset(("data", "file_data", "result", "encrypted_content")),
    options=("service_tier",),
    also=("reasoning",),
    inside=frozenset(
        (
            *("role", "content", "type", "text", "name", "id", "call_id", "arguments", "input", "output", "summary"),
            *("image_url", "file_data", "file_id", "file_url", "data", "tools", "effort", "format"),
        )
    ),
    data=frozenset(("parameters", "schema", "metadata", "variables", "headers", "action", "actions", "operation")),
)

LOGPROBS = "message.output_text.logprobs"
"""The value of `include` that asks for the probabilities of tokens."""

_TRANSLATABLE = frozenset(
    (
        *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("reasoning", "additional_tools"),
    )
)
_OURS = ("function", "custom", "namespace")  # tools that the client runs, and groups of them
_STATE = frozenset(("item_reference", "compaction", "compaction_trigger", "configuration_update"))
_TEXTS = frozenset(("input_text", "output_text", "refusal", "summary_text", "reasoning_text", "text"))
_HOLD_TEXT = ("text", "content", "output")  # fields of items and parts
_RESULTS = ("function_call_output", "custom_tool_call_output")


def read(body: Mapping[str, Any]) -> Ask:
    """The gateway's reading of `body`. Raises Refusal (400) when a field the gateway relies on has the wrong shape."""
    ask = Ask(model=read_model(body), stream=read_flag(body, "stream"))
    ask.output_field = "max_output_tokens"
    ask.max_output_tokens = read_integer(body, "max_output_tokens", 1, MAX_TOKENS)
    needs = ask.needs
    for name in _STORED:
        if body.get(name) is not None:
            needs.setdefault("state", name)
            ask.add_unseen(name)
    _read_input(body.get("input"), ask)
    read_safety(body, ask)
    if read_flag(body, "background"):
        needs.setdefault("state", "background")
        ask.lasting = True
    _read_tools(body.get("tools"), "tools", ask)
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") not in (*_OURS, "allowed_tools"):
        ask.add_hosted(choice.get("type"), "tool_choice")
        needs["hosted_call"] = "tool_choice"
    ask.thinking = thinking(body)
    settings = body.get("text")
    answer_format = settings.get("format") if isinstance(settings, dict) else None
    if isinstance(answer_format, dict) and answer_format.get("type") == "json_schema":
        needs["json_schema"] = "text"
        ask.added_tokens = ADDED_TOKENS
    include = body.get("include")
    if isinstance(include, list) and LOGPROBS in include:
        needs["logprobs"] = "include"
    elif read_integer(body, "top_logprobs", 0, 20):
        needs["logprobs"] = "top_logprobs"
    return ask


def thinking(body: Mapping[str, Any]) -> int:
    """See `Dialect.thinking`."""
    return asked(inner(body, "reasoning", "effort"))


def conversation(body: Mapping[str, Any]) -> Conversation:
    """See `Dialect.conversation`."""
    items, system, settings = body.get("input"), body.get("instructions"), body.get("text")
    last, result = last_said(items, _HOLD_TEXT, _is_result)
    shape = inner(settings, "format", "type") if isinstance(settings, dict) else None
    return Conversation(
        asked=last,
        turns=count(items),
        result=result,
        system=pieces(first_instructions(items) if system is None else system, _HOLD_TEXT),
        tools=count(body.get("tools")),
        shaped=shape in ("json_schema", "json_object") or inner(body, "tool_choice", "type") == "function",
        effort=effort_of(inner(body, "reasoning", "effort")),
    )


def _is_result(item: Mapping[str, Any]) -> bool:
    return item.get("type") in _RESULTS


def texts(body: Mapping[str, Any]) -> Iterator[Text]:
    for key, value in body.items():
        if key == "model":
            continue
        role = "system" if key == "instructions" else "user" if key == "input" else "request"
        if isinstance(value, str):
            yield Text(role, key, body, key)
        elif key == "input" and isinstance(value, list):
            for index, item in enumerate(value):
                yield from strings(item, _role(item), f"input[{index}]")
        else:
            yield from strings(value, role, key)


def _role(item: Any) -> str:
    """The speaker of an item: its role, else the speaker of its kind."""
    if not isinstance(item, dict):
        return ""
    role, kind = item.get("role"), item.get("type")
    if isinstance(role, str):
        return role
    if not isinstance(kind, str):
        return ""
    return "tool" if kind.endswith("_output") else "assistant"


def _read_input(items: Any, ask: Ask) -> None:
    if isinstance(items, str) or (items is None and "state" in ask.needs):
        return
    if not isinstance(items, list) or not (items or "state" in ask.needs):
        raise Refusal(INVALID_REQUEST, "'input' must be a text or a list with at least one item.", param="input")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            where = f"input[{index}]"
            raise Refusal(INVALID_REQUEST, f"'{where}' must be an object.", param=where)
        type = item.get("type")
        if is_reference(item):
            type = "item_reference"
        if type in ("image_generation_call", "additional_tools"):
            if type == "additional_tools":
                _read_tools(item.get("tools"), "input", ask)
            elif isinstance(item.get("result"), str):
                _media.add_image_data(ask, item["result"])
                ask.needs["images"] = "input"
            else:
                ask.add_hosted(type, "input")
                ask.add_unseen(type)
        elif isinstance(type, str) and type not in _TRANSLATABLE:
            if type == "item_reference" and is_resolved(item, items):
                continue
            if type in _STATE:
                ask.needs.setdefault("state", "input")
                ask.add_unseen(type, "input")
            else:
                ask.add_hosted(type, "input")
        elif type == "reasoning" and _is_kept(item):
            ask.add_unseen(type)
        for parts in (item.get("content"), item.get("output")):
            if isinstance(parts, list):
                _read_parts(parts, ask)


def _is_kept(reasoning: Mapping[str, Any]) -> bool:
    """Whether OpenAI keeps the thinking of an item."""
    id = reasoning.get("id")
    return bool(id) and not (reasoning.get("encrypted_content") or reasoning.get("content") or is_ours(id))


def is_resolved(reference: Mapping[str, Any], items: list[Any]) -> bool:
    """True where the item that a reference names is in the request."""
    id = reference.get("id")
    named = (item for item in items if isinstance(item, dict) and item is not reference)
    return any(item.get("id") == id and item.get("type") not in ("item_reference", None) for item in named)


def refers(item: Mapping[str, Any], resolved: bool) -> bool:
    """See `Objects.refers`. Calls, results and messages are whole, and their ids mere echoes."""
    type = item.get("type")
    if is_reference(item):
        return not resolved
    if type == "image_generation_call":
        return not isinstance(item.get("result"), str)
    return type == "reasoning" and _is_kept(item)


def is_reference(item: Mapping[str, Any]) -> bool:
    """True for an item that only names another one, by its id."""
    return item.get("type") == "item_reference" or (item.get("type") is None and "role" not in item and "id" in item)


OBJECTS = Objects(
    at={
        "conversation": "conversation",
        "conversation.id": "conversation",
        "prompt.id": "prompt",
        "tools.container": "container",
        "input.tools.container": "container",
    },
    items="input",
    refers=refers,
    ours=is_ours,
)


def _read_parts(parts: list[Any], ask: Ask) -> None:
    for part in parts:
        if not isinstance(part, dict):
            continue
        type = part.get("type")
        if type == "input_image":
            ask.needs["images"] = "input"
            _media.add_image(ask, part.get("image_url"), type)
            ask.add_url(part.get("image_url"), "input")
        elif type == "input_file":
            ask.needs["files"] = "input"
            data = part.get("file_data")
            ask.add_url(part.get("file_url"), "input")
            if part.get("file_id") or part.get("file_url") or not (isinstance(data, str) and _media.is_text(data)):
                ask.add_unseen(type)
                ask.packed(data)
        elif type == "input_audio":
            ask.needs["audio"] = "input"
            audio = part.get("input_audio")
            data = audio.get("data") if isinstance(audio, dict) else None
            ask.packed(data)
            if not (isinstance(data, str) and _media.is_audio_of_its_size(data)):
                ask.add_unseen(type)
        elif not (isinstance(type, str) and type in _TEXTS):
            ask.add_unseen(type, "input")


def _read_tools(tools: Any, field: str, ask: Ask) -> None:
    for tool in tools if isinstance(tools, list) else ():
        type = tool.get("type") if isinstance(tool, dict) else None
        ask.added_tokens = ADDED_TOKENS
        if type in _OURS:
            ask.needs.setdefault("tools", field)
        else:
            ask.add_hosted(type, field)


def without_hosted(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """See `Dialect.without_hosted`."""
    dropped: dict[str, None] = {}

    def kept(tools: Any, field: str) -> Any:
        if not isinstance(tools, list):
            return tools
        found = [tool for tool in tools if not isinstance(tool, dict) or tool.get("type") in _OURS]
        names = (tool.get("type") for tool in tools if isinstance(tool, dict) and tool.get("type") not in _OURS)
        dropped.update(dict.fromkeys(f"{field}.{name}" for name in names))
        return found

    made = {name: kept(value, name) if name == "tools" else value for name, value in body.items()}
    if made.get("tools") == []:
        del made["tools"]
    items = body.get("input")
    if isinstance(items, list):
        made["input"] = rest = []
        for item in items:
            type = item.get("type") if isinstance(item, dict) else None
            if type == "additional_tools":
                rest.append({**item, "tools": kept(item.get("tools"), "tools")})
            elif isinstance(type, str) and _is_hosted(type, item):
                dropped[f"input.{type}"] = None
            else:
                rest.append(item)
    return made, list(dropped)


def _is_hosted(type: str, item: Mapping[str, Any]) -> bool:
    if type == "image_generation_call":
        return not isinstance(item.get("result"), str)
    return type not in _TRANSLATABLE and type not in _STATE

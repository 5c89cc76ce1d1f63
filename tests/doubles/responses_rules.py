"""The demands of OpenAI's Responses on a request of valid shape: calls and results, reasoning, schemas, models.

Sources: https://platform.openai.com/docs/api-reference/responses/create, .../docs/guides/reasoning,
.../docs/guides/structured-outputs; the errors as they are reported from the API.
"""

from __future__ import annotations

import re
from typing import Any

from tests.doubles import openai_schema
from tests.doubles.answers import Json, Refused
from tests.doubles.efforts import check_effort
from tests.doubles.responses_stored import keeps
from tests.doubles.seals import unseal

MOST_METADATA = 16
_CALLS = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NEVER_REASONS = re.compile(r"(gpt-3|gpt-4|chatgpt-|gpt-5(\.\d)?-chat)")
_ALWAYS_REASONS = re.compile(r"(o[134](-|$)|gpt-5(-mini|-nano|-pro|-codex|-\d{4}|$))")


def check(body: Json, name: str) -> None:
    """Refuse the requests that the API of the double `name` would refuse."""
    _check_input(body, name)
    items = items_of(body)
    for index, item in enumerate(items):
        _check_item(item, index, stored=body.get("store") is not False)
    _check_calls(items)
    _check_groups(body, items)
    _check_reasoning(items)
    _check_tools(body)
    _check_format(body, items)
    _check_model(body, body["model"].partition("+")[0])
    if len(body.get("metadata") or ()) > MOST_METADATA:
        message = f"Expected an object with at most {MOST_METADATA} properties."
        raise _invalid(f"Invalid 'metadata': too many properties. {message}", "metadata", "object_above_max_properties")


def items_of(body: Json) -> list[Json]:
    given = body.get("input") or []
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given


def flat(body: Json) -> list[Json]:
    """Tools, those of groups with their group's name as `namespace`."""
    tools: list[Json] = []
    for tool in body.get("tools") or ():
        grouped = tool["type"] == "namespace"
        tools += [inner | {"namespace": tool["name"]} for inner in tool["tools"]] if grouped else [tool]
    return tools


def type_of(item: Json) -> str:
    return item.get("type") or "message"


def parts_of(item: Json) -> list[Json]:
    """The parts of a message or a result. A text is one part."""
    content = item["content"] if type_of(item) == "message" else item["output"] if type_of(item) in _CALLS else []
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


def _invalid(message: str, param: str | None, code: str | None = "invalid_value") -> Refused:
    return Refused(400, message, param=param, code=code)


# --- the input


def _check_input(body: Json, name: str) -> None:
    previous = body.get("previous_response_id")
    if previous and not keeps(name, previous):
        message = f"Previous response with id '{previous}' not found."
        raise _invalid(message, "previous_response_id", "previous_response_not_found")
    for field in ("conversation", "prompt"):
        if body.get(field):
            raise _invalid(f"'{field}' needs what this mock does not keep.", field, "unsupported_parameter")
    if not body.get("input") and not previous:
        either = "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided."
        raise _invalid(either, "input", "missing_required_parameter")


def _check_item(item: Json, index: int, *, stored: bool) -> None:
    kind, where = type_of(item), f"input[{index}]"
    if kind == "item_reference":
        raise _not_found(item["id"], stored=stored)
    if kind not in (*_PREFIXES, *_CALLS):
        return  # hosted tools, with any fields
    id = item.get("id")
    if id is not None and not _ID.fullmatch(id):
        message = "Expected an ID that contains letters, numbers, underscores, or dashes"
        message += ", but this value contained additional characters."
        raise _invalid(f"Invalid '{where}.id': '{id}'. {message}", f"{where}.id")
    prefix = _PREFIXES.get(kind)
    if id is not None and prefix and not id.startswith(prefix):
        message = f"Expected an ID that begins with '{prefix}'."
        raise _invalid(f"Invalid '{where}.id': '{id}'. {message}", f"{where}.id")
    if kind == "reasoning":
        _check_sealed(item, stored=stored)
    name = "output" if kind in _CALLS else "content"
    for at, part in enumerate(parts_of(item)):
        _check_part(part, f"{where}.{name}[{at}]")


def _check_sealed(item: Json, *, stored: bool) -> None:
    sealed = item.get("encrypted_content")
    if not sealed:
        if item.get("id") is None or not stored:
            raise _not_found(item.get("id"), stored=stored)
        return
    if unseal("openai", sealed) is None:
        reason = "could not be verified. Reason: Encrypted content could not be decrypted or parsed."
        raise _invalid(
            f"The encrypted content {sealed[:4]}...{sealed[-4:]} {reason}", None, "invalid_encrypted_content"
        )


def _not_found(id: Any, *, stored: bool) -> Refused:
    persisted = "" if stored else " Items are not persisted when `store` is set to false. Try again with `store` set to"
    more = f"{persisted} true, or remove this item from your input." if persisted else ""
    return Refused(404, f"Item with id '{id}' not found.{more}", param="input")


def _check_part(part: Json, where: str) -> None:
    match part["type"]:
        case "input_image":
            wanted = ["image_url", "file_id"]
        case "input_file":
            wanted = ["file_data", "file_id", "file_url"]
        case _:
            return
    given = [name for name in wanted if part.get(name)]
    if len(given) != 1:
        problem = "Missing required parameter" if not given else "Mutually exclusive parameters"
        raise _invalid(f"{problem}: '{where}.{wanted[0]}'.", f"{where}.{wanted[0]}", "missing_required_parameter")
    if given == ["file_data"] and not part.get("filename"):
        name = f"{where}.filename"
        raise _invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def _check_calls(items: list[Json]) -> None:
    """Every result follows its call, and none is missing."""
    open: dict[tuple[str, str], None] = {}
    for item in items:
        kind = type_of(item)
        if kind in _CALLS.values():
            open[kind, item["call_id"]] = None
        elif kind in _CALLS:
            called = _CALLS[kind], item["call_id"]
            if called not in open:
                what = kind.replace("_", " ")
                raise _invalid(f"No tool call found for {what} with call_id {item['call_id']}.", "input", None)
    results = {(_CALLS[type_of(item)], item["call_id"]) for item in items if type_of(item) in _CALLS}
    for kind, id in open:
        if (kind, id) not in results:
            raise _invalid(f"No tool output found for {kind.replace('_', ' ')} {id}.", "input", None)


def _check_groups(body: Json, items: list[Json]) -> None:
    """A call of a group's tool names the group: https://github.com/vercel/ai/pull/15193 has the words."""
    groups = {tool["name"] for tool in flat(body) if "namespace" in tool}
    for index, item in enumerate(items):
        if type_of(item) in _CALLS.values() and item["name"] in groups and not item.get("namespace"):
            message = f"Missing namespace for function_call '{item['name']}'. It does not exist in the default "
            message += "namespace. Round-trip the model's function_call item with its namespace field included."
            raise _invalid(message, f"input[{index}].namespace")


def _check_reasoning(items: list[Json]) -> None:
    """Reasoning comes back with the item it led to."""
    for index, item in enumerate(items):
        if type_of(item) != "reasoning":
            continue
        later = next((each for each in items[index + 1 :] if type_of(each) != "reasoning"), None)
        kind = type_of(later) if later else ""
        if later is None or (kind == "message" and later["role"] != "assistant") or kind in _CALLS:
            what = (
                f"Item '{item.get('id') or ''}' of type 'reasoning' was provided without its required following item."
            )
            raise _invalid(what, "input", None)


# --- tools and formats


def _check_tools(body: Json) -> None:
    tools = body.get("tools") or []
    for index, tool in enumerate(flat(body)):
        if tool["type"] == "function" and tool.get("strict"):
            wrong = openai_schema.problem(tool.get("parameters"))
            if wrong:
                message = f"Invalid schema for function '{tool['name']}': {wrong}"
                raise _invalid(message, f"tools[{index}].parameters", "invalid_function_parameters")
    named = {_named(tool) for tool in tools}
    choice = body.get("tool_choice", "auto")
    if choice == "required" and not tools:
        raise _invalid("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
    if isinstance(choice, dict):
        chosen = choice["tools"] if choice["type"] == "allowed_tools" else [choice]
        for each in chosen:
            if _named(each) not in named:
                message = f"Tool choice '{each.get('type')}' not found in 'tools' parameter."
                raise _invalid(message, "tool_choice")


def _named(tool: Json) -> tuple[str, str]:
    """The names of tools. Hosted tools have none."""
    kind = str(tool.get("type"))
    return kind, str(tool.get("name")) if kind in ("function", "custom") else ""


def _check_format(body: Json, items: list[Json]) -> None:
    wanted = body.get("text", {}).get("format") or {"type": "text"}
    if wanted["type"] == "json_schema" and wanted.get("strict"):
        wrong = openai_schema.problem(wanted["schema"])
        if wrong:
            message = f"Invalid schema for response_format '{wanted['name']}': {wrong}"
            raise _invalid(message, "text.format.schema", "invalid_json_schema")
    if wanted["type"] == "json_object" and not any(
        "json" in (part.get("text") or "").lower() for item in items for part in parts_of(item)
    ):
        message = "Response input messages must contain the word 'json' in some form to use 'text.format' of type"
        raise _invalid(f"{message} 'json_object'.", "input", None)


# --- models


def _check_model(body: Json, model: str) -> None:
    """Refuse fields that the model does not accept. Unknown models accept every field."""
    reasoning = body.get("reasoning") or {}
    check_effort(model, reasoning.get("effort"), "reasoning.effort")
    if _NEVER_REASONS.match(model):
        for name in ("effort", "summary"):
            if reasoning.get(name) not in (None, "none"):
                raise _unsupported(f"reasoning.{name}")
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            raise _invalid("Encrypted content is not supported with this model.", "include", None)
    if _ALWAYS_REASONS.match(model):
        for name in ("temperature", "top_p", "top_logprobs"):
            if body.get(name) is not None and body[name] != 1:
                raise _unsupported(name)


def _unsupported(name: str) -> Refused:
    return _invalid(f"Unsupported parameter: '{name}' is not supported with this model.", name, "unsupported_parameter")

"""Cohere's demands on a request of valid shape: turns, tools and their results, schemas, bounds.

Sources: https://docs.cohere.com/reference/chat, .../reference/errors, https://docs.cohere.com/docs/structured-outputs,
.../docs/tool-use-overview; the errors as they are reported from the API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.doubles.answers import Json, Refused

MOST_STOPS = 5
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 1.0),
    "p": (0.01, 0.99),
    "k": (0, 500),
    "frequency_penalty": (0, 1),
    "presence_penalty": (0, 1),
    "priority": (0, 999),
}
_TYPED = ("type", "enum", "const", "anyOf", "$ref")  # a property needs one of these


def check(body: Json) -> None:
    """Refuse the requests that the API would refuse."""
    _check_settings(body)
    _check_turns(body["messages"])
    _check_results(body["messages"])
    _check_tools(body)
    _check_format(body)


def _wrong(message: str) -> Refused:
    return Refused(400, f"invalid request: {message}")


def _check_settings(body: Json) -> None:
    for name, (least, most) in _BOUNDS.items():
        if body.get(name) is not None and not least <= body[name] <= most:
            raise _wrong(f"{name} must be between {least} and {most} inclusive.")
    if (body.get("max_tokens") or 0) < 0:
        raise _wrong("max_tokens cannot be less than 0.")
    stops = len(body.get("stop_sequences") or ())
    if stops > MOST_STOPS:
        raise _wrong(f"too many stop sequences provided, maximum is {MOST_STOPS}, received {stops}.")
    if body.get("frequency_penalty") and body.get("presence_penalty"):
        raise _wrong("cannot specify both frequency_penalty and presence_penalty.")
    budget = (body.get("thinking") or {}).get("token_budget")
    if budget is not None and budget < 1:
        raise _wrong("thinking token_budget must be a positive integer.")
    mode = body.get("safety_mode")
    if mode not in (None, "CONTEXTUAL", "STRICT", "OFF"):
        usage = "For proper usage, please refer to https://docs.cohere.com/reference/chat"
        raise Refused(400, f"unrecognized safety mode '{mode}'. {usage}")


# --- the conversation


def _check_turns(messages: list[Json]) -> None:
    for index, message in enumerate(messages):
        if message["role"] == "system" and index:
            raise Refused(400, "system turn must be the first in the list")
        if message["role"] != "tool" and not message.get("tool_calls") and not _is_said(message.get("content")):
            raise Refused(400, "message must not be empty in a turn")
        content = message.get("content")
        texts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
        if message["role"] == "assistant" and message.get("tool_calls") and any(texts):
            sentence = "text content is not allowed when tool_calls are provided. If you wish to pass a tool plan, "
            sentence += "either pass thinking content (with thinking enabled) or use 'tool_plan'"
            at = next(at for at, text in enumerate(texts) if text)
            raise Refused(400, f"{sentence}: 'messages[{index}].content[{at}]'.")
    if not any(message["role"] != "system" for message in messages):
        raise _wrong("message must be at least 1 token long or tool results must be specified.")


def _is_said(content: str | list[Json] | None) -> bool:
    if isinstance(content, str):
        return bool(content)
    return any(part.get("text") or part["type"] == "image_url" for part in content or ())


def _check_results(messages: list[Json]) -> None:
    """Calls are followed at once by their results."""
    known: set[str] = set()
    open: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            found = message.get("tool_call_id")
            if not found:
                raise Refused(400, "tool call id must be provided with tool message")
            if found not in known:
                raise Refused(400, "tool call id not found in previous tool calls")
            open = [each for each in open if each != found]
            continue
        _check_answered(open)
        open = [_called(call) for call in message.get("tool_calls") or ()]
        if len({*open}) != len(open):
            raise Refused(400, "cannot have duplicate tool ids")
        known |= {*open}
    _check_answered(open)


def _called(call: Json) -> str:
    if call["type"] != "function":
        raise Refused(400, "tool call must be of type function")
    try:
        arguments = msgspec.json.decode(call["function"]["arguments"] or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = ""
    if not isinstance(arguments, dict | None):
        raise _wrong("tool call arguments must be a JSON object.")
    return str(call["id"])


def _check_answered(open: list[str]) -> None:
    if open:
        sentence = "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        missing = "The following tool_call_ids did not have response messages: " + ", ".join(open)
        raise _wrong(f"{sentence}'tool_call_id'. {missing}")


# --- tools and schemas


def _check_tools(body: Json) -> None:
    tools = [tool["function"] for tool in body.get("tools") or ()]
    for tool in tools:
        if not _NAME.fullmatch(tool["name"]):
            characters = "can only contain certain characters (A-Za-z0-9_) and can't begin with a digit"
            raise _wrong(f"tool names {characters} (provided name: '{tool['name']}').")
    if len({tool["name"] for tool in tools}) != len(tools):
        raise _wrong("tool names must be unique.")
    if body.get("tool_choice") and not tools:
        raise _wrong("tool_choice can only be specified with tools.")
    if body.get("strict_tools") and not tools:
        raise _wrong("strict_tools can only be specified with tools.")
    for tool in tools if body.get("strict_tools") else ():
        schema = tool["parameters"]
        if schema.get("properties") and not schema.get("required"):
            raise _wrong(f"the '{tool['name']}' tool must have at least one required parameter with strict_tools.")
        _check_schema(schema)


def _check_format(body: Json) -> None:
    wanted = body.get("response_format") or {"type": "text"}
    schema = wanted.get("json_schema") or wanted.get("schema")
    if wanted["type"] == "text":
        return
    if body.get("tools") or body.get("documents"):
        raise _wrong("response_format is not supported with RAG.")
    if schema is not None:
        _check_schema(schema)
        for each in _objects(schema):
            if each.get("properties") and not each.get("required"):
                raise Refused(400, "object must have at least one required field")


def _check_schema(schema: Json) -> None:
    if schema.get("type") != "object" and "$ref" not in schema:
        raise Refused(400, "schema must be an object")
    for each in _objects(schema):
        properties = each.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = each.get("required")
        for name in required if isinstance(required, list) else ():
            if not isinstance(name, str) or name not in properties:
                raise Refused(400, f"required field {name} not found in properties")
        for name, value in properties.items():
            if not isinstance(value, dict) or not any(key in value for key in _TYPED):
                raise Refused(400, f"property {name} must have a type")


def _objects(schema: Any) -> Iterator[Json]:
    """The schemas of objects inside a schema."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        yield schema
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            for each in schema[name].values():
                yield from _objects(each)
    yield from _objects(schema.get("items"))
    for each in schema["anyOf"] if isinstance(schema.get("anyOf"), list) else ():
        yield from _objects(each)

"""The shape of requests to OpenAI's Responses: fields, types, required fields, and the wording of errors.

Sources: https://platform.openai.com/docs/api-reference/responses/create; the official SDK; the errors as they are
reported from the API.
"""

from __future__ import annotations

import re
from typing import Any

from tests.doubles.answers import Refused
from tests.doubles.shapes import (
    Check,
    Path,
    Wrong,
    an_array,
    an_object,
    anything,
    array,
    boolean,
    either,
    integer,
    kind,
    mapping,
    matching,
    number,
    one_of,
    record,
    string,
    tagged,
    text,
)

_TYPES = {"string": "a string", "integer": "an integer", "number": "a decimal", "boolean": "a boolean"}
_TYPES |= {"array": "an array", "object": "an object", "null": "null"}
_MOVED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "functions": "tools",
    "function_call": "tool_choice",
}

_STATUS = one_of("in_progress", "completed", "incomplete")
_NAME = matching(
    lambda name: bool(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name)),
    "string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
)
_CALL_ID = text(1, 64)
_IMAGE_URL = matching(
    lambda url: url.startswith(("https://", "http://", "data:image/")),
    "Expected a valid URL, but got a value with an invalid format.",
)
_FILE_DATA = matching(
    lambda data: data.startswith("data:"),
    "Expected a base64-encoded data URL with an application/pdf MIME type (e.g. 'data:application/pdf;base64,...'), "
    "but got a value without the 'data:' prefix.",
)
_BREAK = {"prompt_cache_breakpoint": an_object}
_GIVEN = {
    "input_text": record({"type!": string, "text!": string} | _BREAK, nulls=True),
    "input_image": record(
        {
            "type!": string,
            "image_url": _IMAGE_URL,
            "file_id": text(),
            "detail": one_of("low", "high", "auto", "original"),
        }
        | _BREAK,
        nulls=True,
    ),
    "input_file": record(
        {
            "type!": string,
            "file_data": _FILE_DATA,
            "file_id": text(),
            "file_url": text(),
            "filename": text(),
            "detail": one_of("low", "high", "auto"),
        }
        | _BREAK,
        nulls=True,
    ),
}
_SAID = {
    "output_text": record(
        {"type!": string, "text!": string, "annotations": an_array, "logprobs": an_array}, nulls=True
    ),
    "refusal": record({"type!": string, "refusal!": string}, nulls=True),
}
_MESSAGE = {"type": string, "role!": string, "id": string, "status": _STATUS, "phase": string}
_MESSAGES = tagged(
    "role",
    {
        role: record(
            _MESSAGE | {"content!": either(("string", string), ("array", array(tagged("type", content))))}, nulls=True
        )
        for role, content in {"user": _GIVEN, "system": _GIVEN, "developer": _GIVEN, "assistant": _SAID}.items()
    },
)
_ITEM = {"type!": string, "id": string, "status": _STATUS}
_OUTPUT = either(("string", string), ("array", array(tagged("type", _GIVEN))))
_CALLER = {"caller": an_object, "namespace": string, "async": boolean}
_HOSTED_ITEMS = (
    "file_search_call",
    "web_search_call",
    "computer_call",
    "computer_call_output",
    "code_interpreter_call",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "tool_search_call",
    "tool_search_output",
    "compaction",
)
_ITEMS = {
    "message": _MESSAGES,
    "reasoning": record(
        _ITEM
        | {
            "summary!": array(tagged("type", {"summary_text": record({"type!": string, "text!": string})})),
            "content": array(tagged("type", {"reasoning_text": record({"type!": string, "text!": string})})),
            "encrypted_content": string,
        },
        nulls=True,
    ),
    "function_call": record(_ITEM | _CALLER | {"call_id!": _CALL_ID, "name!": _NAME, "arguments!": string}, nulls=True),
    "function_call_output": record(
        _ITEM | _CALLER | {"call_id!": _CALL_ID, "output!": _OUTPUT, "name": string}, nulls=True
    ),
    "custom_tool_call": record(_ITEM | _CALLER | {"call_id!": _CALL_ID, "name!": _NAME, "input!": string}, nulls=True),
    "custom_tool_call_output": record(_ITEM | _CALLER | {"call_id!": _CALL_ID, "output!": _OUTPUT}, nulls=True),
    "item_reference": record({"type": string, "id!": text()}, nulls=True),
} | {name: record({}, open=True) for name in _HOSTED_ITEMS}
_TAGGED_ITEM = tagged("type", _ITEMS)


def _item(value: Any, path: Path) -> None:
    """An item of the input. The type of a message is optional."""
    an_object(value, path)
    if value.get("type") is None and "role" in value:
        _MESSAGES(value, path)
    else:
        _TAGGED_ITEM(value, path)


_HOSTED_TOOLS = (
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer",
    "computer_use_preview",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
)
_CUSTOM_FORMAT = tagged(
    "type",
    {
        "text": record({"type!": string}),
        "grammar": record({"type!": string, "syntax!": one_of("lark", "regex"), "definition!": string}),
    },
)
_TOOL = {
    "type!": string,
    "name!": _NAME,
    "description?": string,
    "defer_loading": boolean,
    "allowed_callers?": an_array,
}
_CLIENTS_TOOLS = {
    "function": record(
        _TOOL | {"parameters?": an_object, "strict?": boolean, "output_schema?": an_object, "async": boolean}
    ),
    "custom": record(_TOOL | {"format": _CUSTOM_FORMAT, "async": boolean}),
}
# openai-python/src/openai/types/responses/namespace_tool.py
_NAMESPACE = {"type!": string, "name!": _NAME, "description!": string, "tools!": array(tagged("type", _CLIENTS_TOOLS))}
_TOOLS = tagged(
    "type",
    _CLIENTS_TOOLS | {"namespace": record(_NAMESPACE)} | {name: record({}, open=True) for name in _HOSTED_TOOLS},
)
_CHOICE = tagged(
    "type",
    {
        "function": record({"type!": string, "name!": string}),
        "custom": record({"type!": string, "name!": string}),
        "allowed_tools": record({"type!": string, "mode!": one_of("auto", "required"), "tools!": array(an_object)}),
    }
    | {name: record({}, open=True) for name in _HOSTED_TOOLS},
)
_FORMAT = tagged(
    "type",
    {
        "text": record({"type!": string}),
        "json_object": record({"type!": string}),
        "json_schema": record(
            {"type!": string, "name!": _NAME, "schema!": an_object, "description": string, "strict?": boolean}
        ),
    },
)
_SUMMARY = one_of("auto", "concise", "detailed")
_REASONING = record(
    {
        "effort?": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        "summary?": _SUMMARY,
        "generate_summary?": _SUMMARY,
        "context?": one_of("auto", "current_turn", "all_turns"),
        "mode?": string,
    }
)
_INCLUDE = one_of(
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
CREATE: Check = record(
    {
        "model!": string,
        "input?": either(("string", string), ("array", array(_item))),
        "instructions?": string,
        "stream?": boolean,
        "stream_options?": record({"include_obfuscation": boolean}),
        "max_output_tokens?": integer(16),
        "max_tool_calls?": integer(1),
        "temperature?": number(0, 2),
        "top_p?": number(0, 1),
        "top_logprobs?": integer(0, 20),
        "tools": array(_TOOLS),
        "tool_choice": either(("string", one_of("none", "auto", "required")), ("object", _CHOICE)),
        "parallel_tool_calls?": boolean,
        "text": record({"format": _FORMAT, "verbosity?": one_of("low", "medium", "high")}),
        "reasoning?": _REASONING,
        "include?": array(_INCLUDE),
        "store?": boolean,
        "background?": boolean,
        "previous_response_id?": string,
        "conversation?": anything,
        "prompt?": an_object,
        "metadata?": mapping(text(0, 512)),
        "user": text(0, 64),
        "safety_identifier?": text(0, 64),
        "prompt_cache_key?": string,
        "client_metadata?": an_object,  # of Codex: codex-rs/codex-api/src/common.rs, ResponsesApiRequest
        "prompt_cache_retention?": one_of("in_memory", "24h"),
        "prompt_cache_options": an_object,
        "service_tier?": one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
        "truncation?": one_of("auto", "disabled"),
        "context_management?": an_array,
        "moderation?": an_object,
        "image": an_object,
        "access_programs": an_object,
    }
)


# --- wording of errors


def refusal(wrong: Wrong) -> Refused:
    """The error in the API's words."""
    where = wrong.at(index="[%d]")
    match wrong.problem:
        case "missing":
            return _refused(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        case "unknown" if where in _MOVED:
            moved = f"In the Responses API, this parameter has moved to '{_MOVED[where]}'."
            message = f"Unsupported parameter: '{where}'. {moved} Try again with the new parameter."
            return _refused(message, where, "unsupported_parameter")
        case "unknown":
            return _refused(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
        case "type":
            got = f"expected {_TYPES[wrong.expected]}, but got {_TYPES[kind(wrong.got)]} instead."
            return _refused(f"Invalid type for '{where}': {got}", where, "invalid_type")
        case _:
            return _value(wrong, where)


def _refused(message: str, where: str, code: str) -> Refused:
    return Refused(400, message, param=where, code=code)


def _value(wrong: Wrong, where: str) -> Refused:
    sentence, got = wrong.expected, wrong.got
    if sentence.startswith("Input should be '"):
        return _not_listed(got, re.findall(r"'([^']*)'", sentence), where)
    if sentence.startswith("Input tag"):
        tag, values = sentence.split(" found using ")[0], sentence.split("any of: ")[1]
        return _not_listed(tag.removeprefix("Input tag ").strip("'\""), re.findall(r"'([^']*)'", values), where)
    if sentence.startswith("Input should be"):
        bound = sentence.rpartition(" ")[2]
        least, number_kind = "greater" in sentence, "integer" if kind(got) == "integer" else "decimal"
        side, sign = ("below minimum", ">=") if least else ("above maximum", "<=")
        message = f"{number_kind} {side} value. Expected a value {sign} {bound}, but got {got} instead."
        code = f"{number_kind}_{'below_min' if least else 'above_max'}_value"
        return _refused(f"Invalid '{where}': {message}", where, code)
    if sentence.startswith("String should have at most"):
        most = sentence.split()[5]
        message = f"Expected a string with maximum length {most}, but got a string with length {len(got)} instead."
        return _refused(f"Invalid '{where}': string too long. {message}", where, "string_above_max_length")
    if sentence.startswith("String should have at least"):
        message = "Expected a string with minimum length 1, but got an empty string instead."
        return _refused(f"Invalid '{where}': empty string. {message}", where, "empty_string")
    return _refused(f"Invalid '{where}': {sentence}", where, "invalid_value")


def _not_listed(got: object, values: list[str], where: str) -> Refused:
    quoted = [f"'{value}'" for value in values]
    listed = " and ".join([", ".join(quoted[:-1]) + ("," if len(quoted) > 2 else ""), quoted[-1]]) if quoted[1:] else ""
    message = f"Invalid value: '{got}'. Supported values are: {listed or ''.join(quoted)}."
    return _refused(message, where, "invalid_value")

"""Custom tools, whose input is text and not JSON, as functions of one argument.

Source: https://developers.openai.com/api/docs/guides/function-calling (custom tools)

Other APIs have only functions. The argument's name is reserved: no client's function has it, so a custom tool's call is
recognised by its arguments alone and becomes a `custom_tool_call` again. Other APIs cannot enforce a grammar; the
description has it for the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

ARGUMENT = "custom_tool_input"

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {ARGUMENT: {"type": "string", "description": "The whole input of the tool, as plain text."}},
    "required": [ARGUMENT],
    "additionalProperties": False,
}

_START = f'{{"{ARGUMENT}"'
_read = msgspec.json.Decoder(dict[str, str]).decode
_write = msgspec.json.Encoder().encode
_WHITE = str.maketrans("", "", " \t\r\n")


def describe(description: str, syntax: str, grammar: str) -> str:
    """Description of a tool, with its input's grammar."""
    return f"{description}\n\nThe input must follow this {syntax} grammar:\n{grammar}".strip()


def arguments(input: str) -> str:
    return _write({ARGUMENT: input}).decode()


def input_of(arguments: str) -> str | None:
    """Input of a custom tool; None for a function's arguments."""
    if ARGUMENT not in arguments:
        return None
    try:
        found = _read(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return found[ARGUMENT] if found.keys() == {ARGUMENT} else None


def may_be(begun: str) -> bool:
    """True while a beginning of arguments can be a custom tool's."""
    head = begun[:64].translate(_WHITE)[: len(_START)]
    return _START.startswith(head)

"""Custom tools, whose input is text and not JSON, as functions of one argument.

Source: https://developers.openai.com/api/docs/guides/function-calling (custom tools)

Other APIs have only functions. The argument has a name that no function of a client's has, so a call of one is known by
its arguments alone and becomes a `custom_tool_call` again. A grammar cannot be enforced there; the model is told of it.
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
    """The description of a tool whose input follows a grammar."""
    return f"{description}\n\nThe input must follow this {syntax} grammar:\n{grammar}".strip()


def arguments(input: str) -> str:
    return _write({ARGUMENT: input}).decode()


def input_of(arguments: str) -> str | None:
    """The input of a custom tool; None when these are the arguments of a function."""
    if ARGUMENT not in arguments:
        return None
    try:
        found = _read(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return found[ARGUMENT] if found.keys() == {ARGUMENT} else None


def may_be(begun: str) -> bool:
    """True while arguments that begin like this can still be those of a custom tool."""
    head = begun[:64].translate(_WHITE)[: len(_START)]
    return _START.startswith(head)

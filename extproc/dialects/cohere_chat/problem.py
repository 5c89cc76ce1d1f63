"""Error answers.

Source: https://docs.cohere.com/reference/errors
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects._problems import BY_STATUS, plain_text, type_of
from extproc.dialects.cohere_chat.shapes import UNREADABLE
from extproc.words.messages import Problem

_TYPES = BY_STATUS | {
    402: "insufficient_quota",
    498: "authentication_error",  # a blocked token
    499: "api_error",  # cancelled
}

_decode = msgspec.json.Decoder().decode


def decode(status: int, body: bytes) -> Problem:
    """The content of an error answer; its type is derived from the status."""
    try:
        said: Any = _decode(body)
    except UNREADABLE:
        said = plain_text(body)
    for _ in range(2):  # gateways before the API wrap the message once more
        if isinstance(said, dict):
            said = next((said[name] for name in ("message", "error", "detail") if said.get(name)), None)
    kind = type_of(status, _TYPES)
    message = said if isinstance(said, str) else ""
    return Problem(message or f"The provider answered with status {status} and no message.", kind)

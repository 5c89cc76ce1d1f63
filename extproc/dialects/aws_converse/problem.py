"""Error answers.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (errors)
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from extproc.dialects._problems import BY_STATUS, plain_text, type_of
from extproc.dialects.aws_converse.provider_answer import UNREADABLE
from extproc.words.messages import Problem

_TYPES = BY_STATUS | dict.fromkeys((408, 424), "api_error")


class _Problem(Struct):
    message: str | None = None
    Message: str | None = None
    type: str | None = field(name="__type", default=None)


_decode = msgspec.json.Decoder(_Problem).decode


def decode(status: int, body: bytes) -> Problem:
    """The content of an error answer; its type is derived from the status."""
    try:
        found = _decode(body)
    except UNREADABLE:
        found = _Problem(plain_text(body))
    kind = type_of(status, _TYPES)
    message = found.message or found.Message or f"The provider answered with status {status} and no message."
    return Problem(message, kind, (found.type or "").rpartition("#")[2])

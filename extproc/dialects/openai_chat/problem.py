"""Error answers, and errors in mid-stream.

Source: https://platform.openai.com/docs/guides/error-codes/api-errors
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.dialects._problems import BY_STATUS, MOST_TEXT, plain_text, type_of
from extproc.wire.framing import UNREADABLE
from extproc.words.messages import Problem

_read_any = msgspec.json.Decoder().decode
_BY_STATUS = BY_STATUS | {402: "insufficient_quota", 529: "overloaded_error"}
_TYPES = frozenset((*_BY_STATUS.values(), "invalid_request_error", "api_error"))


def decode(status: int, body: bytes) -> Problem:
    """The content of an error answer. Never raises."""
    try:
        said = _read_any(body)
    except UNREADABLE:
        said = plain_text(body)
    return read(status, said)


def read(status: int, said: Any) -> Problem:
    """The content of an error answer, or of an error in mid-stream, with status 200."""
    if isinstance(said, list) and said:  # Google wraps the error in a list
        said = said[0]
    error: Any = said.get("error", said) if isinstance(said, dict) else said
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
    message = error if isinstance(error, str) else ""
    for name in ("message", "detail", "msg"):
        message = message or _text(fields.get(name)) or details(fields.get(name))
    code, type = fields.get("code"), _text(fields.get("type"))
    if status == 200 and isinstance(code, int):  # OpenRouter's code is the status that the error would have had
        status = code
    if "insufficient_quota" in (type, code):
        kind = "insufficient_quota"
    else:
        kind = type_of(status, _BY_STATUS)
        if kind == "api_error" and type in _TYPES:
            kind = type
    param = fields.get("param")
    return Problem(
        message or f"The provider answered with status {status} and no message.",
        kind,
        str(code) if isinstance(code, str | int) and not isinstance(code, bool) else "",
        param if isinstance(param, str) else None,
    )


def details(value: Any) -> str:
    """FastAPI's details of a refused request (422), which Mistral and vLLM send: each wrong field and its error.

    Source: https://fastapi.tiangolo.com/tutorial/handling-errors
    """
    if isinstance(value, dict):
        value = value.get("detail")
    found = [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
    texts = []
    for part in found[:8]:
        where = part.get("loc")
        path = ".".join(str(step) for step in where if step != "body") if isinstance(where, list) else ""
        texts.append(f"{path}: {_text(part.get('msg'))}" if path else _text(part.get("msg")))
    return "; ".join(text for text in texts if text)[:MOST_TEXT]


def encode(problem: Problem) -> dict[str, Any]:
    return {
        "error": {
            "message": problem.message,
            "type": problem.type,
            "param": problem.param,
            "code": problem.code or None,
        }
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

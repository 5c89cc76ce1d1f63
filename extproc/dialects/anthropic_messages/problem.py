"""Anthropic's errors: their types, and a code of the cause under `details`.

Source: https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects import _problems
from extproc.dialects._problems import MOST_TEXT, plain_text
from extproc.dialects.anthropic_messages.shapes import ERRORS
from extproc.wire.framing import UNREADABLE
from extproc.words.messages import Problem

_BY_STATUS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_BY_TYPE = {"insufficient_quota": "billing_error"} | {
    neutral: name for name, neutral in ERRORS.items() if name == neutral
}
_GENERAL = frozenset(("invalid_request_error", "api_error"))  # types less exact than the status
_NEUTRAL_BY_STATUS = {status: ERRORS[name] for status, name in _BY_STATUS.items()}
_decode = msgspec.json.Decoder().decode


def encode_error(message: str, type: str, code: str = "", param: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": type, "message": message}
    if code:
        error["details"] = {"error_code": code} | ({"param": param} if param else {})
    return {"type": "error", "error": error}


def type_of(status: int, type: str) -> str:
    """Anthropic's error type, by status and OpenAI's type."""
    if type in _GENERAL or type not in _BY_TYPE:
        return _problems.type_of(status, _BY_STATUS)
    return _BY_TYPE[type]


def encode_problem(status: int, problem: Problem) -> dict[str, Any]:
    return encode_error(problem.message, type_of(status, problem.type), problem.code, problem.param)


def decode_problem(status: int, body: bytes) -> Problem:
    """The content of an error answer; only the status for an unknown shape. Never raises."""
    otherwise = _problems.type_of(status, _NEUTRAL_BY_STATUS)
    try:
        said = _decode(body)
    except UNREADABLE:
        return Problem(plain_text(body) or f"The provider answered with status {status}.", otherwise)
    said = said[0] if isinstance(said, list) and said else said
    error = said.get("error") if isinstance(said, dict) else None
    problem = read_error(error if error is not None else said)
    if not problem.message:
        problem.message = f"The provider answered with status {status}."
    if not problem.type:
        problem.type = otherwise
    return problem


def read_error(error: Any) -> Problem:
    """Message, type and code of an error object, from an answer or mid-stream. Message and type may be empty."""
    if not isinstance(error, dict):
        return Problem(error[:MOST_TEXT] if isinstance(error, str) else "", "")
    message, kind, details = error.get("message"), error.get("type"), error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    return Problem(
        message if isinstance(message, str) else "",
        ERRORS.get(kind, "") if isinstance(kind, str) else "",
        code if isinstance(code, str) else "",
    )

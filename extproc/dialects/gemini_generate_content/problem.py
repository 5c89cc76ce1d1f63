"""Error answers, and errors in mid-stream.

Source: https://cloud.google.com/apis/design/errors#error_model
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects._problems import BY_STATUS, plain_text, type_of
from extproc.wire.framing import UNREADABLE
from extproc.words.messages import Problem

_decode = msgspec.json.Decoder().decode
_TYPES = BY_STATUS | {408: "api_error"}

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_BY_TYPE = {"rate_limit_error": 429, "overloaded_error": 503, "authentication_error": 401, "permission_error": 403}
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def encode_error(status: int, message: str, type: str, code: str = "", param: str | None = None) -> dict[str, Any]:
    """An error object. In mid-stream the status is 500, and its type is more exact."""
    if status == 500:
        status = _BY_TYPE.get(type, status)
    word = _STATUSES.get(status) or ("INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL")
    error: dict[str, Any] = {"code": status, "message": message, "status": word}
    if code:
        metadata = {"code": code} | ({"field": param} if param else {})
        error["details"] = [{"@type": _ERROR_INFO, "reason": code.upper(), "domain": "gateway", "metadata": metadata}]
    return {"error": error}


def encode_problem(status: int, problem: Problem) -> dict[str, Any]:
    return encode_error(status, problem.message, problem.type, problem.code, problem.param)


def decode(status: int, body: bytes) -> Problem:
    try:
        value: Any = _decode(body)
    except UNREADABLE:
        return read(status, plain_text(body))
    if isinstance(value, list) and value:  # a stream without SSE wraps the error in a list
        value = value[0]
    return read(status, value.get("error") if isinstance(value, dict) else None)


def read(status: int, error: Any) -> Problem:
    """The content of an `error` object of any shape. `status` is the HTTP status for an object without one."""
    message: Any = ""
    code: Any = ""
    details: Any = None
    if isinstance(error, dict):
        message, code, details = error.get("message"), error.get("status"), error.get("details")
        if type(error.get("code")) is int:
            status = error["code"]
    elif isinstance(error, str):
        message = error
    reasons, param = _details(details)
    kind = type_of(status, _TYPES)
    if "API_KEY_INVALID" in reasons:  # Google sends this reason with status 400
        kind = "authentication_error"
    if not isinstance(message, str) or not message:
        message = "The provider failed without saying why."
    return Problem(message, kind, code.lower() if isinstance(code, str) else "", param)


def _details(details: Any) -> tuple[list[str], str | None]:
    """Reasons in an error's details, and the first faulty field."""
    reasons: list[str] = []
    param: str | None = None
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        if isinstance(reason := detail.get("reason"), str):
            reasons.append(reason)
        violations = detail.get("fieldViolations")
        for violation in violations if isinstance(violations, list) else ():
            name = violation.get("field") if isinstance(violation, dict) else None
            if param is None and isinstance(name, str) and name:
                param = name
    return reasons, param

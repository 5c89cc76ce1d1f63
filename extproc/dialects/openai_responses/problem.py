"""Errors in mid-stream. Error answers have the form of chat completions.

Source: https://developers.openai.com/api/reference/resources/responses/streaming-events (error, response.failed)

The reference has the fields of an `error` event beside its type. OpenAI sends them inside `error`, which makes its SDK
raise. Both forms are read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.words.messages import Failed

_TYPES = {
    "rate_limit_exceeded": "rate_limit_error",
    "insufficient_quota": "insufficient_quota",
    "server_is_overloaded": "overloaded_error",
    "slow_down": "overloaded_error",
    "server_error": "api_error",
    "vector_store_timeout": "api_error",
}
_REQUESTS_FAULT = frozenset(
    (
        *("invalid_prompt", "data_residency_mismatch", "bio_policy", "misalignment_policy_violation"),
        *("context_length_exceeded", "failed_to_download_image", "image_file_not_found"),
        *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
        *("image_too_large", "image_too_small", "image_parse_error", "image_content_policy_violation"),
        *("image_file_too_large", "unsupported_image_media_type", "empty_image_file"),
    )
)
_KNOWN = frozenset((*_TYPES.values(), "invalid_request_error", "authentication_error", "permission_error"))
_CODES = {
    "rate_limit_error": "rate_limit_exceeded",
    "insufficient_quota": "rate_limit_exceeded",
    "invalid_request_error": "invalid_prompt",
}
_NAMED = _REQUESTS_FAULT - {"context_length_exceeded"} | {"server_error", "rate_limit_exceeded", "vector_store_timeout"}


def read(error: Any) -> Failed:
    """The content of an error object, or of an error event."""
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
    message, code, type = fields.get("message"), fields.get("code"), fields.get("type")
    if not isinstance(message, str) or not message:
        message = error if isinstance(error, str) and error else "The provider broke off without saying why."
    code = code if isinstance(code, str) else ""
    if code in _REQUESTS_FAULT:
        kind = "invalid_request_error"
    elif code in _TYPES:
        kind = _TYPES[code]
    else:
        kind = type if isinstance(type, str) and type in _KNOWN else "api_error"
    return Failed(message, kind, code)


def of_response(failed: Failed) -> dict[str, Any]:
    """`error` of a failed response, which has few codes."""
    code = failed.code if failed.code in _NAMED else _CODES.get(failed.type, "server_error")
    return {"code": code, "message": failed.message}


def of_event(failed: Failed) -> dict[str, Any]:
    """Fields of an `error` event."""
    said = {"code": failed.code or failed.type, "message": failed.message, "param": None}
    return {**said, "error": {"type": failed.type, **said}}

"""Error answers: types by status, and texts other than JSON, from a proxy in front of an API."""

from __future__ import annotations

from collections.abc import Mapping

MOST_TEXT = 2000
"""Most characters of a message in an unknown shape."""


def plain_text(body: bytes) -> str:
    """Text of an error answer that is not JSON; empty for a web page, broken JSON and other bytes."""
    text = body[:MOST_TEXT].decode(errors="ignore").strip()
    return "" if text.startswith(("<", "{", "[")) else text


BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Error types in the neutral form, by statuses with one meaning in all APIs."""


def type_of(status: int, types: Mapping[int, str]) -> str:
    """Error type by status alone; `types` are the API's own."""
    return types.get(status) or ("invalid_request_error" if 400 <= status < 500 else "api_error")

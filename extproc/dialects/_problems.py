"""Error answers: their types by status, and texts that are no JSON, of a proxy in front of an API."""

from __future__ import annotations

from collections.abc import Mapping

MOST_TEXT = 2000
"""Characters of a message that came in an unknown shape."""


def plain_text(body: bytes) -> str:
    """The text of an error answer that is no JSON; empty for a web page, broken JSON and other bytes."""
    text = body[:MOST_TEXT].decode(errors="ignore").strip()
    return "" if text.startswith(("<", "{", "[")) else text


BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Types of errors in the neutral form, by the status that means the same in every API."""


def type_of(status: int, types: Mapping[int, str]) -> str:
    """The type of an error whose status alone tells it; `types` are those of its API."""
    return types.get(status) or ("invalid_request_error" if 400 <= status < 500 else "api_error")

"""Error answers that are no JSON: of a proxy or a load balancer in front of an API."""

from __future__ import annotations

MOST_TEXT = 2000
"""Characters of a message that came in an unknown shape."""


def plain_text(body: bytes) -> str:
    """The text of an error answer that is no JSON; empty for a web page, broken JSON and other bytes."""
    text = body[:MOST_TEXT].decode(errors="ignore").strip()
    return "" if text.startswith(("<", "{", "[")) else text

"""Values above an API's limits: lowered limits and shortened names. Equal names are shortened alike."""

from __future__ import annotations

import hashlib

LONGEST_USER = 64
"""Most characters of `user` at OpenAI: https://github.com/maximhq/bifrost/pull/1000. Claude Code sends 170."""


def capped(wanted: int | None, most: int | None) -> int | None:
    """The request's limit, at most `most`; None without a limit."""
    return min(wanted, most) if wanted is not None and most is not None else wanted


def short(value: str, most: int) -> str:
    """`value`, or its digest if it has more than `most` characters (at least 32)."""
    return value if len(value) <= most else hashlib.blake2s(value.encode(errors="replace"), digest_size=16).hexdigest()

"""Values that are larger than an API takes: limits lowered, names shortened, the same one always alike."""

from __future__ import annotations

import hashlib

LONGEST_USER = 64
"""Characters of `user` at OpenAI: https://github.com/maximhq/bifrost/pull/1000. Claude Code's are 170."""


def capped(wanted: int | None, most: int | None) -> int | None:
    """The limit that a request asks for, and no more than `most`; None where it asks for none."""
    return min(wanted, most) if wanted is not None and most is not None else wanted


def short(value: str, most: int) -> str:
    """`value`, or a digest of it where it has more than `most` characters (at least 32)."""
    return value if len(value) <= most else hashlib.blake2s(value.encode(errors="replace"), digest_size=16).hexdigest()

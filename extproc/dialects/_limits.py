"""Values that are longer than an API takes, shortened: the same value always to the same one."""

from __future__ import annotations

import hashlib

LONGEST_USER = 64
"""Characters of `user` at OpenAI: https://github.com/maximhq/bifrost/pull/1000. Claude Code's are 170."""


def short(value: str, most: int) -> str:
    """`value`, or a digest of it where it has more than `most` characters (at least 32)."""
    return value if len(value) <= most else hashlib.blake2s(value.encode(errors="replace"), digest_size=16).hexdigest()

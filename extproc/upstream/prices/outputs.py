"""The most that a model can write in one answer, thinking included, as its provider documents it.

The catalogue of prices does not have it. A model that is not listed is bounded by its context window.

Sources, read in November 2026: https://developers.openai.com/api/docs/models,
https://platform.claude.com/docs/en/about-claude/models/overview, https://ai.google.dev/gemini-api/docs/models.
"""

from __future__ import annotations

import re
from functools import lru_cache

# The first that matches counts. A publisher or a region may stand before the name.
_MOST = tuple(
    (re.compile(rf"(?:^|[/.@]){pattern}"), tokens)
    for pattern, tokens in (
        (r"gpt-5[0-9.]*-chat", 16_384),
        (r"gpt-5", 128_000),
        (r"o[134](?:$|-)", 100_000),
        (r"gpt-4\.1", 32_768),
        (r"(?:chat)?gpt-4o", 16_384),
        (r"claude-3-(?:opus|sonnet|haiku)", 4_096),
        (r"claude-3-5-", 8_192),
        (r"claude-3-7-", 128_000),  # with a beta header
        (r"claude-opus-4(?:$|-1(?:$|\D)|-20|@)", 32_000),
        (r"claude-(?:sonnet-4(?:$|-20|@)|(?:opus|sonnet|haiku)-4-5)", 64_000),
        (r"claude-", 128_000),
        (r"gemini-(?:1|2\.0)", 8_192),
        (r"gemini-(?:2\.5|[3-9])", 65_536),
    )
)


@lru_cache(maxsize=4096)
def known_output(model: str) -> int | None:
    """Tokens, by the model's name at its provider; None where it is not known."""
    name = model.lower()
    return next((tokens for pattern, tokens in _MOST if pattern.search(name)), None)

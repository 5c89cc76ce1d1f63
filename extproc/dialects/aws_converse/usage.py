"""Usage of Converse. `inputTokens` excludes tokens read from and written to the cache.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
"""

from __future__ import annotations

from typing import Any

from extproc.dialects._usage import are_counts, first_count, make_usage
from extproc.words.exchange import Usage


def read_usage(said: Any) -> Usage | None:
    """Usage of a TokenUsage; None without plausible counts."""
    if not isinstance(said, dict):
        return None
    plain, output = said.get("inputTokens"), said.get("outputTokens")
    if not are_counts(plain, output):
        return None
    cached = first_count(said.get("cacheReadInputTokens"))
    written = first_count(said.get("cacheWriteInputTokens"))
    return make_usage((plain or 0) + cached + written, output or 0, cached=cached, cache_write=written)

"""A provider's counts as `Usage`, by rules for all dialects.

A missing count is 0, and other counts are kept; `accounting/settle` replaces an impossible zero by the gateway's own
count. An invalid count of input or output (negative, absurd, not whole) invalidates the whole usage. Details are
limited to the count they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from extproc.dialects import MAX_TOKENS, token_count
from extproc.words.exchange import Kinds, Usage

MOST_CALLS = 1000
"""Most plausible billed calls of a kind, such as searches, in one answer."""
_CALLS = ("searches", "file_searches", "fetches", "maps", "sessions")
MOST_SHARES = 16
"""Models of an answer whose shares are kept apart."""
_TICKS = 10
"""Ticks of xAI in a nano-USD."""
_MOST_USD = 1_000_000
"""Highest plausible cost of an answer in USD."""


def are_counts(*values: Any) -> bool:
    """True if these have a report: at least one is present, and each present one is a token count."""
    told = False
    for value in values:
        if value is not None:
            if token_count(value) is None:
                return False
            told = True
    return told


def first_count(*values: Any) -> int:
    """The first token count, or 0: providers have several names for one detail."""
    for value in values:
        if value is not None and token_count(value) is not None:
            return value  # type: ignore[no-any-return]
    return 0


def make_usage(
    input_tokens: int,
    output_tokens: int = 0,
    *,
    cached: int = 0,
    reasoning: int = 0,
    cache_write: int = 0,
    beyond: int = 0,
    kinds: Mapping[str, Any] | None = None,
    cost: int | None = None,
    shares: Mapping[str, Usage] | None = None,
) -> Usage | None:
    """Usage with `input_tokens` including tokens read from and written to caches, and `output_tokens` including the
    reasoning. Both include `shares`; `kinds` exclude them. `cost` is in nano-USD. None for absurd sums.
    """
    if input_tokens > MAX_TOKENS or output_tokens > MAX_TOKENS:
        return None
    cached, cache_write = min(cached, input_tokens), min(cache_write, input_tokens)
    usage = Usage(
        input_tokens, output_tokens, cached, min(reasoning, output_tokens), cache_write, beyond=beyond, cost=cost
    )
    usage.shares = shares or None
    if kinds:
        usage.kinds = _kinds(kinds, usage)
    return usage


def told_cost(said: Mapping[str, Any]) -> int | None:
    """Cost of the answer in nano-USD from its usage, rounded up; None without a plausible cost.

    OpenRouter: `cost`, beside `cost_details.upstream_inference_cost` where the key is the customer's own. Perplexity:
    `cost.total_cost`. xAI: `cost_in_usd_ticks`. Sources: https://openrouter.ai/docs/use-cases/usage-accounting,
    https://docs.perplexity.ai/api-reference/chat-completions-post, https://docs.x.ai/developers/cost-tracking
    """
    if (ticks := said.get("cost_in_usd_ticks")) is not None:
        return -(-ticks // _TICKS) if type(ticks) is int and 0 <= ticks <= _MOST_USD * 10**9 * _TICKS else None
    cost = said.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    found = _nano(cost)
    details = said.get("cost_details")
    if found is not None and said.get("is_byok") is True and isinstance(details, dict):
        found += _nano(details.get("upstream_inference_cost")) or 0
    return found


def _nano(usd: Any) -> int | None:
    if type(usd) not in (int, float) or not 0 <= usd <= _MOST_USD:  # NaN is in no range
        return None
    return math.ceil(Decimal(str(usd)) * 10**9)


def told_kinds(**counts: Any) -> dict[str, Any]:
    """Reported counts by field of `Kinds`, for `make_usage`."""
    return counts


def told_calls(said: Mapping[str, Any]) -> dict[str, int]:
    """Billed calls of xAI in a usage object, by field of `Kinds`; empty for other providers.

    Source: https://docs.x.ai/developers/tools/tool-usage-details
    """
    told = said.get("server_side_tool_usage_details")
    if not isinstance(told, dict):
        return {}
    count = {name: first_count(calls) for name, calls in told.items()}.get
    return told_kinds(
        searches=count("web_search_calls", 0) + count("x_search_calls", 0),
        file_searches=count("file_search_calls", 0) + count("document_search_calls", 0),
        sessions=count("code_interpreter_calls", 0),
    )


def _kinds(said: Mapping[str, Any], usage: Usage) -> Kinds | None:
    """Reported fields of `Kinds`, each limited to the count it is part of; None if all are zero."""
    counts = {}
    for name, value in said.items():
        whole = usage.output_tokens if name.endswith("output") else usage.input_tokens
        if name.endswith("cached"):
            whole = usage.cached_tokens
        elif name == "cache_write_1h":
            whole = usage.cache_write_tokens
        elif name in _CALLS:
            whole = MOST_CALLS
        if count := min(first_count(value), whole):
            counts[name] = count
    return Kinds(**counts) if counts else None

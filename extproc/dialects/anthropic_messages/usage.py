"""Usage of a message, written and read. A stream reports it in pieces.

Source: https://platform.claude.com/docs/en/api/messages/create (usage) and, for `iterations`,
https://platform.claude.com/docs/en/build-with-claude/compaction
"""

from __future__ import annotations

from typing import Any

from extproc.dialects._usage import are_counts, first_count, make_usage, told_kinds
from extproc.words.exchange import Usage

_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
_BESIDE = frozenset(("compaction", "advisor_message"))
"""Kinds of `iterations` whose tokens are billed and are not in the counts beside them."""


class Tally:
    """The usage so far. Counts are cumulative: a later one takes the place of an earlier one."""

    __slots__ = ("_beside", "_counts", "_kinds", "_reasoning")

    def __init__(self) -> None:
        self._counts = [0, 0, 0, 0]  # counts in the order of `_COUNTS`
        self._beside = [0, 0, 0, 0]
        self._reasoning = 0
        self._kinds: dict[str, Any] = {}

    def add(self, said: Any) -> Usage | None:
        """The usage including one more usage object; None when that has no counts, or none that can be believed."""
        if not isinstance(said, dict):
            return None
        told = [said.get(name) for name in _COUNTS]
        if not are_counts(*told):
            return None
        counts = [before if count is None else count for before, count in zip(self._counts, told, strict=True)]
        beside = _beside(said["iterations"]) if "iterations" in said else self._beside
        details = said.get("output_tokens_details")
        thought = first_count(details.get("thinking_tokens")) if isinstance(details, dict) else 0
        given, cached, written, output = map(sum, zip(counts, beside, strict=True))
        reasoning = thought or self._reasoning
        kinds = self._kinds | _kinds(said)
        usage = make_usage(
            given + cached + written,
            output,
            cached=cached,
            reasoning=reasoning,
            cache_write=written,
            beyond=sum(beside),
            kinds=kinds,
        )
        if usage is not None:
            self._counts, self._beside, self._reasoning, self._kinds = counts, beside, reasoning, kinds
        return usage


def _kinds(said: dict[str, Any]) -> dict[str, Any]:
    """The reported fields of `Kinds`."""
    written, tools = said.get("cache_creation"), said.get("server_tool_use")
    return {
        **(told_kinds(cache_write_1h=written.get("ephemeral_1h_input_tokens")) if isinstance(written, dict) else {}),
        **(told_kinds(searches=tools.get("web_search_requests")) if isinstance(tools, dict) else {}),
    }


def _beside(iterations: Any) -> list[int]:
    """Sums of the billed counts that the top level leaves out, in the order of `_COUNTS`."""
    sums = [0, 0, 0, 0]
    for one in iterations if isinstance(iterations, list) else ():
        if isinstance(one, dict) and isinstance(kind := one.get("type"), str) and kind in _BESIDE:
            sums = [total + first_count(one.get(name)) for total, name in zip(sums, _COUNTS, strict=True)]
    return sums


def read_usage(said: Any) -> Usage | None:
    """The counts of a whole message; None when there are none that can be believed."""
    return Tally().add(said)


def write_usage(usage: Usage) -> dict[str, Any]:
    written: dict[str, Any] = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        written["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return written

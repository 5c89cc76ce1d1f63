"""Usage of a message, written and read. A stream reports it in pieces.

The counts of a usage object are the answering model's. `iterations` list further billed counts: the model's own
compaction, and shares of other models, which become `Usage.shares`: advisors, and models that declined before a
fallback answered.

Sources: https://platform.claude.com/docs/en/api/messages/create (usage),
https://platform.claude.com/docs/en/build-with-claude/compaction,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool and
https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects._usage import MOST_SHARES, are_counts, first_count, make_usage, told_kinds
from extproc.words.exchange import Usage

_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
_NONE = (0, 0, 0, 0, 0)
_OWN = ""
"""Stands for the name of the answering model."""


class Tally:
    """The usage so far. Counts are cumulative: a later count replaces an earlier one."""

    __slots__ = ("_beside", "_counts", "_kinds", "_reasoning")

    def __init__(self) -> None:
        self._counts = [0, 0, 0, 0, 0]  # counts in the order of `_COUNTS`, then tokens cached for an hour
        self._beside: Mapping[str, list[int]] = {}  # counts of further models, by model
        self._reasoning = 0
        self._kinds: dict[str, Any] = {}

    def add(self, said: Any) -> Usage | None:
        """Usage after one more usage object; None for an object without plausible counts."""
        if not isinstance(said, dict):
            return None
        told = [said.get(name) for name in _COUNTS]
        if not are_counts(*told):
            return None
        told.append(_an_hour(said))
        counts = [before if count is None else count for before, count in zip(self._counts, told, strict=True)]
        beside = _beside(said["iterations"]) if "iterations" in said else self._beside
        details = said.get("output_tokens_details")
        thought = first_count(details.get("thinking_tokens")) if isinstance(details, dict) else 0
        reasoning = thought or self._reasoning
        kinds = self._kinds | _kinds(said)
        usage = _usage(counts, beside, reasoning, kinds)
        if usage is not None:
            self._counts, self._beside, self._reasoning, self._kinds = counts, beside, reasoning, kinds
        return usage


def _usage(counts: list[int], beside: Mapping[str, list[int]], reasoning: int, kinds: dict[str, Any]) -> Usage | None:
    """Usage of the answer's counts and further billed counts. None for absurd sums."""
    if not beside:
        return _usage_of(counts, kinds, reasoning=reasoning)
    shares = {
        model: part for model, each in beside.items() if model != _OWN and (part := _usage_of(each, {})) is not None
    }
    sums = [*map(sum, zip(counts, *beside.values(), strict=True))]
    sums[-1] = counts[-1] + beside.get(_OWN, _NONE)[-1]
    found = _usage_of(sums, kinds, reasoning=reasoning, shares=shares)
    if found is not None:
        found.beyond = sum(sum(each[:-1]) for each in beside.values())
    return found


def _usage_of(counts: Sequence[int], kinds: Mapping[str, Any], **more: Any) -> Usage | None:
    given, cached, written, output, hour = counts
    if hour:
        kinds = {**kinds, **told_kinds(cache_write_1h=hour)}
    return make_usage(given + cached + written, output, cached=cached, cache_write=written, kinds=kinds, **more)


def _kinds(said: dict[str, Any]) -> dict[str, Any]:
    """Reported fields of `Kinds` that do not count tokens."""
    tools = said.get("server_tool_use")
    if not isinstance(tools, dict):
        return {}
    return told_kinds(searches=tools.get("web_search_requests"), fetches=tools.get("web_fetch_requests"))


def _an_hour(said: dict[str, Any]) -> int | None:
    """Input tokens that the cache keeps for an hour; None: not reported."""
    written = said.get("cache_creation")
    return first_count(written.get("ephemeral_1h_input_tokens")) if isinstance(written, dict) else None


def _beside(iterations: Any) -> Mapping[str, list[int]]:
    """Billed counts outside of the top level, by model, in the order of `_COUNTS`, then tokens cached for an hour."""
    found: dict[str, list[int]] = {}
    if not isinstance(iterations, list):
        return found
    for model, one in _billed_beside([one for one in iterations if isinstance(one, dict)]):
        sums = found.setdefault(model if model in found or len(found) < MOST_SHARES else _OWN, [*_NONE])
        counts = [first_count(one.get(name)) for name in _COUNTS]
        sums[:] = [total + count for total, count in zip(sums, (*counts, _an_hour(one) or 0), strict=True)]
    return found


def _billed_beside(iterations: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterations outside of the top level, each with its model.

    After a fallback, other models' messages are those that declined; the top level has the remaining counts.
    """
    fallback = next((_model(one) for one in iterations if one.get("type") == "fallback_message"), None)
    for one in iterations:
        kind, model = one.get("type"), _model(one)
        if kind == "compaction":
            yield _OWN, one
        elif kind == "advisor_message" or (kind == "message" and fallback and model not in (_OWN, fallback)):
            yield model, one


def _model(one: dict[str, Any]) -> str:
    name = one.get("model")
    return name if isinstance(name, str) else _OWN


def read_usage(said: Any) -> Usage | None:
    """Usage of a plain message; None without plausible counts."""
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

"""Usage of Cohere's chat: the billed tokens. The model reads and writes more, because Cohere adds its own prompt.

Source: https://docs.cohere.com/reference/chat#response.body
"""

from __future__ import annotations

from typing import Any

from extproc.dialects._usage import are_counts, first_count, make_usage
from extproc.words.exchange import Usage


def read_usage(said: Any) -> Usage | None:
    """Usage of a usage object; None without plausible counts."""
    if not isinstance(said, dict):
        return None
    billed = _counts(said.get("billed_units"))
    if billed is not None:
        return make_usage(*billed)
    counts = _counts(said.get("tokens"))
    return None if counts is None else make_usage(*counts, cached=first_count(whole(said.get("cached_tokens"))))


def _counts(said: Any) -> tuple[int, int] | None:
    if not isinstance(said, dict):
        return None
    given, written = whole(said.get("input_tokens")), whole(said.get("output_tokens"))
    return (given or 0, written or 0) if are_counts(given, written) else None


def whole(value: Any) -> Any:
    """A whole number as int: counts have the type number, so 5.0 is possible."""
    return int(value) if type(value) is float and value.is_integer() else value

"""Usage of Cohere's chat: all tokens that the model read and wrote, which are more than the billed ones.

Source: https://docs.cohere.com/reference/chat#response.body
"""

from __future__ import annotations

from typing import Any

from extproc.dialects._usage import are_counts, first_count, make_usage
from extproc.words.exchange import Usage


def read_usage(said: Any) -> Usage | None:
    """The counts of a usage object; None when it has none that can be believed."""
    if not isinstance(said, dict):
        return None
    tokens = said.get("tokens")
    if not isinstance(tokens, dict):
        tokens = said.get("billed_units")
    if not isinstance(tokens, dict):
        return None
    given, written = whole(tokens.get("input_tokens")), whole(tokens.get("output_tokens"))
    if not are_counts(given, written):
        return None
    return make_usage(given or 0, written or 0, cached=first_count(whole(said.get("cached_tokens"))))


def whole(value: Any) -> Any:
    """A whole number as an integer: counts have the type number there, so one may be 5.0."""
    return int(value) if type(value) is float and value.is_integer() else value

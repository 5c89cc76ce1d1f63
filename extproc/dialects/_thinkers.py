"""Models that think unasked, by name: what a client that leaves early did not see of an answer."""

from __future__ import annotations

import re
from functools import lru_cache

from extproc.dialects._effort import budget
from extproc.dialects._models import levels, thinks_unasked, traits_of


@lru_cache(maxsize=4096)
def unasked(model: str) -> int:
    """Tokens of hidden thinking to expect of a model that nobody told how much to think; 0 where it does not, and of
    models that are not known.
    """
    traits = traits_of(model)
    if thinks_unasked(model) or (traits.default_on and traits.known):
        return budget("medium")
    return 0


def times_shown(model: str) -> int | None:
    """Tokens of thinking for each that the model shows, until whole answers told. Claude since 4 shows a summary, as
    long as it judges fit; None for other models that show a summary, which says nothing about the length.
    """
    name = model.lower()
    if is_claude(name):
        return 1 if "claude-3" in name else 4
    return None if thinks_unasked(model) else 1


def is_claude(model: str) -> bool:
    """True for Claude, under any provider's name."""
    return "claude" in model.lower()


_SAYS_SO = re.compile(r"(?<!non-)reason|thinking|(?:^|[-/])r1(?:$|-)")
_BUDGETED = re.compile(r"(?:^|[/.@])(?:claude|gemini)-")  # these count tokens in place of levels


def unlisted(model: str) -> bool:
    """True for a model that reasons, to judge by its name, and whose levels of thinking are not known."""
    name = model.lower()
    if levels(model) is not None or _BUDGETED.search(name):
        return False
    return unasked(model) > 0 or _SAYS_SO.search(name) is not None

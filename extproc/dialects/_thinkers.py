"""Models that think by default: hidden thinking in an answer that a client left early."""

from __future__ import annotations

import re
from functools import lru_cache

from extproc.dialects._effort import budget
from extproc.dialects._models import levels, thinks_unasked, traits_of


@lru_cache(maxsize=4096)
def unasked(model: str) -> int:
    """Expected tokens of hidden thinking if the request does not set an amount. 0 for a model that does not think by
    default, or is unknown.
    """
    traits = traits_of(model)
    if thinks_unasked(model) or (traits.default_on and traits.known):
        return budget("medium")
    return 0


def times_shown(model: str) -> int | None:
    """Assumed ratio of thinking tokens to shown ones, before complete answers were measured. Since version 4 Claude
    shows a summary of varying length. None for other models with a summary, whose length tells nothing.
    """
    name = model.lower()
    if is_claude(name):
        return 1 if "claude-3" in name else 4
    return None if thinks_unasked(model) else 1


def is_claude(model: str) -> bool:
    """True for Claude, by any provider's name."""
    return "claude" in model.lower()


_SAYS_SO = re.compile(r"(?<!non-)reason|thinking|(?:^|[-/])r1(?:$|-)")
_BUDGETED = re.compile(r"(?:^|[/.@])(?:claude|gemini)-")  # models with token budgets in place of levels


def unlisted(model: str) -> bool:
    """True for a model that reasons by its name, and whose levels of thinking are unknown."""
    name = model.lower()
    if levels(model) is not None or _BUDGETED.search(name):
        return False
    return unasked(model) > 0 or _SAYS_SO.search(name) is not None

"""How much a model should think: levels, as OpenAI names them, and budgets of tokens, as others count them."""

from __future__ import annotations

from extproc.messages import Effort

LEAST_BUDGET = 1024
"""What Anthropic and Bedrock take at least when thinking is on."""

_BUDGETS: dict[Effort, int] = {
    "none": 0,
    "minimal": LEAST_BUDGET,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
}


def budget(effort: Effort) -> int:
    """Tokens of thinking for a level; 0 for none."""
    return _BUDGETS[effort]


def asked(level: object) -> int:
    """Tokens of thinking for a level that a client sent; 0 for what is none."""
    return _BUDGETS.get(level, 0) if isinstance(level, str) else 0  # type: ignore[call-overload]


def effort(budget: int) -> Effort:
    """The lowest level that gives at least `budget` tokens; the highest when none does."""
    return next((level for level, tokens in _BUDGETS.items() if tokens >= budget), "xhigh")

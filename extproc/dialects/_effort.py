"""Effort of thinking: levels, as OpenAI names them, and budgets of tokens, as other APIs count them."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.dialects._models import levels
from extproc.words.messages import Effort, EmbeddingPrompt, Prompt

LEAST_BUDGET = 1024
"""Least budget of Anthropic and Bedrock when thinking is on."""
_NEVER_OFF = 128  # the least that some models think even with thinking off: Gemini 2.5 Pro

_BUDGETS: dict[Effort, int] = {
    "none": 0,
    "minimal": LEAST_BUDGET,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
}

LEVELS: Mapping[str, Effort] = {**{str(level): level for level in _BUDGETS}, "max": "xhigh"}
"""The levels that clients name."""

_USUAL: tuple[Effort, ...] = ("low", "medium", "high")


def fitting(wanted: Effort, model: str) -> Effort | None:
    """The level that a model takes in place of `wanted`: the next higher one, else the highest. None: leave it out."""
    taken = levels(model)
    if taken is None:
        if wanted == "none":
            return None
        taken = _USUAL
    if not taken or wanted in taken:
        return wanted if taken else None
    return next((level for level in taken if _BUDGETS[level] > _BUDGETS[wanted]), taken[-1])


def openai_reasons(model: str) -> bool:
    """False for models that are known not to reason, under whatever publisher's prefix."""
    return levels(model) != ()


def budget(effort: Effort) -> int:
    """Tokens of thinking for a level; 0 for none."""
    return _BUDGETS[effort]


def asked(level: object, tokens: object = None, *, adaptive: bool = False) -> int:
    """The most tokens of thinking that a client's request can become at any provider; 0 without one. `level` and
    `tokens` are as they stand in the request, `adaptive` leaves the amount to the model.
    """
    most = 0
    if isinstance(level, str) and level in LEVELS:
        most = max(_NEVER_OFF, _BUDGETS[LEVELS[level]])
    if type(tokens) is int:
        most = max(most, _NEVER_OFF, tokens and max(tokens, LEAST_BUDGET))
    return max(most, _BUDGETS["medium"]) if adaptive else most


def effort(budget: int) -> Effort:
    """The lowest level that gives at least `budget` tokens; the highest when none does."""
    return next((level for level, tokens in _BUDGETS.items() if tokens >= budget), "xhigh")


def wanted(prompt: Prompt) -> Effort | None:
    """The level that a prompt asks for, by its name or by a budget of tokens; None where it asks for neither."""
    if prompt.effort is None and prompt.thinking_budget is not None:
        return effort(prompt.thinking_budget)
    return prompt.effort


def forgo_thinking(prompt: Prompt | EmbeddingPrompt) -> list[str]:
    """Remove thinking from a prompt for a model that cannot think; returns the names of its fields, if there were
    any.
    """
    if isinstance(prompt, EmbeddingPrompt):
        return []
    wishes = {
        "reasoning_effort": prompt.effort not in (None, "none"),
        "thinking": bool(prompt.thinking_budget) or prompt.thinking_adaptive,
    }
    prompt.effort = prompt.thinking_budget = None
    prompt.thinking_adaptive = False
    return [name for name, was in wishes.items() if was]

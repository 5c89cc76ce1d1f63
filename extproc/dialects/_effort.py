"""Effort of thinking: OpenAI's levels, and token budgets of other APIs."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.dialects._models import levels
from extproc.words.messages import Effort, EmbeddingPrompt, Prompt

LEAST_BUDGET = 1024
"""Lowest budget of Anthropic and Bedrock for thinking."""
_NEVER_OFF = 128  # tokens that some models think even with thinking off: Gemini 2.5 Pro

_BUDGETS: dict[Effort, int] = {
    "none": 0,
    "minimal": LEAST_BUDGET,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
}

LEVELS: Mapping[str, Effort] = {**{str(level): level for level in _BUDGETS}, "max": "xhigh"}
"""Levels in clients' words, with their neutral value."""

_USUAL: tuple[Effort, ...] = ("low", "medium", "high")


def fitting(wanted: Effort, model: str) -> Effort | None:
    """The model's level for `wanted`: the next higher one, or its highest. None: leave the level out."""
    taken = levels(model)
    if taken is None:
        if wanted == "none":
            return None
        taken = _USUAL
    if not taken or wanted in taken:
        return wanted if taken else None
    return next((level for level in taken if _BUDGETS[level] > _BUDGETS[wanted]), taken[-1])


def openai_reasons(model: str) -> bool:
    """False for models known not to reason, with any publisher's prefix."""
    return levels(model) != ()


def budget(effort: Effort) -> int:
    """Token budget of a level; 0 for none."""
    return _BUDGETS[effort]


def asked(level: object, tokens: object = None, *, adaptive: bool = False) -> int:
    """Most tokens of thinking for a client's request at any provider; 0 without thinking. `level` and `tokens` are the
    request's; `adaptive` leaves the amount to the model.
    """
    most = 0
    if isinstance(level, str) and level in LEVELS:
        most = max(_NEVER_OFF, _BUDGETS[LEVELS[level]])
    if type(tokens) is int:
        most = max(most, _NEVER_OFF, tokens and max(tokens, LEAST_BUDGET))
    return max(most, _BUDGETS["medium"]) if adaptive else most


def effort(budget: int) -> Effort:
    """The lowest level with at least `budget` tokens, or the highest level."""
    return next((level for level, tokens in _BUDGETS.items() if tokens >= budget), "xhigh")


def asked_effort(prompt: Prompt) -> Effort | None:
    """The prompt's level of thinking, named or from a token budget; None without either."""
    if prompt.effort is None and prompt.thinking_budget is not None:
        return effort(prompt.thinking_budget)
    return prompt.effort


def forgo_thinking(prompt: Prompt | EmbeddingPrompt) -> list[str]:
    """Remove thinking from a prompt for a model without it. Returns the names of its fields."""
    if isinstance(prompt, EmbeddingPrompt):
        return []
    wishes = {
        "reasoning_effort": prompt.effort not in (None, "none"),
        "thinking": bool(prompt.thinking_budget) or prompt.thinking_adaptive,
    }
    prompt.effort = prompt.thinking_budget = None
    prompt.thinking_adaptive = False
    return [name for name, was in wishes.items() if was]

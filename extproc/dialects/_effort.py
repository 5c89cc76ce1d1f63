"""Effort of thinking: levels, as OpenAI names them, and budgets of tokens, as other APIs count them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

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


_OF_EACH: tuple[tuple[str, str], ...] = (
    (r"gpt-5(\.\d+)?-chat", ""),
    (r"gpt-5-pro", "high"),
    (r"gpt-5\.\d+-pro", "medium high xhigh"),
    (r"gpt-5(\.1)?-codex(?!-max)", "low medium high"),
    (r"gpt-5\.1-codex-max", "low medium high xhigh"),
    (r"gpt-5\.[23]-codex", "low medium high xhigh"),
    (r"gpt-5\.1(?!\d)", "none low medium high"),
    (r"gpt-5\.\d+", "none low medium high xhigh"),
    (r"gpt-5(?!\.)", "minimal low medium high"),
    (r"gpt-6", "low medium high xhigh"),
    (r"o1-(mini|preview)", ""),
    (r"o[134](-|$)", "low medium high"),
    (r"gpt-oss", "low medium high"),
    (r"grok-3-mini", "low high"),
    (r"grok-4\.3", "none low medium high"),
    (r"grok-4\.5", "low medium high"),
    (r"grok-(4\.20-multi-agent|4\.[6-9]|[5-9])", "low medium high xhigh"),
    (r"grok-", ""),
    (r"mistral-(small|medium)(-latest|-26\d\d)?$|mistral-medium-3[.-]5|magistral-small-latest", "none high"),
    (r"(open-)?mi[sx]tral-|magistral-|ministral-|devstral|pixtral|voxtral", ""),
    (r"gpt-[34]|chatgpt-|llama|meta-llama|mixtral|codestral|gemma|qwen-?2|phi-[34]", ""),
)
"""Levels that models take, by the beginning of their names without a publisher's; none: the model does not reason, or
thinks as much as it wants.

Sources, of November 2026: https://platform.openai.com/docs/api-reference/responses/create (`reasoning.effort`) and the
models' pages there; https://github.com/anomalyco/opencode/issues/4451 (gpt-5.1 refuses minimal);
https://console.groq.com/docs/reasoning (gpt-oss); https://github.com/BerriAI/litellm-docs/pull/1173 (gpt-6);
https://docs.x.ai/developers/model-capabilities/text/reasoning and https://github.com/NousResearch/hermes-agent/pull/23435
(Grok); https://github.com/withceleste/celeste-python/pull/311 (Mistral, which lists them in its refusals).
"""
_USUAL: tuple[Effort, ...] = ("low", "medium", "high")


@lru_cache(maxsize=4096)
def levels(model: str) -> tuple[Effort, ...] | None:
    """The levels of thinking that a model takes, the lowest first; none where it does not reason; None: unknown."""
    name = model.rpartition("/")[2].lower()
    for pattern, found in _OF_EACH:
        if re.match(pattern, name):
            return tuple(LEVELS[level] for level in found.split())
    return None


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

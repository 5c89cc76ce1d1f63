"""Thinking settings of a request to Claude, in the form that the model accepts.

Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking and
https://platform.claude.com/docs/en/build-with-claude/effort
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extproc.dialects._effort import LEAST_BUDGET, budget, effort
from extproc.dialects._models import Traits
from extproc.words.dialect import Destination
from extproc.words.messages import Effort, Prompt

DEFAULT_MAX_TOKENS = 4096
"""Output limit of a request without one; the API requires a limit."""


@dataclass(slots=True)
class Plan:
    """Thinking, tools and output limit of the request."""

    max_tokens: int
    thinking: dict[str, Any] | None = None
    effort: str | None = None
    forced_tools: bool = True  # False: the model may decide, although the client forces a tool
    on: bool = False  # True: the request turns thinking on


def plan(prompt: Prompt, destination: Destination, traits: Traits, ignored: list[str], *, in_turn: bool) -> Plan:
    """Settings for the prompt's thinking. Fields that cannot be fulfilled are named in `ignored`. `in_turn`: the model
    continues a turn that began without thinking, so it may not start to think with a budget.

    Thinking and a forced tool exclude each other. An explicit request for thinking wins over the forced tool; an effort
    alone does not.
    """
    most = destination.max_output_tokens
    made = Plan(prompt.max_tokens or most or DEFAULT_MAX_TOKENS, forced_tools=traits.forced_tools)
    if most is not None:
        made.max_tokens = min(made.max_tokens, most)
    asked = prompt.thinking_budget or 0
    explicit = prompt.thinking_adaptive or asked > 0
    wanted: Effort | None = prompt.effort if prompt.effort != "none" else None
    if not explicit and (prompt.thinking_budget == 0 or prompt.effort == "none"):
        _turn_off(prompt, traits, made, wanted, ignored)
        return made
    if not explicit and wanted is None:
        if traits.default_on and prompt.show_thinking is not None:
            made.thinking = _with_display({"type": "adaptive"}, prompt, traits, ignored)
        return made

    forced = prompt.tool_choice is not None and prompt.tool_choice.mode in ("required", "tool") and bool(prompt.tools)
    if forced and traits.forced_tools and not explicit:
        if traits.adaptive:
            made.effort = _level(wanted, traits)
        else:
            ignored.append("reasoning_effort")
        return made
    made.forced_tools = False
    if traits.adaptive and not (asked and traits.manual):
        made.effort = _level(wanted or (effort(asked) if asked else None), traits)
        made.thinking = _with_display({"type": "adaptive"}, prompt, traits, ignored)
        made.on = True
    elif (
        in_turn
        or not traits.manual
        or not _with_budget(destination.max_output_tokens, made, asked or budget(wanted or "medium"))
    ):
        made.forced_tools = traits.forced_tools
        ignored.append(_name(prompt))
    else:
        made.thinking = _with_display(made.thinking, prompt, traits, ignored)
    return made


def _with_budget(most: int | None, made: Plan, tokens: int) -> bool:
    """Turn thinking on with a budget of `tokens`, or as many as fit. The output limit is raised above the budget. False
    if the lowest budget does not fit.
    """
    tokens = max(LEAST_BUDGET, tokens)
    limit = made.max_tokens if made.max_tokens > tokens else made.max_tokens + tokens
    if most is not None and limit > most:
        if most <= LEAST_BUDGET:
            return False
        limit, tokens = most, max(LEAST_BUDGET, min(tokens, most // 2))
    made.max_tokens = limit
    made.thinking = {"type": "enabled", "budget_tokens": tokens}
    made.on = True
    return True


def _turn_off(prompt: Prompt, traits: Traits, made: Plan, wanted: Effort | None, ignored: list[str]) -> None:
    if not traits.off:
        ignored.append(_name(prompt))
        made.effort = "low" if wanted is None else _level(wanted, traits)
        return
    if traits.default_on:
        made.thinking = {"type": traits.off}
    if traits.adaptive and wanted is not None:
        made.effort = "high" if traits.off_caps_effort and wanted == "xhigh" else _level(wanted, traits)


def _with_display(
    thinking: dict[str, Any] | None, prompt: Prompt, traits: Traits, ignored: list[str]
) -> dict[str, Any]:
    """`thinking` with the client's choice of showing it."""
    made = thinking or {}
    if prompt.show_thinking is not None:
        if traits.display:
            made["display"] = "summarized" if prompt.show_thinking else "omitted"
        elif not prompt.show_thinking:
            ignored.append("thinking.display")
    return made


def _level(wanted: Effort | None, traits: Traits) -> str | None:
    if wanted == "minimal":
        return "low"
    return traits.xhigh if wanted == "xhigh" else wanted


def _name(prompt: Prompt) -> str:
    """The client's field name for its thinking."""
    return "reasoning_effort" if prompt.effort is not None else "thinking"

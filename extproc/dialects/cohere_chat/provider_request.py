"""A conversation as a request of the Chat API, version 2.

Source: https://docs.cohere.com/reference/chat, https://docs.cohere.com/docs/structured-outputs (rules for schemas),
https://docs.cohere.com/docs/reasoning (budgets) and https://docs.cohere.com/reference/errors (refused requests)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc.dialects import _effort, _json_mode, _limits
from extproc.dialects._models import cohere_reasons
from extproc.dialects.cohere_chat.conversation import Json, conversation
from extproc.dialects.cohere_chat.names import escape
from extproc.words.dialect import Destination
from extproc.words.errors import INVALID_REQUEST, UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import OutputFormat, Prompt, Tool

_MOST_STOPS = 5
_MOST_K = 500
_LEAST_P, _MOST_P = 0.01, 0.99
_SEEDS = range(2**64)
_ROOM = 1000  # tokens that an answer needs beside its thinking
_USUAL_TIERS = frozenset(("", "auto", "default", "standard", "standard_only"))
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def encode_request(prompt: Prompt, destination: Destination) -> tuple[Json, Sequence[str]]:
    """The body, and the names of advisory fields that it cannot express."""
    ignored: dict[str, None] = {}
    thinks = cohere_reasons(destination.model)
    body: Json = {
        "model": destination.model,
        "messages": conversation(prompt.system, prompt.messages, reasons=thinks),
        "stream": prompt.stream,
    }
    if prompt.tools:
        _add_tools(prompt, body, ignored)
    if prompt.format is not None:
        _add_format(prompt.format, body)
    _add_sampling(prompt, body, ignored)
    _add_thinking(prompt, destination, body, ignored, thinks=thinks)
    if prompt.logprobs is not None:
        body["logprobs"] = True
        if prompt.logprobs:
            ignored["top_logprobs"] = None
    if prompt.user:
        ignored["user"] = None
    if prompt.metadata:
        ignored["metadata"] = None
    if prompt.service_tier not in _USUAL_TIERS:
        ignored["service_tier"] = None
    if prompt.is_marked:  # Cohere caches without marks
        ignored["cache_control"] = None
    return body, list(ignored)


def _add_tools(prompt: Prompt, body: Json, ignored: dict[str, None]) -> None:
    choice, tools = prompt.tool_choice, prompt.tools
    if choice is not None and choice.mode == "tool":  # one tool is forced by offering no other tool
        tools = [tool for tool in tools if tool.name == choice.name]
        if not tools:
            raise Refusal(INVALID_REQUEST, "'tool_choice' names none of the tools.", param="tool_choice")
    if choice is not None and choice.mode == "none":
        if prompt.format is not None:
            return  # the API would refuse a format with tools
        body["tool_choice"] = "NONE"
    elif choice is not None and choice.mode != "auto":
        body["tool_choice"] = "REQUIRED"
    body["tools"] = [_tool(tool) for tool in tools]
    if any(tool.strict for tool in tools):
        if all(tool.strict and _can_be_strict(tool.schema) for tool in tools):
            body["strict_tools"] = True
        else:
            ignored["strict"] = None
    if prompt.parallel_tools is False:
        ignored["parallel_tool_calls"] = None


def _tool(tool: Tool) -> Json:
    function: Json = {"name": escape(tool.name)}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.schema or _NO_PARAMETERS
    return {"type": "function", "function": function}


def _can_be_strict(schema: Mapping[str, Any]) -> bool:
    """True when the tool can be strict: the API refuses strict tools with only optional parameters."""
    return bool(schema.get("required")) or not schema.get("properties")


def _add_format(wanted: OutputFormat, body: Json) -> None:
    if "tools" in body:
        raise Refusal(
            UNSUPPORTED_BY_TARGETS,
            "The target of this model takes no 'response_format' together with tools: leave one of them out.",
            param="response_format",
        )
    body["response_format"] = {"type": "json_object"}
    if wanted.schema is not None:
        body["response_format"]["json_schema"] = wanted.schema
    else:
        _json_mode.add_word(body["messages"])


def _add_sampling(prompt: Prompt, body: Json, ignored: dict[str, None]) -> None:
    if prompt.temperature is not None:
        body["temperature"] = _between(0.0, prompt.temperature, 1.0)
        if prompt.temperature > 1:
            ignored["temperature"] = None
    if prompt.top_p is not None:
        body["p"] = _between(_LEAST_P, prompt.top_p, _MOST_P)  # the API refuses 1; 0.99 hardly differs
    if prompt.top_k is not None and prompt.top_k >= 0:
        body["k"] = min(prompt.top_k, _MOST_K)
    if prompt.seed is not None:
        if prompt.seed in _SEEDS:
            body["seed"] = prompt.seed
        else:
            ignored["seed"] = None
    if stops := [stop for stop in prompt.stop if stop]:
        body["stop_sequences"] = stops[:_MOST_STOPS]
        if len(stops) > _MOST_STOPS:
            ignored["stop"] = None
    _add_penalty(prompt, body, ignored)


def _add_penalty(prompt: Prompt, body: Json, ignored: dict[str, None]) -> None:
    """Set one of the two penalties, from 0 to 1; the API refuses both together."""
    for name, value in (
        ("frequency_penalty", prompt.frequency_penalty),
        ("presence_penalty", prompt.presence_penalty),
    ):
        if not value:
            continue
        if value < 0 or "frequency_penalty" in body:
            ignored[name] = None
            continue
        body[name] = min(value, 1.0)
        if value > 1:
            ignored[name] = None


def _between(least: float, value: float, most: float) -> float:
    return min(max(value, least), most)


def _add_thinking(
    prompt: Prompt, destination: Destination, body: Json, ignored: dict[str, None], *, thinks: bool
) -> None:
    """Set `thinking`, and `max_tokens`, which must leave room for an answer."""
    limit, most = prompt.max_tokens, destination.max_output_tokens
    budget = prompt.thinking_budget
    if budget is None and prompt.effort is not None:
        # Cohere advises no budget at the highest level.
        budget = None if prompt.effort == "xhigh" else _effort.budget(prompt.effort)
    wanted = bool(budget) or prompt.effort == "xhigh" or prompt.thinking_adaptive
    if not thinks:
        if wanted:
            ignored["reasoning_effort" if prompt.effort is not None else "thinking"] = None
    elif budget:
        if limit is not None and limit <= budget:
            limit += budget
        if most is not None and (limit is None or limit > most):
            budget = min(budget, max(most - _ROOM, most // 2, 1))
        body["thinking"] = {"type": "enabled", "token_budget": budget}
    elif wanted:
        body["thinking"] = {"type": "enabled"}
    elif budget == 0:
        body["thinking"] = {"type": "disabled"}
    if thinks and prompt.show_thinking is False and (wanted or budget != 0):
        ignored["show_thinking"] = None
    if (limit := _limits.capped(limit, most)) is not None:
        body["max_tokens"] = limit

"""Usage of a response, written and read, and further billed units: searches, containers, and images drawn by another
model.

Sources: https://github.com/openai/openai-python/blob/main/src/openai/types/responses/response_usage.py, .../response.py
(`tool_usage`) and https://platform.openai.com/docs/pricing#built-in-tools
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from extproc.dialects import MAX_TOKENS
from extproc.dialects._calls import SHELL, container_size
from extproc.dialects._named import DRAWS, DRAWS_WITH
from extproc.dialects._usage import MOST_CALLS, are_counts, first_count, make_usage, told_calls, told_cost, told_kinds
from extproc.dialects.openai_chat.usage import kinds_of
from extproc.dialects.openai_responses.shapes import Body, Offered, Output
from extproc.words.exchange import Kinds, Usage

_CALLS = {"web_search_call": "searches", "file_search_call": "file_searches"}
_RUNS, _SHELL_RUNS = "code_interpreter_call", "shell_call"
_NO_SEARCH = ("open_page", "find_in_page")


def read_usage(said: Any) -> Usage | None:
    """Usage of a usage object; None without plausible counts."""
    if not isinstance(said, dict):
        return None
    input_tokens, output_tokens = said.get("input_tokens"), said.get("output_tokens")
    if not are_counts(input_tokens, output_tokens):
        return None
    of_input, of_output = said.get("input_tokens_details"), said.get("output_tokens_details")
    of_input = of_input if isinstance(of_input, dict) else {}
    of_output = of_output if isinstance(of_output, dict) else {}
    return make_usage(
        input_tokens or 0,
        output_tokens or 0,
        cached=first_count(of_input.get("cached_tokens")),
        reasoning=first_count(of_output.get("reasoning_tokens")),
        cache_write=first_count(of_input.get("cache_write_tokens")),
        kinds={**kinds_of(of_input, of_output), **told_calls(said)},
        cost=told_cost(said),
    )


def write_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


# --- billed units beside the model's tokens


def fees_of(items: Iterable[Output], tools: Sequence[Offered] | None = None, told: Any = None) -> dict[str, int]:
    """Billed calls by field of `Kinds`: each search, and the gigabytes of each container that a call started.

    `tools` are the request's tools, repeated in the response. `told` is its `tool_usage`, whose count of searches
    replaces the items'.
    """
    found: dict[str, int] = {}
    containers = set()
    for item in items:
        kind = _CALLS.get(item.type) if isinstance(item.type, str) else None
        if item.type == _RUNS:
            containers.add(item.container_id if isinstance(item.container_id, str) else "")
        elif item.type == _SHELL_RUNS:
            containers |= _of_shell(item.environment)
        elif kind is not None and not (isinstance(item.action, dict) and item.action.get("type") in _NO_SEARCH):
            found[kind] = found.get(kind, 0) + 1
    if containers:
        sizes = [
            container_size(tool.type, tool.container, tool.environment)
            for tool in tools or ()
            if tool.type in ("code_interpreter", SHELL)
        ]
        found["sessions"] = len(containers) * max(sizes, default=1)
    search = told.get("web_search") if isinstance(told, dict) else None
    if isinstance(search, dict) and "num_requests" in search:
        found["searches"] = first_count(search["num_requests"])
    return {kind: min(count, MOST_CALLS) for kind, count in found.items()}


def _of_shell(environment: Any) -> set[str]:
    """The id of the container in which a shell ran; empty for a shell of the client."""
    id = environment.get("container_id") if isinstance(environment, dict) else None
    return {id} if isinstance(id, str) else set()


def billed(said: Body) -> Usage | None:
    """Usage of a plain response, from `usage_of`, with its billed calls."""
    usage = usage_of(said)
    fees = fees_of(said.output or (), said.tools, said.tool_usage)
    return replace(usage, kinds=replace(usage.kinds or Kinds(), **fees)) if usage is not None and fees else usage


def usage_of(said: Body) -> Usage | None:
    """Usage of a response, with the share of a drawing model; None without plausible counts."""
    usage = read_usage(said.usage)
    drawn = said.tool_usage.get("image_gen") if isinstance(said.tool_usage, dict) else None
    if usage is None or not isinstance(drawn, dict):
        return usage
    part = _drawn(drawn)
    if part is None or not part.total_tokens:
        return usage
    named = (tool.model for tool in said.tools or () if tool.type == DRAWS)
    model = next((name for name in named if isinstance(name, str) and name), DRAWS_WITH)
    if max(usage.input_tokens + part.input_tokens, usage.output_tokens + part.output_tokens) > MAX_TOKENS:
        return None
    return replace(
        usage,
        input_tokens=usage.input_tokens + part.input_tokens,
        output_tokens=usage.output_tokens + part.output_tokens,
        cached_tokens=usage.cached_tokens + part.cached_tokens,
        beyond=usage.beyond + part.total_tokens,
        shares={model: part},
    )


def _drawn(said: Mapping[str, Any]) -> Usage | None:
    """Usage of the drawing model. All of its output is image unless the details differ."""
    details = [said.get(name) for name in ("input_tokens_details", "output_tokens_details", "cached_tokens_details")]
    given, written, cached = (one if isinstance(one, dict) else {} for one in details)
    output = first_count(said.get("output_tokens"))
    return make_usage(
        first_count(said.get("input_tokens")),
        output,
        cached=first_count(said.get("cached_tokens")),
        kinds=told_kinds(
            image_input=given.get("image_tokens"),
            image_cached=cached.get("cached_image_tokens"),
            image_output=written.get("image_tokens", output),
        ),
    )

"""Usage of a response, written and read.

Source: https://github.com/openai/openai-python/blob/main/src/openai/types/responses/response_usage.py
"""

from __future__ import annotations

from typing import Any

from extproc.dialects._usage import are_counts, first_count, make_usage, told_cost
from extproc.dialects.openai_chat.usage import kinds_of
from extproc.words.exchange import Usage


def read_usage(said: Any) -> Usage | None:
    """The counts of a usage object; None when it has none that can be believed."""
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
        kinds=kinds_of(of_input, of_output),
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

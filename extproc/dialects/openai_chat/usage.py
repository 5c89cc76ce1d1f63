"""Usage of chat completions, written and read. Completions and embeddings of OpenAI have the same fields.

Providers of this API differ. Sources of each shape: `tests/dialects/usage_shapes.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects import token_count
from extproc.dialects._usage import are_counts, first_count, make_usage, told_calls, told_cost, told_kinds
from extproc.words.exchange import Usage

_THINKING = 1 << 17
"""Highest plausible count of thinking tokens outside of the output, and so outside of its limit."""


def read_usage(said: Any) -> Usage | None:
    """Usage of a usage object; None without plausible counts.

    Cached tokens have other names at DeepSeek, Moonshot and Databricks. Missing input or output (Fireworks) is computed
    from the total.
    """
    if not isinstance(said, dict):
        return None
    input_tokens, output_tokens = said.get("prompt_tokens"), said.get("completion_tokens")
    if not are_counts(input_tokens, output_tokens):
        return None
    total = token_count(said.get("total_tokens")) or 0
    if input_tokens is None:
        input_tokens = max(0, total - (output_tokens or 0))
    if output_tokens is None:
        output_tokens = max(0, total - input_tokens)
    of_input, of_output = _details(said.get("prompt_tokens_details")), _details(said.get("completion_tokens_details"))
    cached = first_count(
        of_input.get("cached_tokens"),
        said.get("prompt_cache_hit_tokens"),
        said.get("cached_tokens"),
        said.get("cache_read_input_tokens"),
    )
    cache_write = first_count(of_input.get("cache_write_tokens"), said.get("cache_creation_input_tokens"))
    reasoning = first_count(of_output.get("reasoning_tokens"), said.get("reasoning_tokens"))
    beyond = 0
    if "citation_tokens" in said:  # perplexity bills citations and reasoning, and excludes both from the total
        beyond = reasoning + first_count(said["citation_tokens"])
        input_tokens += first_count(said["citation_tokens"])
        output_tokens += reasoning
    elif (rest := total - input_tokens - output_tokens) > 0:
        # Mistral's audio; Anthropic's cached tokens.
        if said.get("prompt_audio_seconds") or rest == cached + cache_write:
            input_tokens += rest
        else:  # xAI counts reasoning beside the output; Google reports thoughts only in the total
            output_tokens += rest
            reasoning = max(reasoning, rest)
            beyond = min(rest, _THINKING)
    return make_usage(
        input_tokens,
        output_tokens,
        cached=cached,
        reasoning=reasoning,
        cache_write=cache_write,
        beyond=beyond,
        kinds={**kinds_of(of_input, of_output), **told_calls(said)} if of_input or of_output else None,
        cost=told_cost(said),
    )


def kinds_of(of_input: Mapping[str, Any], of_output: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of `Kinds` in the details of input and output."""
    of_cached = _details(of_input.get("cached_tokens_details"))
    return told_kinds(
        audio_input=of_input.get("audio_tokens"),
        audio_cached=of_cached.get("audio_tokens"),
        image_input=of_input.get("image_tokens"),
        image_cached=of_cached.get("image_tokens"),
        video_input=of_input.get("video_tokens"),
        audio_output=of_output.get("audio_tokens"),
        image_output=of_output.get("image_tokens"),
    )


def write_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _details(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

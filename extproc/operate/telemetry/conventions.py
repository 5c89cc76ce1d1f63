"""Metrics whose names OpenTelemetry's conventions for generative AI changed: `telemetry.semconv` chooses the names.

`latest` are the names of open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md and
client-embeddings.md, in Prometheus form. `v1.41` are the last names of open-telemetry/semantic-conventions. In the
former repository docs/gen-ai/non-normative/migration.md compares both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from extproc.operate.telemetry.declared import Group, counts, histogram
from extproc.settings.config import Semconv
from extproc.words.exchange import Exchange

# Buckets of histograms, as the conventions advise.
DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

MODELS = ("gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")
OPERATION = ("gen_ai_operation_name", *MODELS, "error_type")
_SPENT = ("gen_ai_operation_name", *MODELS, "gen_ai_token_modality")

EMBEDDINGS = "embeddings"


class Conventions(Protocol):
    """The metrics of one version."""

    def count(self, exchange: Exchange, labels: tuple[str, ...]) -> None:
        """Count an exchange with a model that ended. `labels` are the values of OPERATION."""
        ...


class Latest(Group):
    heading = "metric of inference"

    _duration = histogram(
        "gen_ai_client_inference_duration_seconds",
        "From the request's departure to a provider to the end of the answer, with all tries.",
        *OPERATION,
        bounds=DURATION,
    )
    _first_chunk = histogram(
        "gen_ai_client_inference_time_to_first_chunk_seconds",
        "From the request's departure to the first text of a streamed answer.",
        *("gen_ai_operation_name", *MODELS),
        bounds=FIRST_TOKEN,
    )
    _input = histogram(
        "gen_ai_client_inference_operation_input_tokens",
        "Input tokens of an exchange, cached ones included.",
        *OPERATION,
        bounds=_TOKENS,
    )
    _output = histogram(
        "gen_ai_client_inference_operation_output_tokens",
        "Output tokens of an exchange, reasoning included.",
        *OPERATION,
        bounds=_TOKENS,
    )
    _inputs = counts(
        "gen_ai_client_inference_usage_input_tokens_total",
        "Input tokens, by `gen_ai_token_modality`: `text`, `image`, `audio`, `video`; `unknown` where the provider "
        "does not tell them apart.",
        *_SPENT,
    )
    _outputs = counts("gen_ai_client_inference_usage_output_tokens_total", "Output tokens, likewise.", *_SPENT)
    _cache_read = counts(
        "gen_ai_client_inference_usage_cache_read_input_tokens_total",
        "Input tokens that a provider read from its prompt cache.",
        *_SPENT,
    )
    _cache_write = counts(
        "gen_ai_client_inference_usage_cache_write_input_tokens_total",
        "Input tokens that a provider wrote to its prompt cache.",
        *_SPENT,
    )
    _reasoning = counts(
        "gen_ai_client_inference_usage_reasoning_output_tokens_total",
        "Output tokens that are reasoning.",
        *_SPENT,
    )
    _embeddings_duration = histogram(
        "gen_ai_client_embeddings_duration_seconds",
        "Duration of an exchange about embeddings, which counts in none of the above.",
        *OPERATION,
        bounds=DURATION,
    )
    _embeddings_input = histogram(
        "gen_ai_client_embeddings_operation_input_tokens",
        "Input tokens of such an exchange.",
        *("gen_ai_operation_name", *MODELS),
        bounds=_TOKENS,
    )

    def count(self, exchange: Exchange, labels: tuple[str, ...]) -> None:
        usage, of_model, since = exchange.money.usage, labels[:-1], exchange.route.sent - exchange.started
        if exchange.request.operation == EMBEDDINGS:
            self._embeddings_duration.series(labels).observe(exchange.seconds - since)
            if usage.source not in ("none", "pending"):
                self._embeddings_input.series(of_model).observe(usage.input_tokens)
            return
        self._duration.series(labels).observe(exchange.seconds - since)
        if exchange.request.ask.stream and exchange.answer.first_token is not None:
            self._first_chunk.series(of_model).observe(exchange.answer.first_token - since)
        if usage.source in ("none", "pending"):
            return
        self._input.series(labels).observe(usage.input_tokens)
        self._output.series(labels).observe(usage.output_tokens)
        totals = (
            (self._inputs, usage.input_tokens),
            (self._outputs, usage.output_tokens),
            (self._cache_read, usage.cached_tokens),
            (self._cache_write, usage.cache_write_tokens),
            (self._reasoning, usage.reasoning_tokens),
        )
        if (kinds := usage.kinds) is None:  # nearly always: no tokens of a kind with a price of its own
            alone = (*of_model, "text" if _is_text(exchange) else "unknown")
            for metric, total in totals:
                if total:
                    metric.add(alone, total)
            return
        of_input = (("image", kinds.image_input), ("audio", kinds.audio_input), ("video", kinds.video_input))
        of_output = (("image", kinds.image_output), ("audio", kinds.audio_output), ("video", kinds.video_output))
        cached = (("image", kinds.image_cached), ("audio", kinds.audio_cached))
        for (metric, total), parts in zip(totals, (of_input, of_output, cached, (), ()), strict=True):
            for modality, tokens in _split(total, parts) if total else ():
                metric.add((*of_model, modality), tokens)


def _split(total: int, parts: tuple[tuple[str, int], ...]) -> Iterator[tuple[str, int]]:
    """The tokens of each modality; all others are text."""
    for modality, tokens in parts:
        if tokens:
            total -= tokens
            yield modality, tokens
    if total > 0:
        yield "text", total


def _is_text(exchange: Exchange) -> bool:
    """True for a request that is text and asks for text."""
    ask = exchange.request.ask
    return not (ask.images or ask.packed_bytes or ask.file_bytes or ask.speaks or ask.unseen)


class Earlier(Group):
    heading = "metric of v1.41"

    _tokens = histogram(
        "gen_ai_client_token_usage",
        "Tokens, by `gen_ai_token_type` (`input`, `output`).",
        *OPERATION,
        "gen_ai_token_type",
        bounds=_TOKENS,
    )
    _operation = histogram(
        "gen_ai_client_operation_duration_seconds",
        "From the request's departure to a provider to the end of the answer, with all tries.",
        *OPERATION,
        bounds=DURATION,
    )
    _first_chunk = histogram(
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        "From the request's departure to the first text of a streamed answer.",
        *("gen_ai_operation_name", *MODELS),
        bounds=FIRST_TOKEN,
    )

    def count(self, exchange: Exchange, labels: tuple[str, ...]) -> None:
        usage, since = exchange.money.usage, exchange.route.sent - exchange.started
        self._operation.series(labels).observe(exchange.seconds - since)
        if exchange.request.ask.stream and exchange.answer.first_token is not None:
            self._first_chunk.series(labels[:-1]).observe(exchange.answer.first_token - since)
        if usage.source not in ("none", "pending"):
            self._tokens.series((*labels, "input")).observe(usage.input_tokens)
            if exchange.request.operation != EMBEDDINGS:
                self._tokens.series((*labels, "output")).observe(usage.output_tokens)


VERSIONS: dict[Semconv, type[Latest | Earlier]] = {"latest": Latest, "v1.41": Earlier}

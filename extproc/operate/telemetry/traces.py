"""Attributes of the span of an exchange.

Names follow OpenTelemetry's semantic conventions for generative AI and for MCP; further names begin with `extproc.`.
Sources: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md and mcp.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from extproc.tools.mcp.call import CALL
from extproc.upstream.prices import NANO
from extproc.words.exchange import Exchange, FeatureKey, Usage
from extproc.words.tries import FailedTry, outcome_of

if TYPE_CHECKING:
    from extproc.operate.telemetry.otlp import TraceContext, Value
    from extproc.settings.config import Semconv

TRACE: FeatureKey[TraceContext] = FeatureKey("trace")
"""Key of Envoy's span of its call, which the gateway attachment writes with `telemetry.traces`."""
_LONGEST = 256
_MOST_REASONS = 8
_WRITTEN = {"latest": "cache_write.input_tokens", "v1.41": "cache_creation.input_tokens"}


def attributes(
    exchange: Exchange, provider_name: Callable[[str], str], semconv: Semconv = "latest"
) -> Mapping[str, Value]:
    """The attributes of an ended exchange: numbers stay numbers, texts are short, empty ones are left out.
    `provider_name` gives OpenTelemetry's name of a provider.
    """
    found: dict[str, Value | None] = {
        "extproc.id": exchange.id,
        "extproc.outcome": exchange.ending.outcome,
        "extproc.guardrails": exchange.findings.header_value(),
        "error.type": error_type(exchange),
    }
    if exchange.answer.attempts:
        found["extproc.attempts"] = exchange.answer.attempts
    if hasattr(exchange.money, "labels"):
        labels = exchange.money.labels
        found["extproc.consumer"], found["extproc.team"] = exchange.consumer.name, exchange.consumer.team
        found["extproc.labels"] = msgspec.json.encode(labels).decode() if labels else ""
        found["gen_ai.conversation.id"] = labels.get("session", "")
    if exchange.money.cost is not None and exchange.route.forwarded:
        found["extproc.cost_usd"] = exchange.money.cost / NANO
    if (call := exchange.features.get(CALL)) is not None:
        found |= call.span_attributes(exchange)
    else:
        found |= _asked(exchange)
        if not exchange.route.of_tools:
            found |= _served(exchange, provider_name, semconv)
    return {
        name: value[:_LONGEST] if isinstance(value, str) else value
        for name, value in found.items()
        if value not in ("", None)
    }


def of_try(failed: FailedTry, exchange: Exchange, provider_name: Callable[[str], str]) -> Mapping[str, Value]:
    """The attributes of a try that failed. It has no usage: what the exchange costs stands in its own span."""
    model = next((target.model for target in exchange.route.targets if target.name == failed.target), failed.target)
    answered = outcome_of(failed.status) == failed.outcome
    found: dict[str, Value] = {
        "gen_ai.operation.name": exchange.request.operation,
        "gen_ai.provider.name": provider_name(failed.provider),
        "gen_ai.request.model": model[:_LONGEST],
        "error.type": str(failed.status) if answered else failed.outcome,
        "extproc.id": exchange.id,
        "extproc.provider": failed.provider,
    }
    if answered:
        found["http.response.status_code"] = failed.status
    return found


def error_type(exchange: Exchange) -> str:
    """The reason why an exchange failed: a code, or the status of a provider's error."""
    return exchange.error or (str(exchange.answer.status) if exchange.answer.status >= 400 else "")


def _asked(exchange: Exchange) -> dict[str, Value | None]:
    found: dict[str, Value | None] = {}
    if hasattr(exchange.request, "operation"):
        found["gen_ai.operation.name"] = exchange.request.operation
    if (ask := getattr(exchange.request, "ask", None)) is not None:
        found["gen_ai.request.model"] = ask.model
        found["gen_ai.request.max_tokens"] = ask.max_output_tokens
        found["gen_ai.request.stream"] = True if ask.stream else None  # the conventions define no value for others
        found["gen_ai.request.choice.count"] = ask.choices if ask.choices != 1 else None
    return found


def _served(exchange: Exchange, provider_name: Callable[[str], str], semconv: Semconv) -> dict[str, Value | None]:
    found: dict[str, Value | None] = {"gen_ai.response.time_to_first_chunk": exchange.answer.first_token}
    if (target := exchange.answer.target) is not None:
        found["extproc.provider"], found["gen_ai.provider.name"] = target.provider, provider_name(target.provider)
    if (report := exchange.answer.report) is not None:
        found["gen_ai.response.model"], found["gen_ai.response.id"] = report.model, report.id
        reasons = [reason[:64] for _, reason in sorted(report.finish_reasons.items())][:_MOST_REASONS]
        found["gen_ai.response.finish_reasons"] = reasons or (None if exchange.ending.complete else ["error"])
    if hasattr(exchange.money, "usage") and exchange.money.usage.source != "none":
        found |= _used(exchange.money.usage, semconv)
    return found


def _used(usage: Usage, semconv: Semconv) -> dict[str, Value | None]:
    """Attributes of tokens. Parts that are zero are left out, sums are not."""
    kinds = usage.kinds
    parts = {
        "cache_read.input_tokens": usage.cached_tokens,
        _WRITTEN[semconv]: usage.cache_write_tokens,
        "reasoning.output_tokens": usage.reasoning_tokens,
    }
    if kinds is not None:
        parts |= {
            "audio.input_tokens": kinds.audio_input,
            "audio.cache_read.input_tokens": kinds.audio_cached,
            "audio.output_tokens": kinds.audio_output,
            "image.input_tokens": kinds.image_input,
            "image.cache_read.input_tokens": kinds.image_cached,
            "image.output_tokens": kinds.image_output,
        }
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "extproc.usage_source": usage.source,
        **{f"gen_ai.usage.{name}": tokens or None for name, tokens in parts.items()},
    }

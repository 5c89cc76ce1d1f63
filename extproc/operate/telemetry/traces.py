"""Attributes of the span of an exchange. Envoy makes and sends the spans; the processor tells it what they say.

Names: OpenTelemetry's semantic conventions for generative AI and for MCP, and `extproc.` for what they do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from extproc.tools.mcp.call import CALL
from extproc.upstream.prices import NANO
from extproc.words.exchange import Exchange

ATTRIBUTES = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.tool.name",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "error.type",
    "http.url",
    "mcp.method.name",
    "mcp.protocol.version",
    "extproc.attempts",
    "extproc.consumer",
    "extproc.cost_usd",
    "extproc.guardrails",
    "extproc.id",
    "extproc.labels",
    "extproc.mcp_server",
    "extproc.outcome",
    "extproc.profile",
    "extproc.provider",
    "extproc.team",
)
"""All attributes that a span may have. Values are text: Envoy writes no others."""
_LONGEST = 256


def known(exchange: Exchange) -> Mapping[str, str]:
    """The attributes of an exchange that leaves for its provider, or never will."""
    found = {"extproc.id": exchange.id, "http.url": exchange.request.head.path.partition("?")[0]}
    if hasattr(exchange.money, "labels"):
        found["extproc.consumer"], found["extproc.team"] = exchange.consumer.name, exchange.consumer.team
        if exchange.money.labels:
            found["extproc.labels"] = msgspec.json.encode(exchange.money.labels).decode()
    if (call := exchange.features.get(CALL)) is not None:
        found |= call.span_attributes(exchange)
    else:
        if hasattr(exchange.request, "operation"):
            found["gen_ai.operation.name"] = exchange.request.operation
        if hasattr(exchange.request, "ask"):
            found["gen_ai.request.model"] = exchange.request.ask.model
    return {name: value[:_LONGEST] for name, value in found.items() if value}


def final(exchange: Exchange, provider_name: Callable[[str], str]) -> Mapping[str, str]:
    """The attributes of an exchange that ended. `provider_name` gives OpenTelemetry's name of a provider."""
    found = {"extproc.outcome": exchange.ending.outcome, "error.type": error_type(exchange)}
    if exchange.answer.attempts:
        found["extproc.attempts"] = str(exchange.answer.attempts)
    if verdicts := exchange.findings.told():
        found["extproc.guardrails"] = verdicts
    if not exchange.route.of_tools:
        found |= _served(exchange, provider_name)
    if exchange.money.cost is not None and exchange.route.forwarded:
        found["extproc.cost_usd"] = f"{exchange.money.cost / NANO:.9f}".rstrip("0").rstrip(".")
    return {**known(exchange), **{name: value[:_LONGEST] for name, value in found.items() if value}}


def error_type(exchange: Exchange) -> str:
    """Why an exchange that ended failed: a code, or the status of a provider's error."""
    return exchange.error or (str(exchange.answer.status) if exchange.answer.status >= 400 else "")


def _served(exchange: Exchange, provider_name: Callable[[str], str]) -> dict[str, str]:
    found = {}
    if (target := exchange.answer.target) is not None:
        found["extproc.provider"], found["gen_ai.provider.name"] = target.provider, provider_name(target.provider)
    if (report := exchange.answer.report) is not None:
        found["gen_ai.response.model"] = report.model
        found["gen_ai.response.finish_reasons"] = ",".join(report.finish_reasons.values())
    if hasattr(exchange.money, "usage") and exchange.money.usage.source != "none":
        found["gen_ai.usage.input_tokens"] = str(exchange.money.usage.input_tokens)
        found["gen_ai.usage.output_tokens"] = str(exchange.money.usage.output_tokens)
    return found

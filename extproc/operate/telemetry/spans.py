"""The processor's own spans of each exchange: `telemetry.traces`. Off by default.

Envoy makes the spans of requests and tries, but can write only text, and has no facts about an answer that broke off.
So the processor sends the span with model, usage and cost when the exchange has ended, in whatever way, and one for
each try that failed.

    client's span ─► Envoy's request ─┬─► its call of the processor ─► chat gpt-6.1-sol   the spans sent here
                                      │                              └─► chat gpt-6-luna    … of each failed try
                                      └─► a try …

Envoy's `traceparent` in the metadata of its call says whether the trace is recorded. A message by MCP can name its
caller's span itself, in `_meta` (SEP-414). Then the caller's span is the parent, and Envoy's span a link.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from extproc.operate.telemetry import otlp
from extproc.operate.telemetry.outbox import TIMEOUT, Outbox
from extproc.operate.telemetry.traces import TRACE, attributes, error_type, of_try
from extproc.settings.config import Semconv
from extproc.tools.mcp.call import CALL
from extproc.wire.outbound.unary import UnaryCalls
from extproc.words.exchange import Exchange
from extproc.words.tries import FailedTry

SERVICE = "llm-extproc"
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class SpanSender:
    """Sends spans to collectors, by their addresses."""

    def __init__(self) -> None:
        self._calls = UnaryCalls()

    async def send(self, to: str, batch: Sequence[bytes]) -> str:
        return await self._calls.call(to, _EXPORT, otlp.request(SERVICE, batch), TIMEOUT)

    async def close(self) -> None:
        await self._calls.close()


class TellSpan:
    """Sends the spans of an ended exchange and of its failed tries, if its trace is recorded."""

    def __init__(
        self, address: str, outbox: Outbox[str], provider_name: Callable[[str], str], semconv: Semconv
    ) -> None:
        self._address = address
        self._outbox = outbox
        self._provider_name = provider_name
        self._semconv = semconv

    def __call__(self, exchange: Exchange) -> None:
        here = exchange.features.get(TRACE)
        caller = None if here is None else _caller(exchange)
        if here is None or not (caller or here).sampled:
            return
        start = time.time_ns() - round((time.perf_counter() - exchange.started) * 1e9)
        found = attributes(exchange, self._provider_name, self._semconv)
        span = otlp.Span(
            os.urandom(8),
            caller or here,
            *_named(exchange, found),
            start,
            start + round(exchange.seconds * 1e9),
            found,
            error_type(exchange),
            here if caller is not None else None,
        )
        self._outbox.add(self._address, span.encode())
        if CALL not in exchange.features:
            for failed in exchange.answer.tries:
                self._outbox.add(self._address, self._failed_try(failed, exchange, span).encode())

    def _failed_try(self, failed: FailedTry, exchange: Exchange, whole: otlp.Span) -> otlp.Span:
        """The span of a try below that of its exchange."""
        found = of_try(failed, exchange, self._provider_name)
        parent = whole.parent._replace(span=whole.id)
        name = f"{found['gen_ai.operation.name']} {found['gen_ai.request.model']}".rstrip()
        end = failed.start + failed.ms * 1_000_000
        return otlp.Span(os.urandom(8), parent, name, otlp.CLIENT, failed.start, end, found, str(found["error.type"]))


def _named(exchange: Exchange, found: Any) -> tuple[str, int]:
    """Name and kind of the span."""
    if CALL in exchange.features:
        name, target, kind = found.get("mcp.method.name", "mcp"), found.get("gen_ai.tool.name", ""), otlp.SERVER
    else:
        name, target = found.get("gen_ai.operation.name", "request"), found.get("gen_ai.request.model", "")
        kind = otlp.CLIENT if exchange.route.forwarded else otlp.INTERNAL
    return f"{name} {target}".rstrip(), kind


def _caller(exchange: Exchange) -> otlp.TraceContext | None:
    """The span that a message by MCP names."""
    call = exchange.features.get(CALL)
    meta = None if call is None or call.message is None else call.message.params.get("_meta")
    told = meta.get("traceparent") if isinstance(meta, dict) else None
    return otlp.context(told) if isinstance(told, str) else None

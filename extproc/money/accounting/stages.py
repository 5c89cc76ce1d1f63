"""The stages of accounting, which run when an exchange has ended, and the stage that sends prompts to a collector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from extproc.exchange.services import Services
from extproc.guardrails import AwaitAudits
from extproc.money.accounting.books import Enter
from extproc.money.accounting.late import Park
from extproc.money.accounting.settle import Settle
from extproc.money.accounting.tries import AwaitEnd, AwaitTries
from extproc.operate.telemetry.metrics import Record
from extproc.settings.config import Settings
from extproc.upstream.credentials.asking import Asking
from extproc.words.exchange import Exchange

Stage = Callable[[Exchange], Any]


def settle(settings: Settings, services: Services) -> Settle:
    books, tools, limits = services.books, services.tools, settings.limits
    asking = Asking(settings.providers, None)
    park = Park(
        services.counters,
        books.told,
        hold=limits.pending_hold,
        most=limits.pending,
        able=asking.able,
        now=services.now,
    )
    return Settle(
        services.counters,
        services.leases,
        services.telemetry.budget,
        keep=lambda: books.keeps,
        owe=books.owe,
        expected=tools.expected,
        exact=tools.exact,
        park=park,
    )


def await_end(services: Services) -> Sequence[AwaitEnd]:
    return [] if services.failed is None else [AwaitEnd(services.failed)]


def record(settings: Settings, services: Services) -> Sequence[Stage]:
    """The stages that record an exchange, at once or when all facts about it are known."""
    record: Sequence[Stage] = (
        Record(services.telemetry),
        services.audit_events,
        Enter(services.books),
        *tell_span(settings, services),
    )
    await_audits = AwaitAudits(services.audits, record)
    failed = services.failed
    return [*([] if failed is None else [AwaitTries(failed, (await_audits, *record))]), await_audits, *record]


def tell_prompt(settings: Settings, services: Services) -> Sequence[Stage]:
    """The stage that sends prompts to a collector, if the settings name one."""
    if settings.telemetry.prompts is None:
        return []
    from extproc.operate.telemetry.prompts import PromptSender, TellPrompt  # noqa: PLC0415 - few gateways send prompts

    telemetry = services.telemetry
    outbox = telemetry.outbox("telemetry.prompts", PromptSender, telemetry.prompt_events)
    return [TellPrompt(settings.telemetry.prompts, outbox)]


def tell_span(settings: Settings, services: Services) -> Sequence[Stage]:
    """The stage that sends spans to a collector, if the settings name one."""
    if (traces := settings.telemetry.traces) is None:
        return []
    from extproc.operate.telemetry.spans import SpanSender, TellSpan  # noqa: PLC0415 - grpc takes 8 MB

    telemetry = services.telemetry
    outbox = telemetry.outbox("telemetry.traces", SpanSender, telemetry.spans)
    return [TellSpan(traces.otlp, outbox, telemetry.provider_name, settings.telemetry.semconv)]

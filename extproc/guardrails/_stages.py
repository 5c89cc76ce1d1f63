"""The stages of guardrails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from extproc.exchange.services import Services
from extproc.guardrails import GuardInput, GuardOutput
from extproc.guardrails._base import AskingSettings
from extproc.guardrails._held import HoldCalls
from extproc.money.budgets.stages import downgrades
from extproc.routing.catalog import Catalog
from extproc.settings.config import Settings
from extproc.wire.transport.workers import private_socket


def stages(settings: Settings, services: Services, catalog: Catalog) -> tuple[GuardInput, GuardOutput, list[HoldCalls]]:
    """The stages that read requests of clients and answers of models. The last is for guardrails that ask people."""
    services.results.most = settings.limits.quarantined
    services.audits.most = settings.limits.audited_text
    guard_output = GuardOutput(
        settings.guardrails,
        services.telemetry.guardrail,
        first_window=settings.limits.first_window,
        most=settings.limits.guardrail_scans,
        most_whole=settings.limits.buffered_response,
        audits=services.audits,
    )
    guard_input = searching(settings, services)(settings.guardrails, also=downgrades(settings, catalog))
    tell, most = services.telemetry.guardrail, settings.limits.buffered_response
    asks = any(isinstance(one, AskingSettings) and one.action == "ask" for one in settings.guardrails)
    return guard_input, guard_output, [HoldCalls(services.tools.questions, tell, most)] if asks else []


def searching(settings: Settings, services: Services) -> Callable[..., GuardInput]:
    """A function that makes a stage which searches texts, from guardrails and further keywords."""
    socket = private_socket(services.socket or settings.processor.path)
    return partial(
        GuardInput,
        tell=services.telemetry.guardrail,
        most=settings.limits.guardrail_scans,
        around=replace(settings.around_guardrails, private=socket),
        called=services.telemetry.guardrail_call,
        results=services.results,
        audits=services.audits,
    )

"""Prompts as OpenTelemetry events, behind the guardrails that mask: `telemetry.prompts`. Off by default.

Source: OTLP/HTTP 1.x in JSON; the event `gen_ai.client.inference.operation.details` of the semantic conventions for
generative AI, its attribute `gen_ai.input.messages`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.operate.telemetry.outbox import TIMEOUT, Outbox
from extproc.wire.framing.slices import LARGE
from extproc.wire.outbound.client import AnswerError, send
from extproc.words.exchange import Exchange
from extproc.words.values import Pattern

if TYPE_CHECKING:
    from extproc.settings.config import PromptsSettings

EVENT = "gen_ai.client.inference.operation.details"
MOST_PARTS = 1000
"""Most pieces of text in one event."""
_INFO = 9  # SeverityNumber


class PromptSender:
    """Sends events to the collectors in the settings."""

    async def send(self, to: PromptsSettings, batch: Sequence[bytes]) -> str:
        headers = {"content-type": "application/json"}
        token = None if to.token is None else to.token.read()
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        try:
            status, _ = await send(f"{to.otlp}/v1/logs", logs_request(batch), headers, timeout=TIMEOUT)
        except (OSError, ValueError, AnswerError) as error:
            return type(error).__name__
        return "" if status == 200 else f"status {status}"

    async def close(self) -> None:
        """Does nothing, because each request has its own connection."""


class TellPrompt:
    """Sends the prompts of exchanges that the settings choose, as they leave. It changes nothing."""

    def __init__(
        self,
        settings: PromptsSettings,
        outbox: Outbox[PromptsSettings],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._chance = chance
        self._without = [Pattern(name) for name in settings.without]

    def __call__(self, exchange: Exchange) -> None:
        settings = self._settings
        if self._chance() >= settings.sample or any(fits(exchange.consumer.name) for fits in self._without):
            return
        self._outbox.add(settings, msgspec.json.encode(_record(exchange, settings.longest)))


def _record(exchange: Exchange, longest: int) -> Mapping[str, Any]:
    """An OTLP log record. Its text has at most `longest` characters, and none for a large body or one that is not a
    JSON object.
    """
    now = str(time.time_ns())
    texts = list(_texts(exchange, longest)) if len(exchange.request.body) <= LARGE else []
    messages = [
        _dict({"role": _text(role), "parts": _list([_dict({"type": _text("text"), "content": _text(text)})])})
        for role, text in texts
    ]
    cut = not texts or sum(len(text) for _, text in texts) >= longest
    attributes = {
        "gen_ai.operation.name": _text(exchange.request.operation),
        "gen_ai.request.model": _text(exchange.request.ask.model[:256]),
        "gen_ai.input.messages": _list(messages),
        "extproc.id": _text(exchange.id),
        "extproc.consumer": _text(exchange.consumer.name),
        "extproc.team": _text(exchange.consumer.team),
        "extproc.masked": {"boolValue": any(verdict.action == "mask" for verdict in exchange.findings.verdicts)},
        "extproc.cut": {"boolValue": cut},
    }
    pairs = [{"key": key, "value": value} for key, value in attributes.items()]
    times = {"timeUnixNano": now, "observedTimeUnixNano": now}
    return {**times, "severityNumber": _INFO, "eventName": EVENT, "attributes": pairs}


def _texts(exchange: Exchange, longest: int) -> Iterator[tuple[str, str]]:
    """Role and text of messages in the body that leaves. The tree of the request may still hold masked text."""
    try:
        body = msgspec.json.decode(exchange.request.body)
    except msgspec.DecodeError:
        return
    if not isinstance(body, dict):
        return
    for number, text in enumerate(exchange.request.dialect.texts(body)):
        if longest <= 0 or number >= MOST_PARTS:
            return
        value = text.value[:longest]
        longest -= len(value)
        yield text.role, value


def _text(value: str) -> Mapping[str, Any]:
    return {"stringValue": value}


def _list(values: Sequence[Any]) -> Mapping[str, Any]:
    return {"arrayValue": {"values": values}}


def _dict(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"kvlistValue": {"values": [{"key": key, "value": value} for key, value in values.items()]}}


def logs_request(records: Sequence[bytes]) -> bytes:
    """An ExportLogsServiceRequest."""
    resource = {"attributes": [{"key": "service.name", "value": _text("llm-extproc")}]}
    logs = {"scope": {"name": "extproc"}, "logRecords": [msgspec.Raw(record) for record in records]}
    return msgspec.json.encode({"resourceLogs": [{"resource": resource, "scopeLogs": [logs]}]})

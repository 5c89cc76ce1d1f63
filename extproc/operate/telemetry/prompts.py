"""Prompts as OpenTelemetry events, behind the guardrails that mask: `telemetry.prompts`. Off by default.

Source: OTLP/HTTP 1.x in JSON; the event `gen_ai.client.inference.operation.details` of the semantic conventions for
generative AI, its attribute `gen_ai.input.messages`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.wire.framing.slices import LARGE
from extproc.wire.outbound.client import AnswerError, send
from extproc.words.exchange import Exchange
from extproc.words.values import Pattern

if TYPE_CHECKING:
    from extproc.settings.config import PromptsSettings

EVENT = "gen_ai.client.inference.operation.details"
MOST_WAITING = 4 << 20
"""Bytes of events that wait to be sent. Further ones are dropped, and counted."""
MOST_PARTS = 1000
"""Pieces of text in one event."""
_BATCH = 100  # events in one request
_PAUSE = 1.0  # seconds that events wait for others
_TIMEOUT = 5.0  # seconds for the collector to answer
_TELL_EVERY = 60.0  # seconds between two log lines about a collector that fails
_INFO = 9  # SeverityNumber

log = logging.getLogger(__name__)


class PromptLog:
    """Sends events, and drops them where the collector does not keep up. `count` gets sent, failed or dropped."""

    def __init__(self, count: Callable[[str, int], None], *, pause: float = _PAUSE) -> None:
        self._count = count
        self._pause = pause
        self._waiting: deque[tuple[PromptsSettings, bytes]] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._told = -_TELL_EVERY

    def add(self, settings: PromptsSettings, record: bytes) -> None:
        """Send it soon. Never blocks."""
        if self._size + len(record) > MOST_WAITING:
            self._count("dropped", 1)
            return
        self._waiting.append((settings, record))
        self._size += len(record)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self, seconds: float) -> None:
        """Send what waits, for so many seconds at most."""
        self._pause = 0.0
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
            self._task.cancel()

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause)
            settings = self._waiting[0][0]
            batch: list[bytes] = []
            while self._waiting and len(batch) < _BATCH and self._waiting[0][0] is settings:
                batch.append(self._waiting.popleft()[1])
            sent = await self._send(settings, batch)
            self._size -= sum(map(len, batch))
            self._count("sent" if sent else "failed", len(batch))

    async def _send(self, settings: PromptsSettings, batch: Sequence[bytes]) -> bool:
        headers = {"content-type": "application/json"}
        token = None if settings.token is None else settings.token.read()
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        try:
            status, _ = await send(f"{settings.otlp}/v1/logs", _message(batch), headers, timeout=_TIMEOUT)
        except (OSError, ValueError, AnswerError) as error:
            self._complain(type(error).__name__)
            return False
        if status != 200:
            self._complain(f"status {status}")
        return status == 200

    def _complain(self, reason: str) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._told = time.monotonic()
            log.warning("the collector of telemetry.prompts takes no events: %s", reason)


class TellPrompt:
    """Sends the prompt that leaves, of the exchanges that the settings choose. It changes nothing."""

    def __init__(
        self, settings: PromptsSettings, prompts: PromptLog, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._chance = chance
        self._without = [Pattern(name) for name in settings.without]

    def __call__(self, exchange: Exchange) -> None:
        settings = self._settings
        if self._chance() >= settings.sample or any(fits(exchange.consumer.name) for fits in self._without):
            return
        self._prompts.add(settings, msgspec.json.encode(_record(exchange, settings.longest)))


def _record(exchange: Exchange, longest: int) -> Mapping[str, Any]:
    """An OTLP log record. Its text has up to `longest` characters; none of a body that is large, or no JSON object."""
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
    """Role and text of the body that leaves: the tree of the request may still have what guardrails masked."""
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


def _message(records: Sequence[bytes]) -> bytes:
    """An ExportLogsServiceRequest."""
    resource = {"attributes": [{"key": "service.name", "value": _text("llm-extproc")}]}
    logs = {"scope": {"name": "extproc"}, "logRecords": [msgspec.Raw(record) for record in records]}
    return msgspec.json.encode({"resourceLogs": [{"resource": resource, "scopeLogs": [logs]}]})

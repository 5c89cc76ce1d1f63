"""Alerts: a POST to a webhook when a budget reaches one of its `alert_at`, once for each count and window in all of a
fleet, and for each question to operators. The field `text` is for people: incoming webhooks of Slack show it.

The counters store decides which process sends an alert: the first to take the single unit of a count made for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from extproc.access.questions import Asked, Question
from extproc.money.budgets import Alert, Budget, read_scope
from extproc.stores import Counters, Granted, Hold, StoreError
from extproc.upstream import prices
from extproc.wire.outbound.client import AnswerError, send

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Most alerts waiting to be sent; further alerts are dropped and counted."""
_AT_ONCE = 4
_TIMEOUT = 5.0  # seconds for a webhook to answer
_AGAIN = (1.0, 5.0, 25.0)  # seconds to wait before trying again
_LEASE = 120.0  # seconds of the lease on an alert: longer than all its tries together


class Alerts:
    """Sends alerts. `count` gets the outcome of each alert: told, failed, dropped. Alerts of other processes are not
    counted.
    """

    def __init__(
        self,
        counters: Counters,
        count: Callable[[str], None],
        *,
        again: Sequence[float] = _AGAIN,
        timeout: float = _TIMEOUT,
        at_once: int = _AT_ONCE,
    ) -> None:
        self._counters = counters
        self._count = count
        self._again = again
        self._timeout = timeout
        self._at_once = at_once
        self._waiting: asyncio.Queue[Alert | Asked] = asyncio.Queue(MOST_WAITING)

    def tell(self, alert: Alert | Asked) -> None:
        """Queue an alert, where it has a webhook. Never blocks."""
        if _webhook(alert) is None:
            return
        try:
            self._waiting.put_nowait(alert)
        except asyncio.QueueFull:
            self._count("dropped")

    async def run(self) -> None:
        """Send queued alerts until cancelled. A webhook that does not answer delays few other alerts."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._at_once):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            alert = await self._waiting.get()
            try:
                if isinstance(alert, Asked) or await self._first(alert):
                    told = await self._post(alert)
                    self._count("told" if told else "failed")
                    if not told:
                        budget = alert.question.budget if isinstance(alert, Asked) else alert.budget.settings.name
                        log.warning("the webhook of %s did not take an alert", budget or "mcp.approvals")
            finally:
                self._waiting.task_done()

    async def _first(self, alert: Alert) -> bool:
        """True when this process is to send the alert. It is also True if the store does not answer, because an alert
        sent twice is better than no alert.
        """
        # No name of a budget begins with this prefix.
        scope, id = f"!alert:{alert.threshold}:{alert.scope}", uuid.uuid4().hex
        idle = alert.budget.settings.idle_ttl if alert.budget.window == 0 else 0.0
        try:
            outcome = await self._counters.reserve(id, [Hold(scope, alert.budget.window, 1, 1, idle=idle)], _LEASE)
            if isinstance(outcome, Granted):
                await self._counters.settle(id, [1])
        except StoreError:
            return True
        return isinstance(outcome, Granted)

    async def _post(self, alert: Alert | Asked) -> bool:
        url = _webhook(alert) or ""
        now = time.time()
        body = msgspec.json.encode(describe_question(alert, now) if isinstance(alert, Asked) else describe(alert, now))
        for wait in (*self._again, None):
            with contextlib.suppress(OSError, ValueError, AnswerError):  # TimeoutError is an OSError
                status, _ = await send(url, body, {"content-type": "application/json"}, timeout=self._timeout)
                if 200 <= status < 300:
                    return True
            if wait is not None:
                await asyncio.sleep(wait)
        return False


def _webhook(alert: Alert | Asked) -> str | None:
    return alert.webhook if isinstance(alert, Asked) else alert.budget.settings.alert_webhook


def describe(alert: Alert, now: float) -> Mapping[str, Any]:
    """The body of the POST about a budget. Amounts are text: decimals in USD, whole numbers in other units."""
    budget = alert.budget
    limit = budget.show(budget.limit, unit=True)
    return {
        "text": _plain(f"Budget {budget.name}: {alert.used:.0%} of {limit} is used ({_whose(alert.scope)})."),
        "event": "budget_alert",
        "time": moment(now),
        "budget": budget.settings.name,
        "scope": alert.scope,
        "fields": read_scope(alert.scope)[1],
        "unit": budget.settings.unit,
        "window": budget.settings.window,
        "threshold": alert.threshold,
        "used": round(alert.used, 4),
        "limit": amount(budget, budget.limit),
        "mode": budget.settings.mode,
        "resets_at": None if alert.ends is None else moment(alert.ends),
    }


def describe_question(asked: Asked, now: float) -> Mapping[str, Any]:
    """The body of the POST about a question to operators."""
    budget, question = asked.rule, asked.question
    who = question.consumer or "A client"
    if question.call is not None:
        called = question.call
        where = (
            f"of {called.server} (profile {called.profile})" if called.profile else f"in an answer of {called.server}"
        )
        said = f"{who} wants to call {called.tool} {where}."
    else:
        wanted = budget.show(question.amount, unit=True)
        said = f"{who} asks for up to {wanted} beyond the budget {budget.name} ({_whose(question.scope)}), "
        said += f"{question.model or question.operation}."
    return {
        "text": _plain(f"{said} Answer in the console, or: extproc approvals --approve {question.id}"),
        "event": "budget_question" if question.call is None else "tool_call_question",
        "time": moment(now),
        **told_question(question, budget),
        **({"call": {**msgspec.structs.asdict(question.call), "arguments": ""}} if question.call is not None else {}),
    }


def told_question(question: Question, budget: Budget | None) -> Mapping[str, Any]:
    """The facts of a question, for operators. `budget` is that of a request without room."""
    return {
        "id": question.id,
        "budget": question.budget,
        "scope": question.scope,
        "fields": {} if budget is None else read_scope(question.scope)[1],
        "unit": question.unit or "tool_calls",
        "amount": str(question.amount) if budget is None else amount(budget, question.amount),
        "call": None if question.call is None else msgspec.structs.asdict(question.call),
        "consumer": question.consumer,
        "team": question.team,
        "key": question.key,
        "labels": question.labels,
        "operation": question.operation,
        "model": question.model,
        "asked_at": moment(question.asked),
        "expires_at": moment(question.expires),
    }


def _whose(scope: str) -> str:
    return ", ".join(f"{name}={value}" for name, value in read_scope(scope)[1].items()) or "shared by all"


def _plain(text: str) -> str:
    """The text, escaped so that Slack sees no markup in it. Source:
    https://docs.slack.dev/messaging/formatting-message-text.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def amount(budget: Budget, value: int) -> str:
    """An amount of the budget's unit as text: `12.5` (USD), `1000`."""
    return prices.decimal(value) if budget.counts_money else str(value)


def moment(at: float) -> str:
    """Seconds since the epoch as RFC 3339, UTC, in whole seconds."""
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")

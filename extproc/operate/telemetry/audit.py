"""Events of the audit trail, in the Elastic Common Schema: refusals, verdicts, tool calls, acts, new settings.

https://www.elastic.co/docs/reference/ecs/ecs-category-field-values-reference The gateway's own fields are in `extproc`.
No event has a body, an argument, a credential or the text of a finding.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from extproc.money.ledger.trail import Event
from extproc.tools.mcp.call import CALL
from extproc.words.exchange import Ending, Exchange

MOST_WAITING = 10_000
"""Most events that wait for the database; further ones are dropped, and an event says so."""
MOST_REFUSALS = 1000
"""Most different refusals that are counted separately between two writes."""
_VERSION = "8.17.0"
_TOOLS_CALL = "tools/call"
_REFUSED = (Ending.REFUSED, Ending.CUT, Ending.WITHHELD, Ending.BAD_ANSWER)
_Kind = tuple[str, Sequence[str], Sequence[str]]  # action, categories, types
_REFUSAL: _Kind = "refusal", ["api"], ["access", "denied"]
_CALLED: _Kind = "tool-call", ["api"], ["access"]
_VERBS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {  # categories and types, by operation of the admin API
    "sign_in": (["authentication"], ["start"]),
    "sign_out": (["authentication"], ["end"]),
    "issue_key": (["iam"], ["creation"]),
    "revoke_key": (["iam"], ["deletion"]),
    "grant": (["configuration"], ["creation"]),
    "revoke": (["configuration"], ["deletion"]),
    "decide": (["configuration"], ["change"]),
    "reset_count": (["configuration"], ["change"]),
    "change_settings": (["configuration"], ["change"]),
    "stop_canary": (["configuration"], ["change"]),
    "export": (["database"], ["access"]),
    "read_texts": (["database"], ["access"]),
    "forget_consumer": (["database"], ["deletion"]),
    "forget_answers": (["database"], ["deletion"]),
}


@dataclass(slots=True)
class _Refusals:
    """Equal refusals since the last write: the latest exchange, and their number."""

    event: Event
    count: int = 1


class AuditEvents:
    """The events of one process that are not written yet. It is also a stage, the last but one of an exchange."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._events: list[Event] = []
        self._refusals: dict[tuple[str, ...], _Refusals] = {}
        self._lost = 0

    def __call__(self, exchange: Exchange) -> None:
        if exchange.findings.verdicts:
            for verdict in verdicts(exchange, self._now()):
                self.add(verdict)
        if exchange.ending in _REFUSED:
            self._refuse(exchange)
        call = exchange.features.get(CALL)
        if call is not None and getattr(exchange.request, "operation", "") == _TOOLS_CALL:
            self.add(_event(exchange, self._now(), _CALLED, {"mcp": call.log_fields(exchange)}))

    def add(self, event: Event) -> None:
        """Queue an event for the next write. Never blocks."""
        if len(self._events) >= MOST_WAITING:
            self._lost += 1
        else:
            self._events.append(event)

    def take(self) -> Sequence[Event]:
        """The events to write now. If the write fails, return them with `put_back`."""
        found, self._events = self._events, []
        for refusals in self._refusals.values():
            fields = {**refusals.event.fields}
            fields["extproc"] = {**fields["extproc"], "count": refusals.count}
            found.append(Event(refusals.event.id, refusals.event.time, fields, refusals.event.consumer))
        self._refusals = {}
        if self._lost:
            found.append(event("audit-loss", ["process"], ["error"], self._now(), extproc={"lost": self._lost}))
            self._lost = 0
        return found

    def put_back(self, events: Sequence[Event]) -> None:
        """Keep events for the next write, the oldest first."""
        kept = [*events, *self._events]
        self._lost += max(0, len(kept) - MOST_WAITING)
        self._events = kept[:MOST_WAITING]

    def _refuse(self, exchange: Exchange) -> None:
        """Count a refusal with equal ones, so that a client that keeps asking does not fill the database."""
        who = exchange.consumer.name if hasattr(exchange, "consumer") else ""
        key = (who, exchange.money.key, exchange.error, exchange.money.denied_by)
        if len(self._refusals) >= MOST_REFUSALS and key not in self._refusals:
            key = ("", "", "other", "")
        if (known := self._refusals.get(key)) is not None:
            known.count += 1
            return
        own = {"code": "other"} if key[2] == "other" else {"code": exchange.error, "budget": exchange.money.denied_by}
        self._refusals[key] = _Refusals(_event(exchange, self._now(), _REFUSAL, own))


def act(actor: str, role: str, action: str, detail: Mapping[str, Any], now: float) -> Event:
    """An act of an operator. `action` is the operation of the admin API."""
    categories, types = _VERBS.get(action, (["configuration"], ["change"]))
    user, consumer = {"name": actor, "roles": [role]}, str(detail.get("consumer", ""))
    return event(
        action.replace("_", "-"), categories, types, now, consumer=consumer, user=user, extproc={"detail": dict(detail)}
    )


def settings(outcome: str, problem: str, now: float) -> Event:
    """New settings in the file: applied, applied in part, or refused."""
    failed = "failure" if outcome == "refused" else "success"
    found = {"outcome": outcome} | ({"problem": problem[:2000]} if problem else {})
    return event("settings", ["configuration"], ["change"], now, outcome=failed, extproc=found)


def verdicts(exchange: Exchange, now: float) -> Iterator[Event]:
    """The verdicts of guardrails on an exchange: kinds and counts, and for the first findings the field, the score and
    a keyed hash.
    """
    for verdict in exchange.findings.verdicts[:64]:
        found: dict[str, Any] = {"on": verdict.on, "action": verdict.action, "findings": verdict.kinds}
        found |= {"reason": verdict.reason} if verdict.reason else {}
        found |= {"examples": [asdict(one) for one in verdict.examples]} if verdict.examples else {}
        types = ["denied"] if verdict.action == "block" else ["error"] if verdict.action == "failed" else ["info"]
        rule = {"name": verdict.guardrail}
        about: _Kind = "guardrail", ["intrusion_detection"], types
        yield _event(exchange, now, about, found, kind="alert", rule=rule)


def _event(
    exchange: Exchange,
    now: float,
    about: _Kind,
    own: Mapping[str, Any],
    *,
    kind: str = "event",
    rule: Mapping[str, str] | None = None,
) -> Event:
    """An event about an exchange. `own` are fields of `extproc`."""
    consumer = exchange.consumer if hasattr(exchange, "consumer") else None
    ask = getattr(exchange.request, "ask", None)
    model = ask.model[:256] if ask is not None else ""
    operation = getattr(exchange.request, "operation", "")
    found = {**own, "exchange": exchange.id, "operation": operation, "key": exchange.money.key, "model": model}
    more: dict[str, Any] = {} if rule is None else {"rule": rule}
    if consumer is not None and consumer.name:
        more["user"] = {"name": consumer.name}
        more |= {"group": {"name": consumer.team}} if consumer.team else {}
    status = exchange.answer.status
    more["http"] = {"request": {"id": exchange.request.id[:128]}, "response": {"status_code": status}}
    failed = "failure" if exchange.error or status >= 400 else "success"
    name = "" if consumer is None else consumer.name
    own = {name: value for name, value in found.items() if value not in ("", None)}
    return event(*about, now, outcome=failed, kind=kind, consumer=name, extproc=own, **more)


def event(
    action: str,
    categories: Sequence[str],
    types: Sequence[str],
    now: float,
    *,
    outcome: str = "success",
    kind: str = "event",
    consumer: str = "",
    **more: Any,
) -> Event:
    """An event of the trail. `more` are field sets of ECS and the field `extproc`."""
    id = uuid.uuid4().hex
    about = {"id": id, "kind": kind, "category": categories, "type": types, "action": action, "outcome": outcome}
    return Event(
        id,
        now,
        {
            "@timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "ecs": {"version": _VERSION},
            "event": {**about, "dataset": "extproc.audit"},
            "service": {"name": "llm-extproc"},
            **more,
        },
        consumer,
    )

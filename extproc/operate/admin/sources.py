"""The sources of the admin API's data: a port. `reports` implements it for a running processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from extproc.money.ledger.query import ExchangeQuery, label_of

Entry = Mapping[str, Any]
"""One exchange as JSON; at least `id`, `request_id`, `time` (epoch seconds), `status` and `outcome`."""


class SourceError(Exception):
    """A source cannot answer. `message` is for people, `status` the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Sources(Protocol):
    """All methods may block and are called on threads, several at a time. They raise SourceError."""

    def usage(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """The usage report for these query parameters. Raises ValueError, whose text goes to the caller."""

    def budgets(self, name: str | None) -> Mapping[str, Any]:
        """All budgets, or the one of that name, with the room left in them."""

    def latency(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """How long answers took; parameters and errors as those of `usage`."""

    def findings(self, parameters: Sequence[tuple[str, str]]) -> Sequence[Mapping[str, Any]]:
        """Findings of guardrails by frequency; parameters and errors as those of `usage`."""

    def exchanges(self, parameters: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        """Exchanges, the latest first; parameters are those of `ExchangeQuery`. Raises ValueError, whose text goes to
        the caller.
        """

    def exchange(self, id: str) -> Entry | None:
        """One exchange, by its own id or the `x-request-id`."""

    def providers(self) -> Mapping[str, Mapping[str, float]]:
        """Findings of tries about each model at its provider (`History.deployments`)."""

    def stale(self) -> str:
        """Why the settings in use are not those of the file; empty when they are."""

    def certificate(self) -> str:
        """A sentence about a certificate of the listener that ends within days, or has ended; else empty."""

    def stores(self) -> Mapping[str, Mapping[str, str]]:
        """Whether counters and ledger can be written, tried in a way that changes nothing; see `answers.Stores`."""

    def tools(self, *, definitions: bool) -> Sequence[Mapping[str, Any]]:
        """The MCP servers and their tools, see `answers.ToolServer`."""

    def grants(self) -> Sequence[Mapping[str, Any]]:
        """The grants in force."""

    def grant(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give room beyond a limit: `budget`, `scope`, `amount` (a Decimal above 0), `expires_in` (seconds or None).
        Returns the grant. Raises ValueError, whose text goes to the caller, when it fits no budget.
        """

    def cache(self) -> Mapping[str, int]:
        """Numbers of the cache of answers, see `answers.Cache`. 404 where it is off."""

    def similar(self) -> Sequence[Mapping[str, Any]]:
        """Samples of questions in other words, the latest first, see `answers.SimilarQuestion`."""

    def forget(self, consumer: str | None) -> int:
        """Delete the kept answers to a consumer's requests, or with None all. Returns their number."""

    def forget_consumer(self, consumer: str, *, delete: bool) -> Mapping[str, int]:
        """Forget a consumer: its `rows` of the ledger lose all that names it, or are deleted; its kept `answers` are.
        Returns the numbers of both.
        """

    def export(self, consumer: str, before: str | None, limit: int) -> Sequence[Entry]:
        """Rows of a consumer in the ledger, the latest first: those before the row with the id `before`."""

    def rebuild(self) -> None:
        """Have the ledger's sums of hours and days made anew."""

    def revoke(self, id: str) -> bool:
        """Take a grant back. False: no grant has that id."""


class Desk(Protocol):
    """The operators' desk: gateway keys, the catalogue of models, the audit trail. Methods block, and raise
    SourceError.
    """

    def keys(self) -> Sequence[Mapping[str, Any]]:
        """Gateway keys, see `answers.Key`."""

    def issue(self, consumer: str, name: str, expires_in: float | None, actor: str) -> Mapping[str, Any]:
        """Make a gateway key; the answer has it as `key`. 404 for an unknown consumer, 409 for a name that
        is taken.
        """

    def revoke_key(self, id: str) -> bool:
        """Revoke a key. False: no key in force has that id."""

    def models(self, consumer: str | None) -> Sequence[Mapping[str, Any]]:
        """The names that clients, or one consumer, may give; see `answers.Model`."""

    def door(self) -> Mapping[str, Any]:
        """The listener for clients, see `answers.Door`."""

    def play(self, key: str, body: bytes) -> Mapping[str, Any]:
        """The answer to a chat request with a gateway key, see `answers.Played`."""

    def record(self, actor: str, role: str, action: str, detail: Mapping[str, Any]) -> None:
        """Write an act into the audit trail."""

    def trail(self, limit: int, before: str | None) -> Sequence[Mapping[str, Any]]:
        """The latest acts first: those before the act with the id `before`."""

    def end_session(self, id: str, until: float) -> None:
        """End an operator's session, here at once and at other replicas within seconds. It would have ended at `until`,
        in epoch seconds. Raises nothing.
        """

    def has_ended(self, id: str, begun: float) -> bool:
        """True for a session that was ended, and while that cannot be known. Does not block."""


def matches(entry: Entry, query: ExchangeQuery) -> bool:
    """True when `entry` matches a query; a status is compared as text, and a missing label is empty."""
    if query.findings and not entry.get("guardrails"):
        return False
    if query.start is not None or query.end is not None:
        began = moment(entry)
        if query.start is not None and began < query.start.timestamp():
            return False
        if query.end is not None and began >= query.end.timestamp():
            return False
    return all(_value(entry, name) in wanted for name, wanted in query.filters.items())


def moment(entry: Entry) -> float:
    """Start of an exchange in seconds since the epoch. Remembered exchanges have the time of their end."""
    time = entry["time"]
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time - entry["duration_ms"] / 1000


def _value(entry: Entry, name: str) -> str:
    label = label_of(name)
    found = entry.get(name, "") if label is None else entry.get("labels", {}).get(label, "")
    return str(found).lower() if isinstance(found, bool) else str(found)

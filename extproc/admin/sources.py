"""Where the admin API's data comes from: a port, and what can be told from the memory of this process alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn, Protocol

Entry = Mapping[str, Any]
"""One exchange as JSON; at least `id`, `request_id`, `time` (epoch seconds) and `status`."""

EXCHANGE_FILTERS = ("consumer", "team", "model", "status", "error", "outcome")
OUTCOMES = ("ok", "refused", "error")


class SourceError(Exception):
    """A source cannot answer. `message` is for people, `status` the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Sources(Protocol):
    """All methods may block and are called on threads, several at a time. They raise SourceError."""

    def usage(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """The usage report for these query parameters. Raises ValueError, whose text is told."""

    def budgets(self, name: str | None) -> Mapping[str, Any]:
        """All budgets, or the one of that name, with what is left of them."""

    def exchanges(self, limit: int, filters: Mapping[str, str]) -> Sequence[Entry]:
        """Up to `limit` exchanges, the latest first. `filters` are of EXCHANGE_FILTERS."""

    def exchange(self, id: str) -> Entry | None:
        """One exchange, by its own id or the `x-request-id`."""

    def providers(self) -> Mapping[str, Mapping[str, float]]:
        """What tries taught about each model at its provider (`History.places`)."""

    def grants(self) -> Sequence[Mapping[str, Any]]:
        """The grants that still count."""

    def grant(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give room beyond a limit: `budget`, `scope`, `amount` (a Decimal above 0), `expires_in` (seconds or None).
        Returns the grant. Raises ValueError, whose text is told, when it fits no budget.
        """

    def revoke(self, id: str) -> bool:
        """Take a grant back. False: there is none of that id."""


class Recent:
    """What one process remembers: its latest exchanges and its providers. It keeps no ledger and knows no budgets."""

    def __init__(
        self, entries: Collection[Entry], places: Callable[[], Mapping[str, Mapping[str, float]]] = dict
    ) -> None:
        self._entries = entries
        self._places = places

    def exchanges(self, limit: int, filters: Mapping[str, str]) -> Sequence[Entry]:
        found = [entry for entry in list(self._entries) if matches(entry, filters)]
        return found[-limit:][::-1]

    def exchange(self, id: str) -> Entry | None:
        return next((entry for entry in list(self._entries) if id in (entry["id"], entry["request_id"])), None)

    def providers(self) -> Mapping[str, Mapping[str, float]]:
        return self._places()

    def usage(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:  # noqa: ARG002
        self._absent("no ledger is kept, so there is no usage report")

    def budgets(self, name: str | None) -> Mapping[str, Any]:  # noqa: ARG002
        self._absent("budgets cannot be read here")

    def grants(self) -> Sequence[Mapping[str, Any]]:
        self._absent("grants cannot be read here")

    def grant(self, body: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        self._absent("grants cannot be given here")

    def revoke(self, id: str) -> bool:  # noqa: ARG002
        self._absent("grants cannot be given here")

    def _absent(self, message: str) -> NoReturn:
        raise SourceError(501, message)


def matches(entry: Entry, filters: Mapping[str, str]) -> bool:
    """True when `entry` has all that `filters` ask for; a status is compared as text."""
    return all(
        wanted == (outcome(entry) if name == "outcome" else str(entry.get(name, "")))
        for name, wanted in filters.items()
    )


def outcome(entry: Entry) -> str:
    """One of OUTCOMES: refused is what the gateway answered itself, before any provider."""
    if 0 < entry["status"] < 400:
        return "ok"
    return "error" if entry.get("attempts") or not entry["status"] else "refused"

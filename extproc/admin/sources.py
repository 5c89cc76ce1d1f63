"""The sources of the admin API's data: a port. `reports` implements it for a running processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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

    def exchanges(self, limit: int, filters: Mapping[str, str]) -> Sequence[Entry]:
        """Up to `limit` exchanges, the latest first. `filters` are those of `answers.ExchangesQuery`."""

    def exchange(self, id: str) -> Entry | None:
        """One exchange, by its own id or the `x-request-id`."""

    def providers(self) -> Mapping[str, Mapping[str, float]]:
        """Findings of tries about each model at its provider (`History.deployments`)."""

    def grants(self) -> Sequence[Mapping[str, Any]]:
        """The grants in force."""

    def grant(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give room beyond a limit: `budget`, `scope`, `amount` (a Decimal above 0), `expires_in` (seconds or None).
        Returns the grant. Raises ValueError, whose text goes to the caller, when it fits no budget.
        """

    def cache(self) -> Mapping[str, int]:
        """Numbers of the cache of answers, see `answers.Cache`. 404 where it is off."""

    def forget(self, consumer: str | None) -> int:
        """Delete the kept answers to a consumer's requests, or with None all. Returns their number."""

    def revoke(self, id: str) -> bool:
        """Take a grant back. False: no grant has that id."""


def matches(entry: Entry, filters: Mapping[str, str]) -> bool:
    """True when `entry` matches all of `filters`; a status is compared as text."""
    return all(wanted == str(entry.get(name, "")) for name, wanted in filters.items())

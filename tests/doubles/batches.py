"""Batches that a double works on: at the first look one is in progress, at the second it has ended.

The ids of requests say how they end: `fail-…` with an error, `expire-…` not in time. A batch that was cancelled has
answers to its first half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

_MOST = 1000
_LOOKS = 2
_kept: dict[tuple[str, str], Job] = {}
"""By the double's name and the id."""


class Job(Struct):
    """A batch: its requests in order, each with its id and its body."""

    id: str
    requests: Sequence[tuple[str, dict[str, Any]]]
    more: dict[str, Any] = field(default_factory=dict)  # of its API
    looks: int = 0
    cancelled: bool = False

    def look(self) -> bool:
        """Look at it. True once it has ended."""
        self.looks += 1
        return self.ended

    @property
    def ended(self) -> bool:
        return self.looks >= _LOOKS

    def outcome(self, number: int) -> str:
        """How a request ends: answered, failed, expired or cancelled."""
        name = self.requests[number][0]
        if self.cancelled and number >= len(self.requests) // 2:
            return "cancelled"
        return {"fail": "failed", "expire": "expired"}.get(name.partition("-")[0], "answered")

    def count(self, outcome: str) -> int:
        return sum(self.outcome(number) == outcome for number in range(len(self.requests)))

    def usage(self) -> tuple[int, int]:
        """Tokens of input and output of all answers."""
        answered = [number for number in range(len(self.requests)) if self.outcome(number) == "answered"]
        return sum(map(input_of, answered)), sum(map(output_of, answered))


def input_of(number: int) -> int:
    """Tokens of input of a batch's request, by its number."""
    return 1000 + number


def output_of(number: int) -> int:
    return 10 + number


def keep(name: str, job: Job) -> Job:
    _kept[name, job.id] = job
    while len(_kept) > _MOST:
        del _kept[next(iter(_kept))]
    return job


def find(name: str, id: str) -> Job | None:
    return _kept.get((name, id))


def delete(name: str, id: str) -> None:
    _kept.pop((name, id), None)

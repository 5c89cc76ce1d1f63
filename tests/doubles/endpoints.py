"""A dialect as the provider sees it: how it answers, writes errors and reads credentials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.doubles.answers import Answer, Json, Question, Refused
from tests.doubles.credentials import Asked, Keys
from tests.doubles.faults import Event


def no_headers(_refused: Refused) -> Sequence[tuple[bytes, bytes]]:
    return ()


class Dialect(NamedTuple):
    """One API. `failure` is its error event in mid-stream, after that many events."""

    name: str
    error: Callable[[Refused], Json]
    failure: Callable[[Refused, int], Event]
    admit: Callable[[Keys, Asked], None]
    error_headers: Callable[[Refused], Sequence[tuple[bytes, bytes]]] = no_headers


class Endpoint(NamedTuple):
    """One POST endpoint."""

    dialect: Dialect
    answer: Callable[[Question], Answer]

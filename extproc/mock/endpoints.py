"""A dialect as the provider sees it: how it answers, writes errors and reads credentials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from extproc.mock.answers import Answer, Json, Question, Refused
from extproc.mock.credentials import Asked, Keys
from extproc.mock.faults import Event


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

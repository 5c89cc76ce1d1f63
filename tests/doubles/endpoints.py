"""One API of a double: its answers, errors and credentials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import NamedTuple

from extproc.upstream.mock import endpoints as shared
from tests.doubles.answers import Answer, Headers, Json, Question, Refused
from tests.doubles.credentials import Asked, Keys
from tests.doubles.faults import Event, odd
from tests.doubles.framings import FRAMINGS


def no_headers(_refused: Refused) -> Sequence[tuple[bytes, bytes]]:
    return ()


class Dialect(NamedTuple):
    """One API. `failure` is its error event mid-stream, after that many events."""

    name: str
    error: Callable[[Refused], Json]
    failure: Callable[[Refused, int], Event]
    admit: Callable[[Keys, Asked], None]
    error_headers: Callable[[Refused], Sequence[tuple[bytes, bytes]]] = no_headers


class Endpoint(NamedTuple):
    """One POST endpoint, as the mock's provider calls it."""

    api: Dialect
    asked: Callable[[Question], Answer]

    @property
    def dialect(self) -> str:
        return self.api.name

    def answer(self, question: Question) -> shared.MockAnswer:
        answer, faults = self.asked(question), odd(question.faults)
        if answer.events is None or faults.garbage or faults.badjson:
            return shared.MockAnswer(answer.document, headers=answer.headers)
        events, framing = answer.events, FRAMINGS[answer.framing]
        if faults.errorevent is not None:
            refused = Refused(500, "A fault was asked for: errorevent.", code="mock_fault")
            events = chain(islice(events, faults.errorevent), [self.api.failure(refused, faults.errorevent)])
        return shared.MockAnswer(None, framing.frame(events, faults), answer.length, framing.headers)

    def error(self, refused: Refused) -> tuple[Json, Headers]:
        return self.api.error(refused), self.api.error_headers(refused)

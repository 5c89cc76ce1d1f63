"""Questions to operators about requests without room in a budget with `on_exceed: ask`.

   no room ──► a note on a board, and the webhook ──► approved: held in a count of its own ──► the request goes on
                  │ the request waits, up to `wait`  ├─ room in its budget after all: a grant, a new window
                  └ or gets 402 with the id          └─ denied, with the reason: 402

The store decides, so replicas need not agree. A question has one count, `<scope>:approved=<id>`. The decision is the
first reservation in this count: 1 unit denies, `amount + 1` units approve `amount`. A later decision finds no room. An
approved request is held in the same count, up to twice the amount and one. So an approval is spent once, by the waiting
request or by the same request sent again, in any process. If that process dies, the end of its lease frees the room.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from extproc.money.budgets.budget import Budget, Claim
from extproc.stores import Counters, Denied, Hold, Level, read_notes, window_at
from extproc.words.exchange import Exchange

BOARD = "questions"
MOST = 200
"""Most questions at one time, decided ones included."""
MOST_OF_ONE = 20
"""Most questions of one consumer at one time."""
MOST_WAITING = 200
"""Most requests of one process that wait at one time; a further request gets 402 with the id of its question."""
OPEN = 3600.0  # seconds in which a question can be answered; an approval lasts as long
_KEPT = 86_400.0  # seconds after which an unused decision is forgotten: outlives its question
_LOOK = 0.5  # seconds between two looks of a request that waits
_LABELS, _TEXT = 8, 128  # most labels in a note; most characters of a text
MOST_REASON = 500  # most characters of an operator's reason


class Question(msgspec.Struct, frozen=True):
    """A question about one request. `amount` is the most that the request can use, in the budget's unit, nano-USD for
    money. Times in epoch seconds.
    """

    id: str
    budget: str
    scope: str
    amount: int
    unit: str
    consumer: str
    team: str
    key: str
    labels: Mapping[str, str]
    operation: str
    model: str
    request: str  # fingerprint of the request: an equal request finds the question
    asked: float
    expires: float
    by: str = ""  # operator who decided
    reason: str = ""

    @property
    def count(self) -> str:
        """The count of the decision, and of the approved request."""
        return f"{self.scope}:approved={self.id}"


@dataclass(slots=True, frozen=True)
class Asked:
    """A new question, for the webhook."""

    budget: Budget
    question: Question


class State(Enum):
    OPEN = "open"
    DENIED = "denied"
    APPROVED = "approved"
    USED = "used"


def state_of(question: Question, level: Level) -> State:
    """The state of a question, read from the level of its count."""
    found = level.settled + level.reserved
    if found <= 1:
        return State.DENIED if found else State.OPEN
    return State.APPROVED if found <= question.amount + 1 else State.USED


class TooManyQuestionsError(Exception):
    """The question cannot be asked: there are `MOST` questions, or `MOST_OF_ONE` of its consumer."""


class DecidedError(Exception):
    """Another decision came first."""

    def __init__(self, question: Question, state: State) -> None:
        super().__init__(question.id)
        self.question = question
        self.state = state


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Question).decode


class Questions:
    """The questions of a fleet. Methods raise StoreError. `tell` gets each new question."""

    def __init__(
        self,
        counters: Counters,
        tell: Callable[[Asked], None] = lambda _asked: None,
        now: Callable[[], float] = time.time,
        *,
        look: float = _LOOK,
    ) -> None:
        self._counters = counters
        self._tell = tell
        self._now = now
        self._look = look
        self._waiting = 0

    async def ask(self, claim: Claim, exchange: Exchange) -> tuple[Question, State]:
        """The question about a request without room: an earlier question about the same request that can still be used,
        or a new one. Raises TooManyQuestionsError.
        """
        print_, consumer = fingerprint(exchange, claim.scope), exchange.consumer
        known = await self._all()
        same = [one for one in known if one.request == print_ and one.amount >= claim.amount]
        states = list(zip(same, await self._states(same), strict=True))
        for wanted in (State.APPROVED, State.OPEN, State.DENIED):
            for question, state in states:
                if state is wanted:
                    return question, state
        if len(known) >= MOST or sum(one.consumer == consumer.name for one in known) >= MOST_OF_ONE:
            raise TooManyQuestionsError
        budget, now = claim.budget, self._now()
        labels = list(exchange.money.labels.items())[:_LABELS]
        question = Question(
            uuid.uuid4().hex[:16],
            budget.name,
            claim.scope,
            claim.amount,
            budget.settings.unit,
            *(consumer.name, consumer.team, exchange.money.key),
            {name[:_TEXT]: value[:_TEXT] for name, value in labels},
            exchange.request.operation,
            exchange.request.ask.model[:_TEXT],
            print_,
            now,
            _until(now, budget),
        )
        await self._write(question, now)
        self._tell(Asked(budget, question))
        return question, State.OPEN

    async def wait(self, question: Question, claim: Claim, ends: float, room: Callable[[], int]) -> State | None:
        """The decision; OPEN at the monotonic time `ends`. None when the claim's own count seems to have room again,
        including `room` beyond the budget's limit.
        """
        if self._waiting >= MOST_WAITING:
            ends = 0.0
        self._waiting += 1
        try:
            while True:
                left = ends - time.monotonic()
                if left > 0:
                    await asyncio.sleep(min(self._look, left))
                scopes = (question.count, 0), (claim.scope, claim.budget.window)
                decision, level = await self._counters.levels(scopes)
                state = state_of(question, decision)
                # The reason of a denial stands in the note once the decision is settled.
                if state is State.APPROVED or decision.settled or left <= 0:
                    return state
                if level.settled + level.reserved + claim.amount <= claim.budget.limit + room():
                    return None
        finally:
            self._waiting -= 1

    async def all(self) -> Sequence[tuple[Question, State]]:
        """All questions that are not forgotten, the latest first."""
        known = sorted(await self._all(), key=lambda one: one.asked, reverse=True)
        return list(zip(known, await self._states(known), strict=True))

    async def find(self, id: str) -> Question | None:
        """The question of that id; None: no such question, or its time is over."""
        return next((one for one in await self._all() if one.id == id), None)

    async def decide(self, id: str, *, approve: bool, by: str, reason: str) -> Question | None:
        """Approve or deny a question; None: no such question. Raises DecidedError if another decision came first."""
        question = await self.find(id)
        if question is None:
            return None
        units, reservation = question.amount + 1 if approve else 1, uuid.uuid4().hex
        hold = Hold(question.count, 0, units, units, idle=_KEPT)
        # This reservation forwards nothing and its lease outlives the question, so reserving it is the decision.
        if isinstance(await self._counters.reserve(reservation, [hold], _KEPT), Denied):
            [state] = await self._states([question])
            raise DecidedError(await self.find(id) or question, state)
        now = self._now()
        left = question.expires - now if not approve else min(OPEN, question.expires - question.asked)
        decided = msgspec.structs.replace(question, by=by, reason=reason[:MOST_REASON], expires=now + max(1.0, left))
        await self._write(decided, now)
        await self._counters.settle(reservation, [units])
        return decided

    async def _write(self, question: Question, now: float) -> None:
        await self._counters.share(BOARD, question.id, _encode(question), question.expires - now)

    async def _all(self) -> Sequence[Question]:
        found = read_notes(await self._counters.share(BOARD, "", b"", 1.0), _decode)
        return [one for one in found if one.expires > self._now()]

    async def _states(self, questions: Sequence[Question]) -> Sequence[State]:
        if not questions:
            return ()
        levels = await self._counters.levels([(one.count, 0) for one in questions])
        return [state_of(one, level) for one, level in zip(questions, levels, strict=True)]


def _until(now: float, budget: Budget) -> float:
    ends = window_at(now, budget.window)[1]
    return min(now + OPEN, now + OPEN if ends is None else max(ends, now + 1))


def fingerprint(exchange: Exchange, scope: str) -> str:
    """A fingerprint that stays the same when a consumer sends its request again."""
    head, found = exchange.request.head, hashlib.sha256()
    for part in (scope, exchange.consumer.name, exchange.money.key, head.method, head.path):
        found.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    found.update(getattr(exchange.request, "body", b""))  # calls about kept objects have no body
    return found.hexdigest()


def approved_claim(claim: Claim, question: Question) -> Claim:
    """The claim on the count of an approved question, in place of one on a count without room."""
    hold = Hold(question.count, 0, 2 * question.amount + 1, claim.amount, idle=_KEPT)
    return Claim(claim.budget, question.count, claim.amount, own=claim.scope, approved=hold)

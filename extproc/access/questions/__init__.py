"""Questions to operators about requests: decided once, used once, by whichever process.

   a request may not go on ──► a note on a board, and the webhook ──► approved: used up, and the request goes on
                                  │ the request waits for a time    ├─ denied, with the reason
                                  └ or is refused with the id       └─ no longer needed: a budget has room again

Requests without room in a budget with `on_exceed: ask` are asked about (`money/budgets/questions.py`), and calls of
tools with `approve` (`tools/mcp/approvals.py`). The store decides, so replicas need not agree. A question has one
count, `<scope>:approved=<id>`. The decision is the first reservation in this count: 1 unit denies, `amount + 1` units
approve `amount`. A later decision finds no room. What was approved is held in the same count, up to twice the amount
and one. So an approval is used once, by the waiting request or by the same request sent again, in any process.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from extproc.stores import Counters, Denied, Hold, Level, read_notes
from extproc.words.exchange import LONG_WAIT, Exchange

BOARD = "questions"
APPROVAL = "x-ai-approval"
"""Name of the id of a question, in the headers of a refusal."""
MOST = 200
"""Most questions at one time, decided ones included."""
MOST_OF_ONE = 20
"""Most questions of one consumer at one time."""
MOST_WAITING = 200
"""Most requests of one process that wait at one time; a further request is refused with the id of its question."""
OPEN = 3600.0  # seconds in which a question can be answered, by default; an approval lasts as long
_KEPT = 86_400.0  # seconds after which an unused decision is forgotten: outlives its question
_LOOK = 0.5  # seconds between two looks of a request that waits
_LABELS, _TEXT = 8, 128  # most labels in a note; most characters of a text
MOST_REASON = 500  # most characters of an operator's reason


class CalledTool(msgspec.Struct, frozen=True):
    """The call of a tool that a question is about, as it will be sent: by MCP, or to the client in a model's answer."""

    profile: str  # empty for a call in an answer
    server: str  # the requested model of the answer
    tool: str  # the server's own name
    definition: str  # digest of the definition, as a lock file has it
    arguments: str  # JSON, for people
    arguments_sha256: str  # digest of the arguments with sorted keys
    run: str


class Question(msgspec.Struct, frozen=True):
    """A question about one request. `amount` is the most that the request can use, in the budget's unit, nano-USD for
    money; 1 for a call of a tool. Times in epoch seconds.
    """

    id: str
    budget: str  # empty for a call of a tool
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
    call: CalledTool | None = None
    by: str = ""  # operator who decided
    reason: str = ""

    @property
    def count(self) -> str:
        """The count of the decision, and of the approved request."""
        return f"{self.scope}:approved={self.id}"

    def held(self, amount: int) -> Hold:
        """The hold of an approved request on the question's count."""
        return Hold(self.count, 0, 2 * self.amount + 1, amount, idle=_KEPT)


@dataclass(slots=True, frozen=True)
class Asked:
    """A new question, for a webhook. `rule` is the compiled budget; None for a call of a tool."""

    question: Question
    webhook: str | None
    rule: Any = None


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


def question_about(
    exchange: Exchange,
    request: str,
    scope: str,
    *,
    amount: int = 1,
    budget: str = "",
    unit: str = "",
    call: CalledTool | None = None,
) -> Question:
    """A question about an exchange that is not asked yet; `request` is the fingerprint of its request."""
    consumer, labels = exchange.consumer, list(exchange.money.labels.items())[:_LABELS]
    return Question(
        uuid.uuid4().hex[:16],
        budget,
        scope,
        amount,
        unit,
        *(consumer.name, consumer.team, exchange.money.key),
        {name[:_TEXT]: value[:_TEXT] for name, value in labels},
        exchange.request.operation,
        exchange.request.ask.model[:_TEXT],
        request,
        *(0.0, 0.0),
        call,
    )


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

    async def ask(
        self, draft: Question, until: Callable[[float], float], webhook: str | None = None, rule: Any = None
    ) -> tuple[Question, State]:
        """The question about a request: an earlier question about the same request that can still be used, or `draft`,
        asked `until` a time that depends on now. Raises TooManyQuestionsError.
        """
        known = await self._all()
        same = [one for one in known if one.request == draft.request and one.amount >= draft.amount]
        states = list(zip(same, await self._states(same), strict=True))
        for wanted in (State.APPROVED, State.OPEN, State.DENIED):
            for question, state in states:
                if state is wanted:
                    return question, state
        if len(known) >= MOST or sum(one.consumer == draft.consumer for one in known) >= MOST_OF_ONE:
            raise TooManyQuestionsError
        now = self._now()
        question = msgspec.structs.replace(draft, asked=now, expires=until(now))
        await self._write(question, now)
        self._tell(Asked(question, webhook, rule))
        return question, State.OPEN

    async def wait(
        self,
        exchange: Exchange,
        question: Question,
        ends: float,
        scope: tuple[str, int] | None = None,
        has_room: Callable[[Level], bool] = lambda _level: False,
    ) -> State | None:
        """The decision; OPEN at the monotonic time `ends`. None when the level of the count `scope` shows that the
        request may go on without a decision.
        """
        if self._waiting >= MOST_WAITING:
            ends = 0.0
        if ends > time.monotonic() and (say_so := exchange.features.get(LONG_WAIT)) is not None:
            say_so()
        self._waiting += 1
        scopes = [(question.count, 0)] + ([] if scope is None else [scope])
        try:
            while True:
                left = ends - time.monotonic()
                if left > 0:
                    await asyncio.sleep(min(self._look, left))
                decision, *levels = await self._counters.levels(scopes)
                state = state_of(question, decision)
                # The reason of a denial stands in the note once the decision is settled.
                if state is State.APPROVED or decision.settled or left <= 0:
                    return state
                if any(map(has_room, levels)):
                    return None
        finally:
            self._waiting -= 1

    async def use(self, question: Question) -> Question | None:
        """Use up an approval, and return it as it was given. None if another request has used it, it was never given,
        or its time is over.
        """
        known = await self.find(question.id)
        if known is None or (await self._states([known]))[0] is not State.APPROVED:
            return None
        # The lease outlives the question: a process that dies here leaves the approval used.
        reservation = uuid.uuid4().hex
        if isinstance(await self._counters.reserve(reservation, [known.held(known.amount)], _KEPT), Denied):
            return None
        await self._counters.settle(reservation, [known.amount])
        return known if known.expires > self._now() else None

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
        left = question.expires - now if not approve else question.expires - question.asked
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


def fingerprint(*parts: str, body: bytes = b"") -> str:
    """A digest of the facts that make two requests equal."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    found.update(body)
    return found.hexdigest()

"""Guardrails in audit mode that ask a service. They change nothing, so only the record waits for the service.

    GuardInput, GuardOutput ──► Audits: a task for each question ──► AwaitAudits: verdicts, then the record

Questions under way are bounded by `max_calls` of the guardrail, and their text by `limits.audited_text`. A question
beyond these bounds is not asked, and counts as a failure of the guardrail (`overload`). Each question ends by the
guardrail's `timeout`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from extproc.guardrails._base import Finding
from extproc.guardrails._channel import Window, fresh
from extproc.guardrails._guard import Guard
from extproc.guardrails._guarding import GUARDING, guarding
from extproc.guardrails._remote import Context, Passage
from extproc.wire.outbound.service import Failure
from extproc.words.actions import CONTINUE, Continue
from extproc.words.exchange import Exchange, Verdict

_MOST_KNOWN = 16  # most texts of an answer whose questions are kept: some APIs repeat each text
_LONGEST = 10.0  # seconds that a stop waits for questions: longer than any `timeout`

log = logging.getLogger(__name__)

_Tell = Callable[[Verdict], None]
_Record = Callable[[Exchange], object]
_Answer = asyncio.Future[Sequence[Sequence[Finding]]]


class _Asked(NamedTuple):
    """A question under way, and the window of an answer that it is about."""

    answer: _Answer
    window: Window | None = None


@dataclass(slots=True)
class Review:
    """A guardrail's verdict on a request or an answer, built up from several questions."""

    guard: Guard
    on: str
    tell: _Tell
    asked: list[_Asked] = field(default_factory=list)
    known: dict[str, _Answer] = field(default_factory=dict)
    failure: str = ""

    def verdicts(self) -> Iterator[Verdict]:
        """The findings, then the failure. Call it after the last answer."""
        kinds: dict[str, int] = {}
        acted: dict[int, dict[tuple[int, str], int]] = {}
        for answer, window in self.asked:
            try:
                found = answer.result()
            except Failure as failure:
                self.failure = self.failure or failure.reason
                continue
            except asyncio.CancelledError:
                self.failure = self.failure or "timeout"
                continue
            if window is None:
                for findings in found:
                    for _, kind in {(one.span, one.kind) for one in findings}:
                        kinds[kind] = kinds.get(kind, 0) + 1
                continue
            channel = window.channel
            for _, _, one, again in fresh(window, acted.setdefault(channel.number, {}), found[0]):
                if not (channel.again or again) or one.kind not in kinds:
                    kinds[one.kind] = kinds.get(one.kind, 0) + 1
        if kinds:
            yield Verdict(self.guard.name, self.on, self.guard.action, kinds)
        if self.failure:
            yield Verdict(self.guard.name, self.on, "failed", reason=self.failure)


class Audits:
    """The questions of one process. `most` is the memory for their texts in bytes. `bug` is called when recording
    raises.
    """

    def __init__(self, bug: Callable[[str], None] = lambda _where: None, *, most: int = 32 << 20) -> None:
        self.most = most
        self._bug = bug
        self._size = 0
        self._under_way: Counter[str] = Counter()  # number of questions under way, by guardrail
        self._tasks: set[_Answer] = set()

    def request(self, exchange: Exchange, guard: Guard, passages: Sequence[Passage], tell: _Tell) -> None:
        """Ask about the text of a request."""
        review = Review(guard, "input", tell)
        guarding(exchange).audits.append(review)
        if (answer := self._ask(exchange, review, passages)) is not None:
            review.asked.append(_Asked(answer))

    def answer(self, exchange: Exchange, guard: Guard, windows: Sequence[Window], tell: _Tell) -> None:
        """Ask about windows of an answer, each separately. After a failure the service is not asked about the rest of
        the answer.
        """
        audits = guarding(exchange).audits
        found = (one for one in audits if one.on == "output" and one.guard.name == guard.name)
        if (review := next(found, None)) is None:
            audits.append(review := Review(guard, "output", tell))
        for window in windows:
            text = window.text
            if not text.strip():
                continue
            if any(_failed(answer) for answer in review.known.values()):
                return
            if (answer := review.known.get(text)) is None:
                passage = Passage(text, window.channel.role, window.channel.where)
                if (answer := self._ask(exchange, review, [passage])) is None:
                    return
                if len(review.known) >= _MOST_KNOWN:
                    del review.known[next(iter(review.known))]
                review.known[text] = answer
            review.asked.append(_Asked(answer, window.without_text()))

    def _ask(self, exchange: Exchange, review: Review, passages: Sequence[Passage]) -> _Answer | None:
        """A task for the service's answer; None if the question is not asked."""
        guard, size = review.guard, sum(sys.getsizeof(passage.text) for passage in passages)
        if review.failure:
            return None
        if self._under_way[guard.name] >= guard.most_calls or self._size + size > self.most:
            review.failure = "overload"
            return None
        context = Context(review.on, exchange.id, exchange.consumer.name, exchange.request.ask.model)
        work = guard.ask(passages, context, time.monotonic() + guard.settings.timeout)
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        self._under_way[guard.name] += 1
        self._size += size
        task.add_done_callback(partial(self._answered, guard.name, size))
        return task

    def _answered(self, name: str, size: int, task: _Answer) -> None:
        self._tasks.discard(task)
        self._size -= size
        self._under_way[name] -= 1
        _failed(task)  # marks the exception as read, or asyncio logs it for an unrecorded exchange

    # --- the record

    def hold(self, exchange: Exchange, record: Sequence[_Record]) -> bool:
        """Write the verdicts of an ended exchange. True: some verdicts are not known yet, and `record` runs later."""
        waiting = {one.answer for review in guarding(exchange).audits for one in review.asked if not one.answer.done()}
        if not waiting:
            self._write(exchange)
            return False

        def answered(answer: _Answer) -> None:
            waiting.discard(answer)
            if not waiting:
                self._finish(exchange, record)

        for answer in [*waiting]:
            answer.add_done_callback(answered)
        return True

    def _finish(self, exchange: Exchange, record: Sequence[_Record]) -> None:
        try:
            self._write(exchange)
            for step in record:
                step(exchange)
        except Exception as error:
            self._bug("Audits")
            log.exception("an exchange could not be recorded", exc_info=error)

    @staticmethod
    def _write(exchange: Exchange) -> None:
        part = guarding(exchange)
        for review in part.audits:
            for verdict in review.verdicts():
                exchange.findings.add(verdict)
                review.tell(verdict)
        part.audits = []

    async def drain(self, seconds: float = _LONGEST) -> None:
        """Wait, for `seconds` at most, until all questions are answered and their exchanges recorded."""
        tasks = {*self._tasks}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


def _failed(answer: _Answer) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)


class AwaitAudits:
    """Records the exchange at once, or later by `record` if services have not answered yet."""

    def __init__(self, audits: Audits, record: Sequence[_Record]) -> None:
        self._audits = audits
        self._record = record

    def __call__(self, exchange: Exchange) -> Continue | None:
        part = exchange.features.get(GUARDING)
        if part is None or not part.audits:
            return None
        return CONTINUE if self._audits.hold(exchange, self._record) else None

"""Events of an answer, passed through the stages that read them.

An event leaves when it is complete, with its original bytes unless a stage edits it. An answer's list has only the
stages that it needs.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, Protocol

from extproc.wire.framing import BOM, Frame, Framing
from extproc.wire.framing.inflate import Inflate
from extproc.wire.framing.intake import Intake
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.json_array import ARRAY
from extproc.wire.framing.sse import KEEP_ALIVE, SSE
from extproc.words.errors import PROVIDER_BAD_ANSWER
from extproc.words.exchange import Exchange

_LOOK = 0.5  # seconds between two questions for a decision


class EventStage(Protocol):
    """A stage of the events of an answer, with its settings in the constructor. It keeps no state: facts about one
    answer stand in the exchange.
    """

    changes_length: bool
    """True when the stage may change the length of a plain answer. A stream's length may always change."""

    # Attributes that a stage may have. `merges = True`: the stage accepts repeated empty events as one frame without
    # data, and consecutive text-only events as one frame with all their text. `guards = True`: an event with text in
    # any field is not empty. `parses = True`: the stage reads the JSON of each event, so it is parsed once, before the
    # first stage. `waits(exchange)`: at the answer's end the stage holds events back until somebody decides about them;
    # then `released(exchange)` is asked for them time and again, and gives None until then. It raises Refusal.

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        """True when the stage has something to do for this answer."""
        ...

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Any:
        """Events to pass on, out of the events that arrived together; `end` marks the answer's last ones. May be
        asynchronous. A Refusal ends the answer after the events already passed on.
        """
        ...


_Stage = tuple[EventStage, bool, Callable[[float], None]]  # (stage, True when asynchronous, observer of its seconds)


class _Needed:
    """Stages that some answers need, and what all of them allow."""

    __slots__ = ("changes_length", "guards", "holds", "merges", "parses", "stages")

    def __init__(self, stages: Sequence[_Stage]) -> None:
        self.stages = stages
        self.changes_length = any(stage.changes_length for stage, *_ in stages)
        self.merges = all(getattr(stage, "merges", False) for stage, *_ in stages)
        self.guards = any(getattr(stage, "guards", False) for stage, *_ in stages)
        self.parses = any(getattr(stage, "parses", False) for stage, *_ in stages)
        self.holds = next((at for at, (stage, *_) in enumerate(stages) if hasattr(stage, "released")), -1)


class Events:
    """Stages of events, in order. An answer gets the stages it needs; the seconds of each are observed once per
    answer.
    """

    def __init__(self, stages: Sequence[EventStage], observe: Callable[[str], Callable[[float], None]]) -> None:
        self._stages: Sequence[_Stage] = [
            (stage, inspect.iscoroutinefunction(type(stage).__call__), observe(type(stage).__name__))
            for stage in stages
        ]
        self._needed: dict[tuple[bool, ...], _Needed] = {}  # by the stages' answers: a handful of combinations occurs

    def reader(self, exchange: Exchange, framing: Framing, inflate: Inflate | None = None) -> AnswerReader:
        """The reader of an exchange's answer. Needs the exchange's `report`."""
        which = tuple([stage.needed(exchange, framing) for stage, *_ in self._stages])
        needed = self._needed.get(which)
        if needed is None:
            needed = self._needed[which] = _Needed(list(compress(self._stages, which)))
        return AnswerReader(exchange, framing, needed, inflate)


class AnswerReader:
    """Reads one answer: cuts it into events and passes them through the stages."""

    __slots__ = (
        "_array",
        "_exchange",
        "_framing",
        "_intake",
        "_merges",
        "_needed",
        "_plain",
        "_seconds",
        "_waits",
    )

    def __init__(self, exchange: Exchange, framing: Framing, needed: _Needed, inflate: Inflate | None) -> None:
        self._exchange = exchange
        self._array = exchange.features.get(ARRAY)
        self._framing = framing
        self._intake = Intake(framing, inflate)
        self._plain = inflate is None and isinstance(framing, WholeBody)
        self._needed = needed
        self._seconds = [0.0] * len(needed.stages) if exchange.timed else None
        self._merges = self._array is None and needed.merges
        # Seconds until a stage is asked for the last events, which it holds for a decision; None: it holds none.
        self._waits: float | None = None

    @property
    def changes_length(self) -> bool:
        """True when the length of the body may change. A stream can end early with an error, so its length may."""
        return not self._plain or self._needed.changes_length

    @property
    def pause(self) -> float:
        """Seconds until the next step may begin."""
        return self._intake.pause if self._waits is None else self._waits

    def close(self) -> None:
        """Release the room that the answer held. Called when it is over, whole or not."""
        if isinstance(self._framing, WholeBody):
            self._framing.let_go()

    async def feed(self, chunk: bytes, end: bool, out: list[bytes]) -> bool:
        """See `Reader`."""
        intake, exchange, seconds = self._intake, self._exchange, self._seconds
        first = 0  # the first stage of this step
        events: Sequence[Frame] | None
        if self._waits is not None:
            first = self._needed.holds + 1
            if (events := await self._needed.stages[first - 1][0].released(exchange)) is None:  # type: ignore[attr-defined]
                self._waits = _LOOK
                return True
            self._waits, end = None, True
        else:
            events = intake.take(chunk, end)
            end = intake.ended
            if not events and not end:
                return intake.more
        answer = exchange.answer
        if end and intake.broken and answer.report is not None:
            answer.report.error = PROVIDER_BAD_ANSWER.code
        report, given = answer.report, events
        if self._needed.parses:
            for event in events:
                event.parse()
        try:
            for index, (stage, is_async, _) in enumerate(self._needed.stages):
                if index < first:
                    continue
                then = 0.0 if seconds is None else time.perf_counter()
                work = stage(exchange, events, end)
                events = await work if is_async else work
                if seconds is not None:
                    seconds[index] += time.perf_counter() - then
                if end and index == self._needed.holds and stage.waits(exchange):  # type: ignore[attr-defined]
                    self._waits, end = 0.0, False
        finally:
            out += self._written(events)
            if answer.first_token is None and report is not None and report.output_events:
                answer.first_token = time.perf_counter() - exchange.started
        if answer.cut is not None:
            raise answer.cut
        if self._merges and report is not None:
            facts = exchange.request.dialect.answers
            intake.learn(given, facts.reads, facts.texts_at, guarded=self._needed.guards)
        intake.pace(given)
        if end:
            if self._array is not None:
                out.append(self._array.end())
            for (_, _, observe), spent in zip(self._needed.stages, seconds or (), strict=False):
                observe(spent)
        return intake.more or self._waits is not None

    def keep_alive(self) -> bytes | None:
        """Bytes for a client that received nothing for a while: events that a stage holds back for more text, and a
        comment. None where nothing may be sent: for a plain answer, inside an event, and before guardrails release the
        beginning. Envoy accepts no inserted body before it has sent some itself. A byte order mark must stay first.
        """
        exchange, framing = self._exchange, self._framing
        if not isinstance(framing, SSE) or framing.parted or self._intake.lead in (None, BOM):
            return None
        events: Sequence[Frame] = ()
        for stage, is_async, _ in self._needed.stages:
            if events and not is_async:  # an asynchronous stage holds no events back, and has counted these already
                events = stage(exchange, events, False)
            if (overdue := getattr(stage, "overdue", None)) is not None:
                if (waited := overdue(exchange)) is None:
                    return None
                events = waited
        comment = KEEP_ALIVE if exchange.request.dialect.answers.comments else b""
        return b"".join(self._written(events)) + comment

    def _written(self, events: Sequence[Frame]) -> list[bytes]:
        """Bytes of events, in the form the client asked for."""
        array = self._array
        return [event.raw for event in events] if array is None else array.items(events)

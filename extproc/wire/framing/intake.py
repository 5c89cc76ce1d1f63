"""An answer's bytes in turns: what is worked on before other requests have their turn.

A piece of an answer may hold thousands of tiny events, and a compressed one may grow two hundredfold. `Intake` cuts
both into steps. The transport asks for the next step when the peer has taken the answer to the one before, so memory is
bounded by a step, and a slow reader pushes back to the provider.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence

from extproc.wire.framing import BOM, EMPTY, Frame, Framing
from extproc.wire.framing.inflate import Inflate
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.runs import JSONPath
from extproc.wire.framing.sse import SSE
from extproc.words.errors import PROVIDER_BAD_ANSWER, Refusal

TURN = 64
"""Events of one answer that are worked on in one turn of the event loop, at most."""
LEAST = 8
"""Events of a turn where each costs much, as under guardrails."""
_LONG, _SHORT = 0.0005, 0.0002
"""Seconds of CPU above which a turn gets fewer events, and below which it gets more."""
_SHARE, _AHEAD = 0.125, 0.05
"""Share of the loop's time that one answer may take where its bytes wait, and the seconds that it may be ahead of that:
usual answers are not slowed, and one that comes as fast as its provider can send leaves others the rest.
"""
_CARRIED = 60e-9
"""Seconds that a byte counts which took nearly nothing here, without content or in a row of events: Envoy and both
connections carry it, too. So a provider of nothing is read at 2 MiB a second.
"""
_MOST_SPENT = 0.005  # seconds of CPU that a step counts at most: others may have had the loop while it waited
SLICE = 16 << 10
"""Bytes of one answer that are cut into events in one turn."""


class Intake:
    """Cuts one answer into steps of at most `TURN` events. `more`: a further step waits. `ended`: the latest step was
    the last. `rest`: the event at the end that is not whole, if there is one. `turn`: the most events of the next step.
    `pause`: seconds until the next step may begin.
    """

    __slots__ = (
        "_began",
        "_due",
        "_ends",
        "_events",
        "_framing",
        "_inflate",
        "_slice",
        "_waiting",
        "ended",
        "lead",
        "more",
        "pause",
        "rest",
        "turn",
    )

    def __init__(self, framing: Framing, inflate: Inflate | None = None) -> None:
        self.more = self.ended = False
        self.lead: bytes | None = None  # first bytes of the body
        self.rest: Frame | None = None
        self.pause = 0.0
        self._framing = framing
        self.turn = TURN
        self._began = -1.0  # CPU time at the begin of a step behind which another waits
        self._due = 0.0  # when the answer has its share for all that it took
        self._inflate = inflate
        # bytes of a plain answer only add up
        self._slice = sys.maxsize if isinstance(framing, WholeBody) else SLICE
        self._waiting = b""  # bytes of later steps
        self._events: Sequence[Frame] = ()
        self._ends = False  # the last piece came

    @property
    def broken(self) -> bool:
        """True at the end of a compressed answer that could not be read whole."""
        return self._inflate is not None and self._inflate.broken

    def take(self, chunk: bytes, end: bool) -> Sequence[Frame]:
        """The events of the next step, possibly none. Raises Refusal (502) for a stream that carries nothing."""
        if end:
            self._ends = True
        if chunk:
            self._waiting += chunk
        events = self._events or self._read()
        self._events = ()
        if len(events) > self.turn:
            events, self._events = events[: self.turn], events[self.turn :]
        self.more = bool(self._events) or self._has_bytes
        self.ended = self._ends and not self.more
        self.pause = 0.0
        self._began = time.thread_time() if self.more else -1.0
        return events

    @property
    def _has_bytes(self) -> bool:
        return bool(self._waiting) or (self._inflate is not None and self._inflate.more)

    def pace(self, events: Sequence[Frame]) -> None:
        """Take in the CPU of a step with these events: how many the next turn may have, and when it may begin."""
        if self._began < 0.0:
            return
        seconds = min(time.thread_time() - self._began, _MOST_SPENT)
        if seconds > _LONG:
            self.turn = max(LEAST, min(self.turn, len(events)) // 2)
        elif seconds < _SHORT:
            self.turn = min(TURN, self.turn * 2)
        seconds += _CARRIED * sum([len(event.raw) for event in events if event.name == EMPTY or event.events > 1])
        now = time.monotonic()
        self._due = max(self._due, now) + seconds / _SHARE
        self.pause = max(0.0, self._due - now - _AHEAD)

    def learn(
        self,
        events: Sequence[Frame],
        reads: Collection[str] | None,
        places: Sequence[JSONPath],
        *,
        guarded: bool = False,
    ) -> None:
        """Take in the events of a step, of whose fields only `reads` matter. Where they are many, those without such a
        field come together from now on, and without their data; those that say nothing but a text at one of the
        `places` come as one where they are in a row.
        """
        if len(events) == self.turn and isinstance(self._framing, SSE):
            if reads is not None:
                self._framing.learn_empty(events, reads, guarded=guarded)
            self._framing.learn_runs(events, places)

    def _read(self) -> Sequence[Frame]:
        framing = self._framing
        if framing.empty > framing.empty_limit:
            message = "The provider sent {} KiB in a row without content: the answer was ended; use another model."
            raise Refusal(PROVIDER_BAD_ANSWER, message.format(framing.empty >> 10))
        piece = self._next_slice()
        if self.lead is None and piece:
            self.lead = piece[: len(BOM)]
        events = framing.feed(piece) if piece else ()
        if not self._ends or self._has_bytes:
            return events
        if self._inflate is not None:
            self._inflate.end()
        rest = framing.end()
        self.rest = rest[-1] if rest else None
        return [*events, *rest] if rest else events

    def _next_slice(self) -> bytes:
        piece, self._waiting = self._waiting, b""
        if (inflate := self._inflate) is not None:
            return inflate.feed(piece)
        if len(piece) > self._slice:
            piece, self._waiting = piece[: self._slice], piece[self._slice :]
        return piece

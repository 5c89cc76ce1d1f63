"""An answer's bytes in steps, so that other requests have their turn between them.

A piece of an answer may hold thousands of tiny events, and a compressed one may grow two hundredfold. `Intake` cuts
both into steps. The transport asks for the next step when the peer has read the last step's output. So a step bounds
the memory, and a slow reader slows the provider.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence

from extproc.wire.framing import BOM, Frame, Framing
from extproc.wire.framing.inflate import Inflate
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.runs import Place
from extproc.wire.framing.sse import SSE
from extproc.words.errors import PROVIDER_BAD_ANSWER, Refusal

TURN = 64
"""Most events of one answer in one turn of the event loop."""
LEAST = 8
"""Fewest events in a turn, for events that cost much, as under guardrails."""
_LONG, _SHORT = 0.0005, 0.0002
"""Seconds of CPU: a longer step lowers the number of events in a turn, a shorter one raises it."""
_SHARE, _AHEAD = 0.125, 0.25
"""Share of the event loop's time for an answer with bytes waiting, and the seconds that it may run ahead of that share.
Usual answers are not slowed; an answer as fast as its provider can send leaves time to other requests.
"""
_MOST_SPENT = 0.005  # most seconds of CPU counted for a step: other requests may have used the loop meanwhile
SLICE = 16 << 10
"""Bytes of one answer that are cut into events in one turn."""


class Intake:
    """Cuts one answer into steps of at most `TURN` events. `more`: another step waits. `ended`: the latest step was the
    last. `rest`: an incomplete event at the end, if any. `turn`: the most events of the next step. `pause`: seconds
    until the next step may begin.
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
        self._began = -1.0  # CPU time at the start of a step, where another step waits; otherwise -1
        self._due = 0.0  # time at which the answer's share covers the CPU it used
        self._inflate = inflate
        # A plain answer is not sliced: its bytes are only collected
        self._slice = sys.maxsize if isinstance(framing, WholeBody) else SLICE
        self._waiting = b""  # bytes of later steps
        self._events: Sequence[Frame] = ()
        self._ends = False  # True: the last piece of the body came

    @property
    def broken(self) -> bool:
        """True at the end of a compressed answer that could not be read whole."""
        return self._inflate is not None and self._inflate.broken

    def take(self, chunk: bytes, end: bool) -> Sequence[Frame]:
        """Events of the next step, possibly none. Raises Refusal (502) for a stream without content."""
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
        """Set `turn` and `pause` of the next step by the CPU that this step's `events` took."""
        if self._began < 0.0:
            return
        seconds = min(time.thread_time() - self._began, _MOST_SPENT)
        if seconds > _LONG:
            self.turn = max(LEAST, min(self.turn, len(events)) // 2)
        elif seconds < _SHORT:
            self.turn = min(TURN, self.turn * 2)
        now = time.monotonic()
        self._due = max(self._due, now) + seconds / _SHARE
        self.pause = max(0.0, self._due - now - _AHEAD)

    def learn(
        self,
        events: Sequence[Frame],
        reads: Collection[str] | None,
        places: Sequence[Place],
        *,
        guarded: bool = False,
    ) -> None:
        """Teach the framing, after a full step, the forms of its events; `reads` are the fields that matter. From then
        on, consecutive events without such a field are one frame without data, and consecutive events with only a text
        at one of the `places` are one frame.
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

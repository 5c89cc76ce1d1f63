"""Full garbage collections, at times when few requests wait.

By default the interpreter examines all long-lived objects whenever their number has grown by a quarter. With 5,000 open
streams this stops the event loop for about 100 ms. An exchange leaves no cycles (`tests/test_gateway_ends.py`), so a
full collection only finds cycles of rare errors and reloads, and can wait until they take much memory. Young objects
are always collected.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

EVERY = 30.0
"""Seconds between two checks."""
SHORT = 0.010
"""Seconds that a collection may delay requests in flight."""
EACH = 20e-6
"""Seconds that an open stream adds to a collection."""
BLOCKS = 400
"""Blocks of memory that an exchange in flight may have; an open stream has about 90."""
SPARE = 500_000
"""Further blocks that may appear between two collections, about 40 MB: what a defect that leaves cycles may waste."""
_YOUNG, _MIDDLE = 5_000, 1
"""New objects between two collections of the youngest, and such collections between two of the middle-aged. A few dozen
exchanges in flight have more than the interpreter's 700 objects, which it would examine shortly before they are freed;
20,000 and 5 stop the event loop for 35 ms when 5,000 streams open at once, these for 2 ms.
"""
_NEVER = 1 << 30  # collections of younger objects between two full ones


def only_when_told() -> None:
    """End automatic full collections in this process; a `Collector` runs them instead. Current objects are never
    examined again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)


class Collector:
    """Runs a full collection when no request is in flight, when it will be short, or when more memory is in use than
    the requests in flight explain.
    """

    def __init__(
        self,
        in_flight: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        self._in_flight, self._clock, self._blocks = in_flight, clock, blocks
        self._took, self._beside = 0.0, 0  # the last collection: seconds, and requests in flight
        self._left = blocks()

    async def look(self) -> None:
        """Run a full collection if the time is right."""
        in_flight = self._in_flight()
        short = self._took + (in_flight - self._beside) * EACH <= SHORT
        explained = self._blocks() - self._left <= SPARE + in_flight * BLOCKS
        if in_flight and not short and explained:
            return
        begun = self._clock()
        gc.collect()
        self._took, self._beside = self._clock() - begun, in_flight
        self._left = self._blocks()

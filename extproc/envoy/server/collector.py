"""Full garbage collections, at times when few requests wait.

By default the interpreter examines all long-lived objects whenever their number has grown by a quarter. With 5,000 open
streams this stops the event loop for about 100 ms. An exchange leaves no cycles (`tests/test_gateway_ends.py`), so a
full collection only finds cycles of rare errors and reloads, and can wait. Young objects are always collected.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

EVERY = 30.0
"""Seconds between two checks."""
SHORT = 0.010
"""Seconds that a collection may delay requests in flight."""
LONGEST = 600.0
"""Seconds until a collection runs, whatever requests are in flight."""
_YOUNG, _MIDDLE = 20_000, 5
"""New objects between two collections of the youngest, and such collections between two of the middle-aged. A few dozen
exchanges in flight have more than the interpreter's 700 objects, which it would examine shortly before they are freed.
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
    """Runs a full collection when no request is in flight, when the last one was short, or after ten minutes."""

    def __init__(self, in_flight: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._in_flight, self._clock = in_flight, clock
        self._took, self._last = 0.0, clock()

    async def look(self) -> None:
        """Run a full collection if the time is right."""
        begun = self._clock()
        if self._in_flight() and self._took > SHORT and begun - self._last < LONGEST:
            return
        gc.collect()
        self._last = self._clock()
        self._took = self._last - begun

"""Full collections of garbage, at moments when few requests wait for them.

The interpreter looks through all long-lived objects whenever these have grown by a quarter. With 5,000 open streams
each look stops the event loop for about 100 ms. An exchange leaves no cycles behind (`tests/test_gateway_ends.py`), so
a full collection only finds the cycles of rare errors and of reloads, and can wait. Young objects are always collected.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

EVERY = 30.0
"""Seconds from one look to the next."""
SHORT = 0.010
"""Seconds that a collection may stop requests in flight."""
LONGEST = 600.0
"""Seconds after which a collection happens in the middle of whatever there is."""
_NEVER = 1 << 30  # collections of younger objects between two full ones


def only_when_told() -> None:
    """End automatic full collections in this process, which has a `Collector` then. Everything there is now is never
    looked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _NEVER)


class Collector:
    """Collects when no request is in flight, when the last collection took a moment, or after ten minutes."""

    def __init__(self, in_flight: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._in_flight, self._clock = in_flight, clock
        self._took, self._last = 0.0, clock()

    async def look(self) -> None:
        """Collect, where this is a moment for it."""
        begun = self._clock()
        if self._in_flight() and self._took > SHORT and begun - self._last < LONGEST:
            return
        gc.collect()
        self._last = self._clock()
        self._took = self._last - begun

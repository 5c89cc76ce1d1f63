"""A breaker: it spares a peer that does not answer, and its callers the wait."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 5  # failures in a row, after which the breaker opens
PAUSE = 0.1  # seconds until it lets one call through as a probe: calls in flight fail together when a peer stalls once
LONGEST_PAUSE = 1.0  # the pause doubles up to here, so a peer that is back is used at most this much later


class Breaker:
    """Lets calls through until `FAILURES` in a row failed; from then on one at a time, after a pause. A call that may
    not pass raises `refusal`: it certainly did nothing.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, refusal: Callable[[str], Exception] = ConnectionError
    ) -> None:
        self._clock = clock
        self._refusal = refusal
        self._failures = 0
        self._pause = PAUSE
        self._until = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        return self._failures >= FAILURES

    def enter(self) -> bool:
        """True when this call is a probe. Raises the refusal while no call may pass."""
        if not self.open:
            return False
        if self._probing or self._clock() < self._until:
            raise self._refusal("it did not answer lately, and is asked again in a moment")
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures, self._pause, self._probing = 0, PAUSE, False

    def failed(self, probe: bool) -> bool:
        """True when the breaker opened just now. Calls that began before do not make the pause longer."""
        self._failures += 1
        if probe:
            self._probing = False
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._until = self._clock() + self._pause
        elif self._failures == FAILURES:
            self._until = self._clock() + self._pause
            return True
        return False

    def abandoned(self, probe: bool) -> None:
        if probe:
            self._probing = False

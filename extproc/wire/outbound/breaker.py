"""A breaker: spares a peer that does not answer, and spares callers the wait."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 5  # consecutive failures that open the breaker
PAUSE = 0.1  # seconds until a call may pass as a probe; short, since one stall fails all calls in flight
LONGEST_PAUSE = 1.0  # longest pause, seconds: the most that a recovered peer waits to be used


class Breaker:
    """Lets calls pass until `FAILURES` consecutive ones failed; from then on only a probe after each pause. A call that
    may not pass raises `refusal`: nothing was sent.
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
        """True when this call is a probe. Raises the refusal when the call may not pass."""
        if not self.open:
            return False
        if self._probing or self._clock() < self._until:
            raise self._refusal("it did not answer lately, and is asked again in a moment")
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures, self._pause, self._probing = 0, PAUSE, False

    def failed(self, probe: bool) -> bool:
        """Count a failure. True when this failure opened the breaker. Only a failed probe makes the pause longer."""
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

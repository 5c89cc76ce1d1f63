"""The breaker of a store: a call that may not pass is one that certainly did nothing."""

from __future__ import annotations

from extproc.outbound import breaker
from extproc.stores import NotSentError

FAILURES, PAUSE = breaker.FAILURES, breaker.PAUSE


class Breaker(breaker.Breaker):
    """See `outbound.breaker`."""

    def refusal(self) -> Exception:
        return NotSentError("the store did not answer lately; it is asked again in a moment")

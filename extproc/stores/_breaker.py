"""The breaker of a store: a call that may not pass is one that certainly did nothing."""

from __future__ import annotations

from extproc.stores import NotSentError
from extproc.wire.outbound import breaker

FAILURES, PAUSE = breaker.FAILURES, breaker.PAUSE


class Breaker(breaker.Breaker):
    """See `outbound.breaker`."""

    def refusal(self) -> Exception:
        return NotSentError("the store did not answer lately; it is asked again in a moment")

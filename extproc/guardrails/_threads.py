"""Scans of long texts, on threads with a deadline: RE2 releases the interpreter's lock."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from extproc.wire.outbound.service import Failure

LARGE = 256 << 10
"""Size of a body, in bytes, above which the threads for large bodies search it."""
INLINE = 8 << 10
"""Largest body, in bytes, that may be searched on the event loop. A thread costs about 0.1 ms."""
TURN = 4000.0
"""Microseconds that a search on the event loop may take, by the `cost` of its guardrails."""
TEXT_COST = 20.0
"""Microseconds of fixed cost that a guardrail has for each text of a request, its neighbours included."""

Found = TypeVar("Found")


# Switch interval of threads, seconds. With Python's default a scan would delay the event loop by 5 ms each time. A
# switch costs some 10 µs, and none happens while the loop rests.
_SWITCH = 0.0003


@cache
def _pool(name: str) -> ThreadPoolExecutor:
    """A pool of threads for half of the cores. Python runs one thread at a time, so more threads would gain little and
    delay the event loop.
    """
    sys.setswitchinterval(min(_SWITCH, sys.getswitchinterval()))
    return ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) // 2)), thread_name_prefix=name)


class Threads:
    """Runs work on threads. More than `most` pieces of work at a time are refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0

    @property
    def full(self) -> bool:
        """True if further work is refused."""
        return self._under_way >= self._most

    async def run(self, work: Callable[[], Found], seconds: float, size: int = 0) -> Found:
        """The result of `work` on a body of `size` bytes; small bodies do not wait for large ones.

        Raises Failure when it takes longer than `seconds`. A thread cannot be stopped, so `work` has to look at its own
        deadline too.
        """
        if self.full:
            raise Failure("overload")
        self._under_way += 1
        future = asyncio.get_running_loop().run_in_executor(_pool("large" if size > LARGE else "small"), work)
        future.add_done_callback(self._ended)
        done, _ = await asyncio.wait({future}, timeout=seconds)  # asyncio.timeout would need a task
        if not done:
            raise Failure("timeout")
        return await future

    def _ended(self, future: asyncio.Future[Found]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # marks the exception as read, or asyncio logs it

"""Scans of long texts, on threads with a deadline: RE2 lets go of the interpreter's lock."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from extproc.guardrails._base import Failure

INLINE = 8 << 10
"""Bytes of a body that are searched on the event loop. A thread costs about 0.1 ms."""

Found = TypeVar("Found")


_SWITCH = 0.001  # seconds; Python's default of 5 ms is how long a scan would keep the event loop waiting


@cache
def _pool() -> ThreadPoolExecutor:
    sys.setswitchinterval(min(_SWITCH, sys.getswitchinterval()))
    return ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1)), thread_name_prefix="guardrails")


class Threads:
    """Runs work on threads. More than `most` pieces of work at a time are refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0

    async def run(self, work: Callable[[], Found], seconds: float) -> Found:
        """The result of `work`. Raises Failure when it takes longer than `seconds`; a thread cannot be stopped, so
        `work` has to look at its own deadline too.
        """
        if self._under_way >= self._most:
            raise Failure("overload")
        self._under_way += 1
        future = asyncio.get_running_loop().run_in_executor(_pool(), work)
        future.add_done_callback(self._ended)
        done, _ = await asyncio.wait({future}, timeout=seconds)  # asyncio.timeout would need a task
        if not done:
            raise Failure("timeout")
        return await future

    def _ended(self, future: asyncio.Future[Found]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # else asyncio logs the exception of work that nothing waits for

"""Lines for standard output and standard error, written by a thread: a reader that stops reading stops nothing else.

A pipe whose reader is stuck blocks every write to it. On the event loop such a write would stop all traffic; here it
blocks one thread. Lines wait in a queue that is bounded in bytes. A line that does not fit, or cannot be written, is
counted and dropped.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

_GATHER = (
    0.02  # seconds in which lines are collected, so that a busy process wakes the thread at most 50 times a second
)
_AT_ONCE = 64 << 10  # most bytes of one write
WHOLE = 4096
"""Most bytes that a pipe writes atomically (PIPE_BUF of Linux), even with several writing processes."""
_LAST = 1.0  # seconds that the end of a process waits for its last lines
_LOOK = 0.5  # seconds between two tries at a descriptor that accepts nothing


class Lines:
    """Writes lines to a file descriptor, in their order, from a thread that starts with the first line.

    `limit` is the queue's limit in bytes. `lost` is called for each dropped line, on the thread that drops it.
    `at_once` is the most bytes of one write: `WHOLE` if other processes also write to the descriptor.
    """

    def __init__(self, descriptor: int, limit: int, lost: Callable[[], object], *, at_once: int = _AT_ONCE) -> None:
        self._descriptor = descriptor
        self._at_once = at_once
        self._limit = limit
        self._lost = lost
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes in the queue
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def __call__(self, line: str) -> None:
        """Queue a line, with its line feed. Never blocks and never raises."""
        data = line.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._size + len(data) > self._limit:
                fits = False
            else:
                fits = True
                self._waiting.append(data)
                self._size += len(data)
                self._idle.clear()
        if not fits:
            self._lost()
            return
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
            self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait until every line is written, at most the given seconds. True when all are written."""
        return self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(_GATHER)
            self._wake.clear()
            while batch := self._take_batch():
                self._write(batch)
            with self._lock:
                if not self._waiting:
                    self._idle.set()

    def _take_batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        with self._lock:
            while self._waiting and (not batch or size + len(self._waiting[0]) <= self._at_once):
                batch.append(self._waiting.popleft())
                size += len(batch[-1])
            self._size -= size
        return batch

    def _write(self, batch: list[bytes]) -> None:
        data = memoryview(b"".join(batch))
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # the pipe is full, and another process made it non-blocking
                select.select([], [self._descriptor], [], _LOOK)
            except OSError:  # the reader, the disk space or the descriptor is missing
                for _ in batch:
                    self._lost()
                return


class LinesHandler(logging.Handler):
    """Writes records of the standard logging module as lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - an unwritable record must not stop its caller
            self.handleError(record)

    def flush(self) -> None:
        self._lines.flush(_LAST)

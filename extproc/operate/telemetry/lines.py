"""Lines for standard output and standard error, written by a thread: a reader that stops reading stops nothing else.

A pipe whose reader is stuck blocks every write to it. On the event loop such a write ends all traffic; here it holds up
one thread. Lines wait in a queue that is bounded in bytes. A line that does not fit, or cannot be written, is counted
and dropped.
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
    0.02  # seconds in which lines come together, so that a busy process wakes the thread 50 times a second at most
)
_AT_ONCE = 64 << 10  # bytes of one write
WHOLE = 4096
"""Bytes that a pipe takes whole (PIPE_BUF of Linux), however many processes write to it."""
_LAST = 1.0  # seconds that the end of a process waits for its last lines
_LOOK = 0.5  # seconds between two looks at a descriptor that takes nothing


class Lines:
    """Writes lines to a file descriptor, in their order, from a thread that starts with the first line.

    `limit` is in bytes; `lost` is called for each dropped line, on the thread that drops it. Of lines that are written
    together, `at_once` bytes at most: `WHOLE` where other processes write to the descriptor too.
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
        """Wait until every line is written, for at most this long. True when they are."""
        return self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(_GATHER)
            self._wake.clear()
            while batch := self._take():
                self._write(batch)
            with self._lock:
                if not self._waiting:
                    self._idle.set()

    def _take(self) -> list[bytes]:
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
            except BlockingIOError:  # another process made it non-blocking, and it is full
                select.select([], [self._descriptor], [], _LOOK)
            except OSError:  # no reader, no room, no such descriptor
                for _ in batch:
                    self._lost()
                return


class LinesHandler(logging.Handler):
    """Records of the standard logging module, as lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - a record that cannot be written must not end what wrote it
            self.handleError(record)

    def flush(self) -> None:
        self._lines.flush(_LAST)

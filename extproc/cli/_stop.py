"""A stop that works even if the event loop is stuck.

A thread waits for SIGTERM, SIGINT and SIGHUP, because a handler of the event loop would not run while the loop is
stuck. The thread begins the drain, and ends the process when the drain exceeds its time.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

from extproc.cli._supervise import STOPS

OVERDUE = 1
"""Exit code of a process whose drain did not end in time."""

log = logging.getLogger(__name__)


def block_signals() -> None:
    """Block the signals for `on_signal`. Call it before any thread starts: threads inherit the mask, and so would
    children.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def on_signal(stop: Callable[[], object], patience: float) -> None:
    """Call `stop`, on another thread, at the first signal. End the process `patience` seconds later, or at a second
    signal.
    """

    def wait() -> None:
        signal.sigwait(STOPS)
        stop()
        again = signal.sigtimedwait(STOPS, patience)
        log.error("%s; ending now", "stopped again" if again else f"the drain took longer than {patience:.0f} s")
        logging.shutdown()
        os._exit(OVERDUE)

    threading.Thread(target=wait, name="signals", daemon=True).start()

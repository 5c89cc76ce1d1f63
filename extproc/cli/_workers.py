"""The supervisor of several workers (`processor.workers`): it starts them, restarts one that ends, and stops them all.

`extproc serve` becomes this script. It stays small (10 MB) because it imports little and nothing of the package.
Arguments: a JSON array with the command line of each worker, and one with the unix socket of each.

Workers share the stores and nothing else, as replicas do. Envoy spreads streams over their sockets by least request,
and repeats a stream without an answer at another worker. The id of an exchange begins with the number of its worker.
Each try has one access log for each worker, with a filter on that number, so a log entry reaches the right worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from typing import NoReturn

HANG_UP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
"""The end of the terminal stops as Ctrl-C does, unless `nohup` started this."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *HANG_UP, signal.SIGCHLD)
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds before a worker starts again; doubled each time
STEADY = 30.0  # seconds after which a worker's end is taken for its first
ROOM = 30.0  # seconds for those who serve at the sockets to end
_LOOK = 0.1  # seconds between looks at what is due


def take_over(commands: list[list[str]], sockets: list[str]) -> NoReturn:
    """Replace this process by the supervisor."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes meanwhile waits for sigwait
    arguments = [json.dumps(commands), json.dumps(sockets)]
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, *arguments])  # noqa: S606


class Worker:
    """One worker: its process, and when it is to be started again."""

    def __init__(self, number: int, command: list[str], path: str) -> None:
        self.number = number
        self.pid: int | None = None
        self.due = 0.0  # monotonic; when it starts, without a process
        self.was_ready = False
        self._command = command
        self._path = path
        self._started = 0.0
        self._wait = FIRST_WAIT

    def start(self) -> None:
        """In a session of its own: Ctrl-C reaches the supervisor alone, which stops all workers once."""
        self._started = time.monotonic()
        self.pid = os.posix_spawn(self._command[0], self._command, os.environ, setsid=True, setsigmask=())

    def ended(self, status: int) -> None:
        """Plan the next start."""
        self.pid = None
        lived = time.monotonic() - self._started
        self._wait = FIRST_WAIT if lived > STEADY else min(self._wait, LONGEST_WAIT)
        self.due = time.monotonic() + self._wait
        say("error", f"worker {self.number} ended with status {status}; it starts again in {self._wait:g} s")
        self._wait *= 2

    def serves(self) -> bool:
        """True once its socket takes connections."""
        self.was_ready = self.was_ready or _answers(self._path)
        return self.was_ready


def main() -> int:
    """Run until SIGINT, SIGTERM or SIGHUP. Returns 0 when all workers drained, else 1; or the status of a worker that
    ends before all have been ready once: then nothing works yet, and a message is better than another start.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    commands, sockets = map(json.loads, sys.argv[1:])
    workers = [Worker(number, *each) for number, each in enumerate(zip(commands, sockets, strict=True))]
    if (status := _wait_for_room(sockets)) is not None:
        return status
    for worker in workers:
        worker.start()
    begun = False
    while True:
        if begun and not _waiting(workers):
            number: int | None = signal.sigwait(SIGNALS)
        else:
            number = _signal_soon()
        if number not in (None, signal.SIGCHLD):
            return _stop(workers)
        for worker, status in _ended(workers):
            if not begun:
                say("error", f"worker {worker.number} ended with status {status} before it was ready")
                _stop(workers)
                return status or 1
            worker.ended(status)
        begun = begun or all(worker.serves() for worker in workers)
        for worker in workers:
            if worker.pid is None and time.monotonic() >= worker.due:
                worker.start()


def _wait_for_room(sockets: list[str]) -> int | None:
    """Wait while others serve: workers that drain because their supervisor was killed, or another gateway, whose
    sockets would pass for those of workers that are ready. Returns a status to end with, or None.
    """
    begun = time.monotonic()
    while taken := [path for path in sockets if _answers(path)]:
        waited = time.monotonic() - begun
        if waited >= ROOM:
            say("error", f"another process serves {taken[0]}")
            return 1
        if waited < _LOOK:
            say("warning", f"another process serves {taken[0]}: waiting up to {ROOM:g} s for its end")
        if _signal_soon() is not None:
            return 0
    return None


def _signal_soon() -> int | None:
    """The signal that comes within `_LOOK` seconds. `sigtimedwait` tells of one that nobody sent where the process was
    paused meanwhile (Ctrl-Z, `docker pause`): Python then reads what the kernel has not written.
    """
    if not signal.sigpending() & set(SIGNALS):
        time.sleep(_LOOK)
    return signal.sigwait(SIGNALS) if signal.sigpending() & set(SIGNALS) else None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _waiting(workers: list[Worker]) -> bool:
    return any(worker.pid is None for worker in workers)


def _ended(workers: list[Worker]) -> list[tuple[Worker, int]]:
    """The workers that have ended, and their exit statuses as `subprocess` has them (-9 for SIGKILL)."""
    found = []
    for worker in workers:
        if worker.pid is not None:
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                found.append((worker, os.waitstatus_to_exitcode(status)))
                worker.pid = None
    return found


def _stop(workers: list[Worker]) -> int:
    """Let all drain, each in its own time. Further signals are passed on: a worker ends at the second."""
    _signal(workers, signal.SIGTERM)
    failed = 0
    while any(worker.pid is not None for worker in workers):
        if signal.sigwait(SIGNALS) != signal.SIGCHLD:
            _signal(workers, signal.SIGTERM)
        failed += sum(status != 0 for _, status in _ended(workers))
    return 1 if failed else 0


def _signal(workers: list[Worker], number: int) -> None:
    for worker in workers:
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, number)


def say(level: str, message: str) -> None:
    """A line in the form of the workers' logs."""
    line = {"time": time.time(), "event": "log", "level": level, "logger": "extproc.workers", "message": message}
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), (json.dumps(line) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())

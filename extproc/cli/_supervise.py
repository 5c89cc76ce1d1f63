"""The supervisor of `extproc up`, and of several workers (`processor.workers`): it waits for its children, restarts a
worker that ends, and stops all children.

The command that has prepared everything becomes this script by exec. Its process and children stay, and the memory of
the preparation is freed (77 MB of settings and Envoy types, against 10 MB here). So this file imports little, and
nothing of the package. Its argument is a plan in JSON:

    workers     command line and unix socket of each worker; all are stopped at once, each in its own time
    running     process id, name and command of each child that runs already; one with a command restarts, the end of
                another ends all, the last one first
    drain       script, with its arguments, that runs before these are stopped
    directory   removed at the end

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
from collections.abc import Sequence
from typing import Any, NoReturn

HANG_UP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
"""Signals at the end of the terminal, which stop like Ctrl-C, unless `nohup` started this process."""
STOPS = (signal.SIGINT, signal.SIGTERM, *HANG_UP)
SIGNALS = (*STOPS, signal.SIGCHLD)
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # shortest and longest pause before a worker restarts, seconds; doubled each time
STEADY = 30.0  # seconds of running after which a worker's pause begins at `FIRST_WAIT` again
ROOM = 30.0  # seconds to wait for other processes at the workers' sockets to end
_LOOK = 0.1  # seconds between two checks for due starts
_STOP = 10.0  # seconds for a running child to end by itself


def command(**plan: Any) -> list[str]:
    """The command line of this script with a plan."""
    return [sys.executable, "-I", "-S", __file__, json.dumps(plan)]


def take_over(**plan: Any) -> NoReturn:
    """Replace this process by the supervisor."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal during the exec waits for sigwait
    os.execv(sys.executable, command(**plan))  # noqa: S606


class Child:
    """A child process. One that restarts also has a command, and the time of its next start."""

    def __init__(self, name: str, pid: int | None = None, command: list[str] | None = None, path: str = "") -> None:
        self.name = name
        self.pid = pid
        self.command = command
        self.due = 0.0  # time of the next start, monotonic; used while it has no process
        self.path = path
        self._was_ready = not path
        self._started = 0.0
        self._wait = FIRST_WAIT

    def start(self) -> None:
        """Start the child in its own session, so that Ctrl-C reaches only the supervisor, which stops all workers
        once.
        """
        self._started = time.monotonic()
        assert self.command, "it restarts"
        self.pid = os.posix_spawn(self.command[0], self.command, os.environ, setsid=True, setsigmask=())

    def reap(self) -> int | None:
        """The exit status, once, in the form of `subprocess` (-9 for SIGKILL); None while it runs, and later."""
        if self.pid is None:
            return None
        try:
            found, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # the child was reaped before
            found, status = self.pid, 0
        if not found:
            return None
        self.pid = None
        return os.waitstatus_to_exitcode(status)

    def plan_start(self, status: int) -> None:
        """Plan the next start of a child that ended."""
        lived = time.monotonic() - self._started
        self._wait = FIRST_WAIT if lived > STEADY else min(self._wait, LONGEST_WAIT)
        self.due = time.monotonic() + self._wait
        _log("error", f"{self.name} ended with status {status}; it starts again in {self._wait:g} s")
        self._wait *= 2

    def serves(self) -> bool:
        """True once the worker's socket accepts connections."""
        self._was_ready = self._was_ready or _answers(self.path)
        return self._was_ready

    def send(self, number: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def main() -> int:
    """Run until one of the signals STOPS. Returns 0 when all children then ended well; see `_watch`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    plan = json.loads(sys.argv[1])
    if workers := plan.get("workers"):
        return _serve([Child(f"worker {number}", None, *each) for number, each in enumerate(workers)])
    children = [Child(name, pid, command) for pid, name, command in plan["running"]]
    try:
        status = _watch(children)
        if not status:
            say("\nstopping")
            _drain(plan["drain"])
        return status
    finally:
        stop(children)
        remove(plan["directory"])


def _watch(children: Sequence[Child]) -> int:
    """Wait for a signal to stop, and return 0. Workers that end meanwhile restart. If another child ends, returns 1. If
    a worker ends before all workers have been ready once, returns its status: then nothing has worked yet, and a
    message is better than a restart.
    """
    begun = False
    while True:
        for child in children:
            if (status := child.reap()) is None:
                continue
            if not child.command:
                say(f"{child.name} ended with status {status}; stopping the rest")
                return 1
            if not begun:
                _log("error", f"{child.name} ended with status {status} before it was ready")
                return status or 1
            child.plan_start(status)
        begun = begun or all(child.serves() for child in children)
        for child in children:
            if child.pid is None and time.monotonic() >= child.due:
                child.start()
        steady = begun and all(child.pid is not None for child in children)
        if (signal.sigwait(SIGNALS) if steady else _signal_soon()) not in (None, signal.SIGCHLD):
            return 0


# --- workers


def _serve(workers: Sequence[Child]) -> int:
    if (status := _wait_for_room(workers)) is not None:
        return status
    for worker in workers:
        worker.start()
    status = _watch(workers)
    failed = _end(workers)
    return status or failed


def _wait_for_room(workers: Sequence[Child]) -> int | None:
    """Wait while other processes serve at the sockets: draining workers of a killed supervisor, or another gateway.
    Their sockets would look like ready workers. Returns a status to end with, or None.
    """
    begun = time.monotonic()
    while taken := [worker.path for worker in workers if _answers(worker.path)]:
        waited = time.monotonic() - begun
        if waited >= ROOM:
            _log("error", f"another process serves {taken[0]}")
            return 1
        if waited < _LOOK:
            _log("warning", f"another process serves {taken[0]}: waiting up to {ROOM:g} s for its end")
        if _signal_soon() is not None:
            return 0
    return None


def _signal_soon() -> int | None:
    """The signal that comes within `_LOOK` seconds. After a pause of the process (Ctrl-Z, `docker pause`)
    `sigtimedwait` may report a signal that was never sent: Python then reads memory that the kernel has not written.
    """
    if not signal.sigpending() & set(SIGNALS):
        time.sleep(_LOOK)
    return signal.sigwait(SIGNALS) if signal.sigpending() & set(SIGNALS) else None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _end(workers: Sequence[Child]) -> int:
    """Let all workers drain. Further signals are passed on: a worker ends at the second. Returns 1 if a worker
    failed.
    """
    number, failed = int(signal.SIGTERM), False
    while True:
        for worker in workers:
            if number != signal.SIGCHLD:
                worker.send(signal.SIGTERM)
            failed |= bool(worker.reap())
        if all(worker.pid is None for worker in workers):
            return int(failed)
        number = signal.sigwait(SIGNALS)


# --- children that run already


def _drain(script: Sequence[str]) -> None:
    """Run the drain until its end, or until a further signal."""
    arguments = [sys.executable, "-I", "-S", *script]
    child = Child("drain", os.posix_spawn(sys.executable, arguments, os.environ, setsid=True))
    while child.reap() is None:
        if signal.sigwait(SIGNALS) != signal.SIGCHLD:
            child.send(signal.SIGKILL)
            _ends(child)
            return


def stop(children: Sequence[Child]) -> None:
    """End the children, the last first: Envoy before the processor that it calls. A further Ctrl-C changes nothing."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for child in reversed(children):
        child.send(signal.SIGTERM)
        if not _ends(child):
            child.send(signal.SIGKILL)
            _ends(child)


def _ends(child: Child) -> bool:
    """Wait up to `_STOP` seconds for a child's end. SIGCHLD is blocked, so it is waited for without a race."""
    deadline = time.monotonic() + _STOP
    while child.reap() is None and child.pid is not None:
        if (left := deadline - time.monotonic()) <= 0:
            return False
        signal.sigtimedwait([signal.SIGCHLD], left)
    return True


def remove(directory: str) -> None:
    """Remove a directory with everything in it: sockets, and the files with the providers' keys."""
    import shutil  # noqa: PLC0415 - imported only at the end, to save memory

    shutil.rmtree(directory, ignore_errors=True)


def say(text: str) -> None:
    """Print a line for the terminal."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _log(level: str, message: str) -> None:
    """Print a line in the form of the workers' logs."""
    line = {"time": time.time(), "event": "log", "level": level, "logger": "extproc.workers", "message": message}
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), (json.dumps(line) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())

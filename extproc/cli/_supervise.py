"""The supervisor of `extproc up`: it waits for its children and stops them together.

`extproc up` becomes this script once everything runs. The process stays, its children too; the memory of the
preparation goes (77 MB of settings and Envoy types, against 10 MB here). So this file imports little, and nothing of
the package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

HANG_UP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
"""The end of the terminal stops as Ctrl-C does, unless `nohup` started this."""
STOPS = (signal.SIGINT, signal.SIGTERM, *HANG_UP)
SIGNALS = (*STOPS, signal.SIGCHLD)
_STOP = 10.0  # seconds for a child to end by itself

Child = tuple[int, str]
"""A process id and a name for people."""


def take_over(directory: str, children: Sequence[Child], drain: Sequence[str]) -> NoReturn:
    """Replace this process by the supervisor. At a signal it runs `drain`, a script with its arguments, before it stops
    the children. It removes `directory` at its end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal that comes meanwhile waits for sigwait
    words = [str(len(drain)), *drain, *(f"{pid}:{name}" for pid, name in children)]
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, directory, *words])  # noqa: S606


def main() -> int:
    """Wait, then stop the children. Returns 0 after one of STOPS, 1 when a child ended by itself."""
    _, directory, number, *words = sys.argv
    drain, words = words[: int(number)], words[int(number) :]
    children = [(int(pid), name) for pid, _, name in (word.partition(":") for word in words)]
    try:
        if status := _watch(children):
            return status
        _drain(drain)
        return 0
    finally:
        stop(children)
        remove(directory)


def _watch(children: Sequence[Child]) -> int:
    while True:
        for pid, name in children:
            if (status := _ended(pid)) is not None:
                say(f"{name} ended with status {status}; stopping the rest")
                return 1
        if signal.sigwait(SIGNALS) != signal.SIGCHLD:
            say("\nstopping")
            return 0


def _drain(script: Sequence[str]) -> None:
    """Run the drain to its end, or to a further signal."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", *script], os.environ, setsid=True)
    while _ended(pid) is None:
        if signal.sigwait(SIGNALS) != signal.SIGCHLD:
            os.kill(pid, signal.SIGKILL)
            _ends(pid, _STOP)
            return


def stop(children: Sequence[Child]) -> None:
    """End the children, the last first: Envoy before the processor that it calls. A further Ctrl-C changes nothing."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for pid, _ in reversed(children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if not _ends(pid, _STOP):
            os.kill(pid, signal.SIGKILL)
            _ends(pid, _STOP)


def _ends(pid: int, seconds: float) -> bool:
    """Wait up to so many seconds for a child's end. SIGCHLD is blocked, so it is waited for without a race."""
    deadline = time.monotonic() + seconds
    while _ended(pid) is None:
        if (left := deadline - time.monotonic()) <= 0:
            return False
        signal.sigtimedwait([signal.SIGCHLD], left)
    return True


def _ended(pid: int) -> int | None:
    """The exit status of a child as `subprocess` has it (-9 for SIGKILL); None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # the child was waited for before
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def remove(directory: str) -> None:
    """Remove a directory with everything in it: sockets, and the files with the providers' keys."""
    import shutil  # noqa: PLC0415 - at the end only, for its memory

    shutil.rmtree(directory, ignore_errors=True)


def say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""A process that has imported the processor and forks a child for each `extproc serve` of the tests.

The imports are more than half of the CPU of a start. A child runs the real command line with its own arguments,
environment, directory and output. Tests of `extproc up`, of the manifests and of the pages start real commands.

Requests come on file descriptor 0, a unix socket: JSON, with the descriptor of the output and that of a socket on which
the child's pid and, when it has ended, its exit status are told.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

REQUEST = 1 << 20  # bytes at most
COMMAND = (sys.executable, "-m", "extproc")


class Child:
    """What the tests use of `subprocess.Popen`."""

    returncode: int | None = None

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], out: IO[bytes]) -> None:
        self.args = [*COMMAND, *arguments]
        self._told, theirs = socket.socketpair()
        with theirs:
            request = json.dumps({"arguments": [*arguments], "cwd": str(cwd), "env": dict(env)}).encode()
            socket.send_fds(_zygote(), [request], [out.fileno(), theirs.fileno()])
        self._lines = self._told.makefile("r")
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        if self.returncode is None and self._has_ended(0):
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _has_ended(self, timeout: float | None) -> bool:
        found = select.poll()  # unlike `select` it takes any descriptor
        found.register(self._told, select.POLLIN)
        return bool(found.poll(None if timeout is None else timeout * 1000))

    def _end(self) -> None:
        self.returncode = int(self._lines.readline())
        self._lines.close()
        self._told.close()


@cache
def _zygote() -> socket.socket:
    """The connection to the zygote of this test process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "tests.e2e.zygote"], stdin=theirs)
    atexit.register(process.wait)
    atexit.register(ours.close)  # before that: it is the sign to end
    return ours


def serve() -> dict[str, object] | None:
    """Fork a child for each request, until the tests' process ends. Returns in the children, with their request."""
    requests, running = socket.socket(fileno=0), dict[int, socket.socket]()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        readable, _, _ = select.select([requests, woken], [], [])
        if woken in readable:
            os.read(woken, 1000)
            while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with running.pop(ended[0]) as told, contextlib.suppress(OSError):
                    told.sendall(b"%d\n" % os.waitstatus_to_exitcode(ended[1]))
        if requests not in readable:
            continue
        request, fds, _, _ = socket.recv_fds(requests, REQUEST, 2)
        if not request:
            return None
        out, telling = fds
        told = socket.socket(fileno=telling)
        if pid := os.fork():
            os.close(out)
            running[pid] = told
            told.sendall(b"%d\n" % pid)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, standard in ((null, requests.detach()), (out, 1), (out, 2)):
            os.dup2(fd, standard)
        for fd in (null, out, woken, wake):
            os.close(fd)
        for each in (told, *running.values()):
            each.close()
        return dict(json.loads(request))


def main() -> int:
    import extproc.cli.serve
    import extproc.envoy.server.processor
    import extproc.operate.admin.http  # noqa: F401
    from extproc.cli import main as extproc_main
    from tests.e2e import late

    late.delay()
    request = serve()
    if request is None:
        return 0
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["extproc", *request["arguments"]]
    return extproc_main()


if __name__ == "__main__":
    sys.exit(main())

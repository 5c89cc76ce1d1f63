"""A command whose processes are paused at random, as on a busy or virtual machine: `make paused`.

    python -m tests.e2e.pauses COMMAND [ARGUMENT...]

One process at a time stands still, for up to 0.2 s. What only happens when one process is far behind another does.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST = 0.2  # seconds of a pause
BETWEEN = 0.1  # seconds between two, at most
ALONE = ("make", "sh", "bash")  # they only wait


def main() -> int:
    """Returns the exit status of the command."""
    pauses = 0
    with subprocess.Popen(sys.argv[1:]) as command:
        while command.poll() is None:
            if found := list(below(command.pid)):
                pause(random.choice(found))
                pauses += 1
            time.sleep(random.uniform(0, BETWEEN))
    sys.stderr.write(f"{pauses} pauses\n")
    return command.returncode


def pause(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(random.uniform(0, LONGEST))
        finally:
            os.kill(pid, signal.SIGCONT)


def below(root: int) -> Iterator[int]:
    """The running processes below one, without those that a test has stopped."""
    children: dict[int, list[int]] = {}
    paused = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            name, _, rest = stat.read_text().partition("(")[2].rpartition(") ")
            state, parent = rest.split()[:2]
            pid = int(stat.parent.name)
            children.setdefault(int(parent), []).append(pid)
            if state in "TZ" or name in ALONE:
                paused.add(pid)
    waiting = [root]
    while waiting:
        found = children.get(waiting.pop(), [])
        waiting += found
        yield from (pid for pid in found if pid not in paused)


if __name__ == "__main__":
    sys.exit(main())

"""Workers: processor processes that share one Envoy, each with an event loop and a socket of its own.

A worker is a number from 0 on. The ids of its exchanges begin with that number, so that Envoy can send the access log
of a try to the worker that has its exchange.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path, PurePath

MOST = 64
SOCKET = "/run/extproc/extproc.sock"
"""The processor's socket where the settings give none."""
VARIABLE = "EXTPROC_WORKERS"
AUTO = "auto"
_GROUP = Path("/sys/fs/cgroup")


def usual() -> int:
    """The number of workers where the settings give none. Raises ValueError for a variable that is no number."""
    value = os.environ.get(VARIABLE, "") or "1"
    if value == AUTO:
        return cores()
    if not value.isdecimal() or not 1 <= int(value) <= MOST:
        raise ValueError(f"the environment variable {VARIABLE} must be a number from 1 to {MOST}, or {AUTO}")
    return int(value)


def read(value: object) -> object:
    """A value of the settings: `auto` becomes a number."""
    if value != AUTO:
        return value
    return usual() if os.environ.get(VARIABLE) else cores()


def cores(group: Path = _GROUP) -> int:
    """Cores that this process may use: those of its affinity, within the limit of its control group."""
    return math.ceil(min(len(os.sched_getaffinity(0)), _limit(group), MOST))


def _limit(group: Path) -> float:
    """The limit of a control group in cores, infinite without one. Of version 2 (cpu.max), else of version 1."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((group / name).read_text() for name in names).split()
            quota, period = float(words[0].replace("max", "inf")), float(words[1])
        except (OSError, ValueError, IndexError):
            continue
        return quota / period if quota > 0 and period > 0 else math.inf
    return math.inf


def socket(path: str, worker: int) -> str:
    """The unix socket for Envoy: `extproc-1.sock`, where that of a processor with one worker is `extproc.sock`."""
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-{worker}{place.suffix}"))


def inner_socket(path: str, worker: int) -> str:
    """The unix socket where the other workers ask a worker for its state: `extproc-1.w`."""
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-{worker}.w"))


def private_socket(path: str) -> str:
    """The unix socket of Envoy's where processors ask MCP servers, and clouds whose requests Envoy signs:
    `extproc-private.e`.
    """
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-private.e"))


def drain_mark(path: str) -> str:
    """The file by which `extproc drain` tells that the Envoy of this processor drains, and `extproc up` that it starts:
    `drain/extproc`. It stands in a directory of its own, because the drain must not see the keys beside the socket.
    """
    place = PurePath(path)
    return str(place.with_name("drain") / place.stem)


def away(path: str) -> str:
    """`draining` or `starting`, while a mark says so of Envoy; else empty. The mark holds the word, and the time until
    which it counts, in seconds since the epoch.
    """
    try:
        word, until = Path(drain_mark(path)).read_text(encoding="ascii").split()
        return word if float(until) > time.time() else ""
    except (OSError, ValueError):
        return ""


SIGNED = "/signed/"
"""The beginning of paths at that socket that lead to a provider, whose name follows."""


def mark(worker: int) -> str:
    """The beginning of the ids of a worker's exchanges."""
    return f"{worker:02x}"

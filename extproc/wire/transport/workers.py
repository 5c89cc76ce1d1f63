"""Workers: processor processes that share one Envoy, each with its own event loop and socket.

Workers are numbered from 0. The ids of a worker's exchanges begin with its number, so that Envoy can send a try's
access log to the right worker.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path, PurePath

MOST = 64
SOCKET = "/run/extproc/extproc.sock"
"""Default path of the processor's socket."""
VARIABLE = "EXTPROC_WORKERS"
AUTO = "auto"
_GROUP = Path("/sys/fs/cgroup")


def usual() -> int:
    """Default number of workers. Raises ValueError for an environment variable that is not a number."""
    value = os.environ.get(VARIABLE, "") or "1"
    if value == AUTO:
        return cores()
    if not value.isdecimal() or not 1 <= int(value) <= MOST:
        raise ValueError(f"the environment variable {VARIABLE} must be a number from 1 to {MOST}, or {AUTO}")
    return int(value)


def read(value: object) -> object:
    """The number for a setting's value; resolves `auto`."""
    if value != AUTO:
        return value
    return usual() if os.environ.get(VARIABLE) else cores()


def cores(group: Path = _GROUP) -> int:
    """Cores of this process: its CPU affinity, limited by its control group."""
    return math.ceil(min(len(os.sched_getaffinity(0)), _limit(group), MOST))


def _limit(group: Path) -> float:
    """The core limit of a control group, infinite without one. Version 2 (cpu.max) comes before version 1."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((group / name).read_text() for name in names).split()
            quota, period = float(words[0].replace("max", "inf")), float(words[1])
        except (OSError, ValueError, IndexError):
            continue
        return quota / period if quota > 0 and period > 0 else math.inf
    return math.inf


def socket(path: str, worker: int) -> str:
    """A worker's unix socket for Envoy: `extproc-1.sock`, beside the `extproc.sock` of a processor with one worker."""
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-{worker}{place.suffix}"))


def inner_socket(path: str, worker: int) -> str:
    """A worker's unix socket for questions of other workers about its state: `extproc-1.w`."""
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-{worker}.w"))


def private_socket(path: str) -> str:
    """Envoy's unix socket for this process's own requests, to MCP servers and to clouds whose requests Envoy signs:
    `extproc-private.e`.
    """
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-private.e"))


def drain_mark(path: str) -> str:
    """The file `drain/extproc`: `extproc drain` writes it when this processor's Envoy drains, `extproc up` when Envoy
    starts. It has its own directory, because the drain must not see the keys beside the socket.
    """
    place = PurePath(path)
    return str(place.with_name("drain") / place.stem)


def away(path: str) -> str:
    """Envoy's state in the mark, `draining` or `starting`; empty without a current mark. A mark is that word and its
    end of validity, in epoch seconds.
    """
    try:
        word, until = Path(drain_mark(path)).read_text(encoding="ascii").split()
        return word if float(until) > time.time() else ""
    except (OSError, ValueError):
        return ""


SIGNED = "/signed/"
"""Beginning of paths at the private socket that lead to a provider. The provider's name follows."""


def mark(worker: int) -> str:
    """First characters of the ids of a worker's exchanges."""
    return f"{worker:02x}"

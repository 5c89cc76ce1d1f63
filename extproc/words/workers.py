"""Workers: processor processes that share one Envoy, each with an event loop and a socket of its own.

A worker is a number from 0 on. The ids of its exchanges begin with that number, so that Envoy can send the access log
of a try to the worker that has its exchange.
"""

from __future__ import annotations

from pathlib import PurePath

MOST = 64


def socket(path: str, worker: int) -> str:
    """The unix socket for Envoy: `extproc-1.sock`, where that of a processor with one worker is `extproc.sock`."""
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-{worker}{place.suffix}"))


def inner_socket(path: str, worker: int) -> str:
    """The unix socket where the other workers ask a worker for its state: `extproc-1.w`."""
    place = PurePath(path)
    return str(place.with_name(f"{place.stem}-{worker}.w"))


def mark(worker: int) -> str:
    """The beginning of the ids of a worker's exchanges."""
    return f"{worker:02x}"

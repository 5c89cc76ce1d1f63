"""The other workers of this gateway, for the worker that answers HTTP: their metrics, health and recent exchanges.

Worker 0 serves the status and admin ports. Each other worker answers it on a unix socket of mode 0600 (`inner_app`).

Metrics of workers are labelled, not summed: a sum would fall when a worker ends, and Prometheus treats a fall as a
counter's reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client.metrics_core import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from extproc.operate.reports.reports import WorkerMemory
from extproc.wire.transport import workers

PATIENCE = 2.0
"""Seconds to wait for a worker's answer."""
MOST = 64 << 20
"""Most bytes of a worker's answer."""
_STARTS = 30.0  # seconds within which an ended worker should be back
_LOOK = 0.2  # seconds between two checks for the workers' end
_LABEL = "worker"


class Health(msgspec.Struct):
    """A worker's health. `stalled`: the reason to restart the process; `remark`: a note for people."""

    stalled: str = ""
    unready: str = ""
    remark: str = ""


class _Family(msgspec.Struct, array_like=True):
    name: str
    documentation: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


_encode = msgspec.msgpack.Encoder().encode


def inner_app(
    registry: Callable[[], Iterable[Metric]], health: Callable[[], Health], memory: Callable[[], WorkerMemory]
) -> Starlette:
    """The application through which a worker answers worker 0."""

    def route(path: str, find: Callable[[], object]) -> Route:
        async def answer(_request: Request) -> Response:
            return Response(_encode(find()), media_type="application/msgpack")

        return Route(path, answer)

    routes = [("/metrics", lambda: _families(registry())), ("/health", health), ("/memory", memory)]
    return Starlette(routes=[route(*each) for each in routes])


class Siblings:
    """The workers 1 to `count` - 1. `workers.inner_socket` derives their sockets from `path`."""

    def __init__(self, path: str, count: int) -> None:
        self._sockets = {number: workers.inner_socket(path, number) for number in range(1, count)}
        self._seen = dict.fromkeys(self._sockets, time.monotonic())  # time of each one's latest answer

    async def metrics(self, own: Iterable[Metric]) -> Collected:
        """The metrics of all workers, each series with the label `worker`. A worker that is away is left out."""
        found = await self._ask("/metrics", list[_Family])
        return Collected(merge({0: _families(own), **{number: part for number, part in found.items() if part}}))

    async def health(self) -> tuple[str, Sequence[str]]:
        """The reason to restart this gateway, and remarks. A killed worker does not count: it restarts by itself."""
        found = await self._ask("/health", Health)
        remarks, stalled = [], ""
        for number, health in found.items():
            if health is None:
                away = time.monotonic() - self._seen[number]
                remarks.append(f"worker {number} is away")
                if away > _STARTS:
                    stalled = stalled or f"worker {number} has not answered for {away:.0f} s"
                continue
            stalled = stalled or (health.stalled and f"worker {number}: {health.stalled}")
            remarks += [f"worker {number}: {text}" for text in (health.unready, health.remark) if text]
        return stalled, remarks

    async def ended(self, seconds: float) -> None:
        """Wait until no worker answers any more, at most for the given seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any((await self._ask("/health", Health)).values()):  # noqa: ASYNC110 - other processes
                    await asyncio.sleep(_LOOK)

    def memories(self) -> Sequence[WorkerMemory]:
        """The memories of the workers that answer. Blocks, and is for threads."""
        return [each for each in asyncio.run(self._ask("/memory", WorkerMemory)).values() if each is not None]

    async def _ask(self, path: str, kind: Any) -> dict[int, Any]:
        """The answer of each worker; None without one."""
        answers = await asyncio.gather(*(_get(socket, path) for socket in self._sockets.values()))
        found: dict[int, Any] = {}
        for number, answer in zip(self._sockets, answers, strict=True):
            try:
                found[number] = None if answer is None else msgspec.msgpack.decode(answer, type=kind)
            except msgspec.DecodeError:  # the worker has another release, during an upgrade
                found[number] = None
            if answer is not None:
                self._seen[number] = time.monotonic()
        return found


async def _get(socket: str, path: str) -> bytes | None:
    """The body of an answer with status 200; None otherwise."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nhost: worker\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                body = bytearray()
                while piece := await reader.read(1 << 16):
                    body += piece
                    if len(body) > MOST:
                        return None
                return bytes(body) if head.split(b" ", 2)[1] == b"200" else None
            finally:
                writer.close()
    except (OSError, EOFError, asyncio.LimitOverrunError, IndexError):  # TimeoutError is an OSError
        return None


class Collected:
    """Metrics that stand for a registry."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(metrics: Iterable[Metric]) -> list[_Family]:
    return [
        _Family(each.name, each.documentation, each.type, [(one.name, one.labels, one.value) for one in each.samples])
        for each in metrics
    ]


def merge(parts: Mapping[int, Sequence[_Family]]) -> list[Metric]:
    """Metric families, one for each name, with the series of all workers."""
    merged: dict[str, Metric] = {}
    for number, families in parts.items():
        for family in families:
            metric = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for name, labels, value in family.samples:
                metric.add_sample(name, {**labels, _LABEL: str(number)}, value)
    return list(merged.values())

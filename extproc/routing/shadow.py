"""Shadow requests: a share of a virtual model's requests goes to a candidate, too, when the client has its answer.

    the exchange's end ─► SendShadow ─► Shadows: a task ─► the gateway's own listener ─► Envoy ─► the candidate

A shadow request is a client's request like any other: it has a consumer, grants, guardrails, budgets and a row of its
own. Nothing waits for it, and its answer is read and dropped.
"""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from extproc.wire.outbound.pool import AnswerError, ConnectionPool
from extproc.words.exchange import FeatureKey
from extproc.words.values import Name, PositiveDuration, Section, is_loopback

LABEL, OF = "shadow", "shadow-of"
"""Labels of a shadow request: the virtual model, and the id of the client's exchange."""
SHADOWED: FeatureKey[bool] = FeatureKey("shadowed")
"""True for an exchange whose shadow request has begun."""
MOST_BODY = 1 << 20
"""Most bytes of a request that has a shadow."""
_MOST_ANSWER = 64 << 20
log = logging.getLogger(__name__)


_in_path = re.compile(r"(?<=/models/)[^:]+(?=:)").sub


def with_model(path: str, model: str) -> str:
    """A client's path with another model, in an API that names the model there; else the same path."""
    return _in_path(lambda _found: model, path)


def is_drawn(id: str, share: float) -> bool:
    """True for that share of exchanges, by their random ids: every stage draws the same."""
    return share >= 1 or zlib.crc32(id.encode()) < share * (1 << 32)


class ShadowSettings(Section):
    """A candidate that gets a share of the requests, too. Clients never wait for it and never see it."""

    model: str = Field(description="Model of the candidate: a key of `models` or of `virtual_models`.")
    consumer: Name = Field(
        description="Consumer that sends the shadow requests with its first key: its grants and budgets apply, and its "
        "rows have their cost."
    )
    share: float = Field(0.05, ge=0, le=1, description="Share of the requests, drawn at random.")
    at_once: int = Field(
        16, ge=1, le=10_000, description="Most shadow requests in flight in one process. A further one is not sent."
    )
    url: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:_-]+$")] | None = Field(
        None, description="Address of the gateway for these requests, `http://host:port`. Default: its listener, here."
    )
    timeout: PositiveDuration = Field(120.0, le=3600, description="Longest time for a shadow request and its answer.")


@dataclass(slots=True, frozen=True)
class ShadowRequest:
    """A request for the gateway at `door`."""

    door: str
    path: str
    body: bytes
    headers: Mapping[str, str]


class Shadows:
    """The shadow requests of one process. `count` counts their outcomes: `answered`, `failed`, `dropped`."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._pools: dict[str, ConnectionPool] = {}
        self._under_way: Counter[str] = Counter()  # by virtual model
        self._tasks: set[asyncio.Task[None]] = set()

    def has_room(self, name: str, settings: ShadowSettings) -> bool:
        """False, and counted, where too many requests of the virtual model `name` are in flight."""
        if self._under_way[name] < settings.at_once:
            return True
        self._count("dropped")
        return False

    def send(self, name: str, settings: ShadowSettings, build: Callable[[], ShadowRequest]) -> None:
        """Begin a shadow request of the virtual model `name`. It is built when the client's answer has left."""
        self._under_way[name] += 1
        task = asyncio.ensure_future(self._post(name, settings, build))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, name: str, settings: ShadowSettings, build: Callable[[], ShadowRequest]) -> None:
        outcome = "failed"
        try:
            request = build()
            pool = self._pools.get(request.door)
            if pool is None:
                verify = not is_loopback(urlsplit(request.door).hostname or "")  # there it has the clients' name
                pool = self._pools[request.door] = ConnectionPool(
                    request.door, verify=verify, most=_MOST_ANSWER, cut=True
                )
            async with asyncio.timeout(settings.timeout):
                status, _ = await pool.post(request.path, request.body, request.headers)
            outcome = "answered" if status < 300 else "failed"
        except (OSError, AnswerError) as error:  # TimeoutError is an OSError
            log.debug("a shadow request has failed: %s", error)
        finally:
            self._under_way[name] -= 1
            self._count(outcome)

    def stop(self) -> None:
        """End all shadow requests."""
        for task in self._tasks:
            task.cancel()

"""Room for requests in one process: exchanges in flight, bytes of their bodies, and large bodies being read.

A request's headers reserve room by content-length, before the body is buffered. A body without a length reserves room
when it arrives. Room is also counted by consumer, so that one consumer leaves room to others. All clients without a
credential are one consumer, without this limit.

The transport asks for room at the first bytes of a body without a length (`GrpcCall.admits`), and drops the body if
there is none. A large message is assembled once and its body is copied once. At most 32 MiB of large bodies are read at
a time (`InFlight.turn`). `Shed` frees a forwarded body and keeps a sample of its text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from extproc.access.auth import ANONYMOUS
from extproc.words.errors import BODY_TOO_LARGE, INVALID_JSON, OVERLOADED, RATE_LIMITED, Refusal
from extproc.words.exchange import Exchange
from extproc.words.values import show_size

_AT_ONCE = 32 << 20
"""Most bytes of large bodies read at a time. Others wait, because only a body being read takes more memory than its
bytes.
"""

_KEPT = 1000
"""Idle consumers that are remembered: cheaper than forgetting each consumer at once."""

_AGAIN = {"retry-after": "1"}


@dataclass(slots=True)
class Share:
    """Requests and bytes in flight of one consumer."""

    exchanges: int = 0
    size: int = 0  # bytes of bodies


class InFlight:
    """All exchanges in flight in a process. It outlives a configuration."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self.size = 0  # bytes of request bodies
        self.answers = 0  # bytes of plain answers held until they are complete
        self.shares: dict[str, Share] = {}  # shares by consumer
        self._at_once = self._free = at_once
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def hold(self, most: int, size: int) -> bool:
        """Reserve room for `size` bytes of an answer, or free it for a negative `size`. False if more than `most` bytes
        would be held.
        """
        if size > 0 and self.answers + size > most:
            return False
        self.answers += size
        return True

    @asynccontextmanager
    async def wait_turn(self, size: int) -> AsyncIterator[None]:
        """Wait for the turn to read a large body of `size` bytes, in the order of arrival."""
        size = min(size, self._at_once)
        if self._waiting or size > self._free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    self._waiting.remove((size, turn))
                else:
                    self._give_back(size)
                raise
        else:
            self._free -= size
        try:
            yield
        finally:
            self._give_back(size)

    def _give_back(self, size: int) -> None:
        self._free += size
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._free -= size
                turn.set_result(None)


class Room:
    """Room of one exchange."""

    __slots__ = ("_all", "_name", "share", "size")

    def __init__(self, in_flight: InFlight, name: str, share: Share) -> None:
        self._all = in_flight
        self._name = name
        self.share = share
        self.size = 0
        share.exchanges += 1

    def resize(self, size: int) -> None:
        """Reserve room for `size` bytes, in place of the earlier reservation."""
        more = size - self.size
        self.size = size
        self.share.size += more
        self._all.size += more

    def leave(self) -> None:
        """Free all room of the exchange."""
        share, size = self.share, self.size
        if size:
            self.size = 0
            share.size -= size
            self._all.size -= size
        share.exchanges -= 1
        shares = self._all.shares
        if not share.exchanges and len(shares) > _KEPT and shares.get(self._name) is share:
            del shares[self._name]


class Admit:
    """Writes `place`. Refuses with 503 or 429 when there is no room for the request, 413 for a body that is too large,
    400 for a request without a body.
    """

    def __init__(
        self,
        in_flight: InFlight,
        under_way: Callable[[], int],
        *,
        exchanges: int,
        memory: int,
        share: float,
        body: int,
    ) -> None:
        self._all = in_flight
        self._under_way = under_way
        self._most = exchanges
        self._most_each = max(1, int(exchanges * share))
        self._memory = memory
        self._memory_each = int(memory * share)
        self._body = body

    def __call__(self, exchange: Exchange) -> None:
        if self._under_way() > self._most:
            raise Refusal(OVERLOADED, "Too many requests are in flight; try again in a moment.", headers=_AGAIN)
        if exchange.request.head.ended and not exchange.request.endpoint.id:
            raise Refusal(INVALID_JSON, "Send a JSON body.")
        shares, name = self._all.shares, exchange.consumer.name
        if (share := shares.get(name)) is None:
            share = shares[name] = Share()
        elif share.exchanges >= self._most_each and name != ANONYMOUS:
            message = f"You have {share.exchanges} requests in flight, which is your share; try again in a moment."
            raise Refusal(RATE_LIMITED, message, headers=_AGAIN)
        exchange.request.place = place = Room(self._all, name, share)
        if size := exchange.request.head.length:
            self._reserve(place, size, name)

    def take(self, exchange: Exchange, size: int) -> None:
        """Reserve room for a body of `size` bytes whose headers gave another length or none. Raises Refusal."""
        if isinstance(exchange.request.place, Room):
            self._reserve(exchange.request.place, size, exchange.consumer.name)

    def _reserve(self, place: Room, size: int, name: str) -> None:
        if size > self._body:
            raise too_large(self._body)
        everything, share = self._all, place.share
        more = size - place.size
        mine = share.size - place.size
        if mine and mine + size > self._memory_each and name != ANONYMOUS:  # a single body never exceeds the share
            message = "Your requests in flight hold too many bytes; try again in a moment."
            raise Refusal(RATE_LIMITED, message, headers=_AGAIN)
        if everything.size + more > self._memory and more > 0:
            message = "The requests in flight hold too many bytes; try again in a moment."
            raise Refusal(OVERLOADED, message, headers=_AGAIN)
        place.size = size
        share.size += more
        everything.size += more


class LookAhead:
    """Refuses a large request that a budget has no room for, before its body is buffered. Smaller requests skip this
    stage, because it costs a call of the store.
    """

    def __init__(self, look: Callable[[Exchange], Awaitable[None]]) -> None:
        self._look = look

    async def __call__(self, exchange: Exchange) -> None:
        await self._look(exchange)


async def others_first() -> None:
    """Let other requests have a turn of the event loop."""
    await asyncio.sleep(0)


def content_length(headers: Mapping[str, str]) -> int | None:
    """Length of the body from the request's headers."""
    value = headers.get("content-length")
    return int(value) if value is not None and value.isdecimal() and len(value) < 16 else None


def too_large(most: int) -> Refusal:
    return Refusal(BODY_TOO_LARGE, f"The body is larger than {show_size(most)}: send less.")

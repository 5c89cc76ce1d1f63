"""Room for requests: exchanges in flight, bytes of their bodies, and large bodies at work, in one process.

Room is taken at a request's headers, by their content-length, before its body is buffered. A body without a length is
weighed when it arrives. Everything is counted by consumer too, so that one consumer leaves room to the others. Clients
without a credential are one consumer that may take everything.

The transport asks for room at the first bytes of a body without a length (`Call.admits`), and drops one without room. A
large message is assembled once and its body copied once. At most 32 MiB of bodies are at work at a time
(`InFlight.turn`), and `Shed` frees a body that has left; a sample of its text stays.
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
"""Bytes of large bodies that are read at the same time. Others wait: only what is read takes more than its bytes."""

_KEPT = 1000
"""Consumers without anything in flight that are remembered: it is cheaper than to forget each at once."""

_AGAIN = {"retry-after": "1"}


@dataclass(slots=True)
class Share:
    """Requests and bytes that one consumer has in flight."""

    exchanges: int = 0
    size: int = 0  # bytes of bodies


class InFlight:
    """Everything in flight. One for a process; it outlives a configuration."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self.size = 0  # bytes of bodies
        self.answers = 0  # bytes of plain answers that are held until they are whole
        self.shares: dict[str, Share] = {}  # by consumer
        self._at_once = self._free = at_once
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def hold(self, most: int, size: int) -> bool:
        """Take room for `size` bytes of an answer, or give it back; False where more than `most` would be held."""
        if size > 0 and self.answers + size > most:
            return False
        self.answers += size
        return True

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """The time to read a large body of `size` bytes, in the order of arrival."""
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


class Place:
    """The room that one exchange takes."""

    __slots__ = ("_all", "_name", "share", "size")

    def __init__(self, in_flight: InFlight, name: str, share: Share) -> None:
        self._all = in_flight
        self._name = name
        self.share = share
        self.size = 0
        share.exchanges += 1

    def resize(self, size: int) -> None:
        """Take room for so many bytes, in place of those taken before."""
        more = size - self.size
        self.size = size
        self.share.size += more
        self._all.size += more

    def leave(self) -> None:
        """Give everything back."""
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
    """Writes `place`. 503 or 429 when there is no room for the request, 413 for a body that is too large, 400 for a
    request without a body.
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
        exchange.request.place = place = Place(self._all, name, share)
        if size := exchange.request.head.length:
            self._take(place, size, name)

    def take(self, exchange: Exchange, size: int) -> None:
        """Take room for a body of `size` bytes, where its headers told another length or none. Raises Refusal."""
        if isinstance(exchange.request.place, Place):
            self._take(exchange.request.place, size, exchange.consumer.name)

    def _take(self, place: Place, size: int, name: str) -> None:
        if size > self._body:
            raise too_large(self._body)
        everything, share = self._all, place.share
        more = size - place.size
        mine = share.size - place.size
        if mine and mine + size > self._memory_each and name != ANONYMOUS:  # one body is always within a share
            message = "Your requests in flight hold too many bytes; try again in a moment."
            raise Refusal(RATE_LIMITED, message, headers=_AGAIN)
        if everything.size + more > self._memory and more > 0:
            message = "The requests in flight hold too many bytes; try again in a moment."
            raise Refusal(OVERLOADED, message, headers=_AGAIN)
        place.size = size
        share.size += more
        everything.size += more


class LookAhead:
    """Refuses a large request that a budget has no room for, before its body is buffered. Other requests do without: it
    would cost them a call of the store.
    """

    def __init__(self, look: Callable[[Exchange], Awaitable[None]]) -> None:
        self._look = look

    async def __call__(self, exchange: Exchange) -> None:
        await self._look(exchange)


async def others_first() -> None:
    """Give other requests a turn of the event loop."""
    await asyncio.sleep(0)


def content_length(headers: Mapping[str, str]) -> int | None:
    """The length of the body as the request's headers tell it."""
    value = headers.get("content-length")
    return int(value) if value is not None and value.isdecimal() and len(value) < 16 else None


def too_large(most: int) -> Refusal:
    return Refusal(BODY_TOO_LARGE, f"The body is larger than {show_size(most)}: send less.")

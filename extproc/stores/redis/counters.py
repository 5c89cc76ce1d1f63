"""Counters in Redis: each phase is one call of one script, `counters.lua`, which decides on the server's clock.
`numbers.lua` is the script's beginning.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from extproc.stores import (
    EXPIRE_BATCH,
    LATE_SETTLE,
    MAX_LOOK,
    MAX_PARKED,
    PAGE,
    PATIENCE,
    TIMEOUT,
    Count,
    CountsLostError,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    Parked,
    check_amounts,
    check_facts,
    check_note,
    fuller,
    write,
)
from extproc.stores.redis import RedisURL
from extproc.stores.redis.link import RedisLink
from extproc.stores.redis.silence import Silence

BATCH = 500  # most ids in one call

_SCRIPT = "\n".join(
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("numbers.lua", "counters.lua")
)
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_GLOB = re.compile(r"[*?\[\]\\]")


class RedisCounters:
    """Counters at `url`. Calls fail after `timeout` seconds of the server's silence, or after `patience` seconds in
    all. `clock` is for tests: normally the server's own clock counts.
    """

    def __init__(
        self,
        url: RedisURL,
        clock: Callable[[], float] | None = None,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        self._clock = clock
        self._link = RedisLink(url, f"{{{url.prefix}}}", _SCRIPT, _SHA, Silence(timeout, patience))
        self._epoch = b""  # the store's epoch, once read: a different epoch later means that the counts are lost
        self._lost = False

    async def reserve(self, id: str, holds: Sequence[Hold], lease: float, *, facts: bytes = b"") -> Granted | Denied:
        check_facts(facts)
        arguments: list[str | bytes] = [id, repr(float(lease)), facts]
        for hold in holds:
            arguments += _packed(hold)
        answer = await self._link.call("reserve", self._now(), *arguments)
        if answer[0] == b"exists":
            raise ValueError(f"reservation {id!r} exists")
        return self._outcome_of(answer)

    async def forward(self, ids: Sequence[str]) -> None:
        for first in range(0, len(ids), BATCH):
            await self._link.call("forward", self._now(), repr(LATE_SETTLE), *ids[first : first + BATCH], waits=True)

    async def void(self, ids: Sequence[str]) -> None:
        for first in range(0, len(ids), BATCH):
            await self._link.call("void", self._now(), *ids[first : first + BATCH])

    async def renew(self, ids: Sequence[str], lease: float) -> None:
        for first in range(0, len(ids), BATCH):
            await self._link.call("renew", self._now(), repr(float(lease)), *ids[first : first + BATCH])

    async def extend(self, id: str, holds: Sequence[Hold]) -> Granted | Denied | None:
        arguments = [part for hold in holds for part in _packed(hold)]
        answer = await self._link.call("extend", self._now(), id, *arguments)
        if answer[0] == b"gone":
            return None
        if answer[0] == b"others":
            raise ValueError("an extension has the holds of its reservation, in the same order")
        return self._outcome_of(answer)

    async def park(self, id: str, facts: bytes, *, lease: float, again: float, most: int = MAX_PARKED) -> bool:
        check_facts(facts)
        answer = await self._link.call(
            "park", self._now(), id, facts, repr(float(lease)), repr(float(again)), str(most)
        )
        return bool(answer)

    async def parked(self, *, again: float, most: int = 1, id: str = "") -> Sequence[Parked]:
        found = await self._link.call("parked", self._now(), repr(float(again)), str(most), id)
        return [
            Parked(_text(one), tuple(map(_text, holds[::2])), tuple(map(int, holds[1::2])), facts)
            for one, facts, *holds in found
        ]

    async def settle(self, id: str, amounts: Sequence[int], *, keep: bool = False) -> bool:
        check_amounts(amounts, len(amounts))
        answer = int(await self._link.call("settle", self._now(), id, "01"[keep], *map(str, amounts), waits=True))
        if answer < 0:
            raise ValueError(f"{len(amounts)} amounts for {-1 - answer} holds")
        return answer == 1

    async def recorded(self, ids: Sequence[str], *, expired: bool = False) -> None:
        for first in range(0, len(ids), BATCH):
            await self._link.call("recorded", self._now(), "01"[expired], *ids[first : first + BATCH], waits=True)

    async def expire(self, *, keep: float = 0.0) -> Sequence[Expired]:
        """See `Counters.expire`. Raises CountsLostError, once, when the store's epoch differs from that of earlier
        calls.
        """
        if self._lost:
            self._lost = False
            raise CountsLostError("the store was emptied or replaced: its counts are lost")
        arguments = [str(EXPIRE_BATCH), repr(LATE_SETTLE), uuid.uuid4().hex, repr(float(keep))]
        epoch, ended = await self._link.call("expire", self._now(), *arguments)
        self._saw(epoch)
        if self._lost and not ended:
            return await self.expire(keep=keep)
        return [
            Expired(
                _text(id),
                bool(forwarded),
                tuple(map(_text, holds[::2])),
                tuple(map(int, holds[1::2])),
                bool(kept),
                facts,
            )
            for id, forwarded, kept, facts, *holds in ended
        ]

    async def levels(self, scopes: Sequence[tuple[str, int]]) -> Sequence[Level]:
        pairs = [part for scope, window in scopes for part in (scope, str(window))]
        return _levels(await self._link.call("levels", self._now(), *pairs))

    async def reset(self, scope: str, window: int) -> int:
        return int(await self._link.call("reset", self._now(), scope, str(window)))

    async def fullest(self, prefix: str, window: int, limit: int = 100) -> Sequence[tuple[str, Level]]:
        """See `Counters.fullest`. The server also reads the counts of other budgets of that window."""
        pattern = _GLOB.sub(r"\\\g<0>", prefix) + "*"
        best: list[Count] = []
        resets, number, cursor = b"", b"", b"0"
        for _ in range(0, MAX_LOOK, PAGE):
            number, resets, cursor, found = await self._link.call(
                "fullest", self._now(), pattern, str(window), number, cursor, str(PAGE)
            )
            best = fuller(best, _page(found, prefix), limit)
            if cursor == b"0":
                break
        return [(scope, Level(settled, reserved, _seconds(resets))) for scope, settled, reserved in best]

    async def share(self, board: str, author: str, note: bytes, ttl: float) -> Sequence[bytes]:
        check_note(note)
        found = await self._link.call("share", self._now(), board, author, note, repr(float(ttl)))
        return [note for _, note in sorted(zip(found[::2], found[1::2], strict=True))]

    async def examine(self) -> str:
        await write(self)
        return await self._link.examine()

    async def close(self) -> None:
        await self._link.close()

    def _now(self) -> str:
        return "" if self._clock is None else repr(self._clock())

    def _saw(self, epoch: bytes) -> None:
        self._lost = self._lost or self._epoch not in (b"", epoch)
        self._epoch = epoch

    def _outcome_of(self, answer: Sequence[Any]) -> Granted | Denied:
        if answer[0] == b"denied":
            return Denied(answer[1], int(answer[2]), _seconds(answer[3]))
        self._saw(answer[1])
        return Granted(tuple(_levels(answer, 2)))


def _packed(hold: Hold) -> tuple[str, ...]:
    return hold.scope, str(hold.window), str(hold.limit), str(hold.amount), "01"[hold.slot], repr(hold.idle)


def _page(found: Sequence[bytes], prefix: str) -> Iterator[Count]:
    for name, count in zip(found[::2], found[1::2], strict=True):
        scope = _text(name)
        if scope == prefix or scope.startswith(f"{prefix}:"):
            settled, reserved = count.split(b" ")[:2]
            yield scope, int(settled), int(reserved)


def _levels(answer: Sequence[bytes], first: int = 0) -> list[Level]:
    return [
        Level(int(answer[at]), int(answer[at + 1]), _seconds(answer[at + 2])) for at in range(first, len(answer), 3)
    ]


def _seconds(text: bytes) -> float | None:
    return float(text) if text else None


def _text(name: bytes) -> str:
    return name.decode(errors="surrogatepass")

"""Messages of clients about calls under way, for all processes that share the counters store.

A call, and the cancellation that its client sends later, may come to different processes. Only the process of the call
has the session at the server. So each process puts such messages on a board, and passes on messages of other processes,
once a second.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable

import msgspec

from extproc.stores import MAX_NOTE, Counters, read_notes

BOARD = "mcp"
_STAYS = 5.0  # seconds that a message stays on the board
_MOST = 1000  # most messages of one process on the board
_LONGEST = 2048  # most bytes of a message


class BoardMessage(msgspec.Struct, array_like=True, frozen=True):
    """A message in a client's session."""

    number: int  # unique number of the message
    session: str
    body: bytes  # empty: the session has ended


_decode = msgspec.msgpack.Decoder(list[BoardMessage]).decode


class Board:
    """The board as one process sees it. `hear` gets the session and the body of each message from another process.
    `now` in seconds, monotonic.
    """

    def __init__(self, hear: Callable[[str, bytes], None], now: Callable[[], float] = time.monotonic) -> None:
        self._hear = hear
        self._now = now
        self._me = secrets.token_hex(16)
        self._told: deque[tuple[float, BoardMessage]] = deque(maxlen=_MOST)
        self._heard: dict[int, float] = {}  # number of a message -> time to forget it

    def tell(self, session: str, body: bytes = b"") -> None:
        """Queue a message for the board, until the next turn."""
        if len(body) <= _LONGEST:
            self._told.append((self._now() + _STAYS, BoardMessage(secrets.randbits(63), session, body)))

    async def turn(self, counters: Counters) -> None:
        """Write queued messages and read the others'. After a StoreError the next turn tries again."""
        now = self._now()
        while self._told and self._told[0][0] <= now:
            self._told.popleft()
        while len(note := msgspec.msgpack.encode([told for _, told in self._told])) > MAX_NOTE:
            self._told.popleft()
        others = await counters.share(BOARD, self._me, note if self._told else b"", _STAYS)
        for found in read_notes(others, _decode):
            for told in found:
                if told.number not in self._heard:
                    self._hear(told.session, told.body)
                self._heard[told.number] = now + 2 * _STAYS
        for number in [number for number, until in self._heard.items() if until <= now]:
            del self._heard[number]

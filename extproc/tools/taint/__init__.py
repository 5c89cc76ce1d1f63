"""Taint: the runs in which an untrusted tool has answered. Tool calls and requests to models both check it.

A run is named by the label `run`, or else `session`. An exchange without either belongs to one run with all exchanges
of its consumer, labelled runs included. So a client cannot remove taint by opening an MCP session for each call, or by
leaving the label out. The client chooses labels, so a run belongs to its consumer.

    answer of an untrusted tool ─► mark ─► here at once · a note on the counters store's board
    a second later at most      ─► refresh ─► every process that shares the store knows

A check costs a request no call of the store. Notes run out, so a run's taint ends some time after its last such answer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable

import msgspec

from extproc.stores import Counters, read_notes
from extproc.words.exchange import Exchange
from extproc.words.runs import LABELS

BOARD = "taint"
TTL = 3600.0
"""Seconds for which a run stays tainted after the last answer of an untrusted tool."""
MOST = 20_000
"""Most tainted runs that are known. Beyond it the oldest is forgotten."""
_MOST_TOOLS = 8  # most names of tools of a run, for messages and the log

_encode = msgspec.msgpack.Encoder().encode


class _Note(msgspec.Struct, array_like=True, frozen=True):
    run: str
    until: float
    tools: tuple[str, ...]


_decode = msgspec.msgpack.Decoder(_Note).decode


class Taint:
    """The tainted runs that this process knows. `now` in seconds since the epoch."""

    def __init__(self, counters: Counters, ttl: float = TTL, now: Callable[[], float] = time.time) -> None:
        self._counters = counters
        self._ttl = ttl
        self._now = now
        self._runs: dict[str, _Note] = {}

    def tools(self, exchange: Exchange) -> tuple[str, ...]:
        """The untrusted tools that answered in the run of the exchange."""
        if not self._runs:
            return ()
        now = self._now()
        found = self._runs.get(_keys(exchange)[0])
        return found.tools if found is not None and found.until > now else ()

    async def mark(self, exchange: Exchange, tool: str) -> None:
        """Taint the run of the exchange. Other processes know it within a second. After a StoreError only this process
        knows it.
        """
        now, new = self._now(), []
        for run in _keys(exchange):
            known = self._runs.get(run)
            tools = known.tools if known is not None and known.until > now else ()
            if tool in tools and known is not None and known.until > now + self._ttl / 2:
                continue
            if tool not in tools:
                tools = (*tools, tool)[-_MOST_TOOLS:]
            self._runs.pop(run, None)
            self._runs[run] = note = _Note(run, now + self._ttl, tools)
            new.append(note)
        self._bound()
        for note in new:
            await self._counters.share(BOARD, note.run, _encode(note), self._ttl)

    async def refresh(self) -> None:
        """Read the board. Raises StoreError."""
        self._read_notes(await self._counters.share(BOARD, "", b"", 1.0))

    def _read_notes(self, notes: Iterable[bytes]) -> None:
        now = self._now()
        for found in read_notes(notes, _decode):
            known = self._runs.get(found.run)
            if known is None or known.until < found.until:
                self._runs.pop(found.run, None)
                self._runs[found.run] = found
        while self._runs and (oldest := next(iter(self._runs.values()))).until <= now:
            del self._runs[oldest.run]
        self._bound()

    def _bound(self) -> None:
        while len(self._runs) > MOST:
            del self._runs[next(iter(self._runs))]


def _keys(exchange: Exchange) -> tuple[str, ...]:
    """The keys of the exchange's runs, the named run first. All exchanges of a consumer are a run, too."""
    consumer = exchange.consumer.name
    whole = _digest("consumer", consumer)
    for label in LABELS:
        if value := exchange.money.labels.get(label):
            return _digest(label, consumer, value), whole
    return (whole,)


def _digest(*parts: str) -> str:
    made = hashlib.blake2b(digest_size=16, person=b"taint")
    for part in parts:
        data = part.encode(errors="surrogatepass")
        made.update(len(data).to_bytes(4) + data)
    return made.hexdigest()


class Tainted:
    """Writes `tainted`, for guardrails: the untrusted tools that answered in the run."""

    def __init__(self, taint: Taint) -> None:
        self._taint = taint

    def __call__(self, exchange: Exchange) -> None:
        exchange.findings.tainted = self._taint.tools(exchange)

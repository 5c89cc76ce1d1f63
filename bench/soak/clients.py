"""The clients of a soak. Each request has its own tag, in its text and as a label, and an outcome."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bench.soak.plan import CONSUMERS, HEAVY, HOT, MAX_TOKENS, RUNS, WORDS, Plan
from bench.soak.world import key

_REFUSED = (402, 429, 503)
_PAUSE = 0.25  # seconds after a refusal or a failure, or most requests would be such
_SAYS = re.compile(r"'(\S+)' of .* has ([\d.]+)( USD)? left; this request may need ([\d.]+)")


@dataclass(slots=True)
class Outcome:
    """The end of a request as its client saw it: `whole`, `left` by the client, `broken` off."""

    tag: str
    consumer: int
    status: int = 0
    ended: str = "broken"
    words: int = 0  # bytes of the answer that arrived
    error: str = ""  # code of a refusal
    needless: bool = False  # refused although its own message says there was room

    @property
    def refused(self) -> bool:
        """Before any provider was asked. A processor that dies may have asked one already."""
        return self.status in _REFUSED and self.error != "gateway_restarting"


class Clients:
    """Sends requests to `port` and keeps their outcomes."""

    def __init__(self, port: int, plan: Plan, seed: int = 1) -> None:
        self.outcomes: list[Outcome] = []
        self._port = port
        self._plan = plan
        self._random = random.Random(seed)
        self._numbers: Iterator[int] = iter(range(1, 10**9))

    async def run(self, total: int, at_once: int, **how: float) -> list[Outcome]:
        """Send `total` requests, `at_once` at a time. `how` holds the arguments of `one`."""
        left, before = iter(range(total)), len(self.outcomes)

        async def worker() -> None:
            for _ in left:
                outcome = await self.one(**how)
                if outcome.status != 200 or outcome.ended == "broken":
                    await asyncio.sleep(_PAUSE)

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return self.outcomes[before:]

    async def one(self, *, leaving: float | None = None, streams: float = 0.85) -> Outcome:
        """One request on a new connection. `leaving` and `streams` are shares of all requests."""
        chance, tag = self._random, f"r{next(self._numbers):06}"
        consumer = chance.choices(range(CONSUMERS), [HEAVY] + [1] * (CONSUMERS - 1))[0]
        run = chance.randrange(HOT) if chance.random() < 0.3 else chance.randrange(HOT, RUNS)
        stream = chance.random() < streams
        share = self._plan.leaving if leaving is None else leaving
        leaves = chance.randrange(1, WORDS) if stream and chance.random() < share else None
        outcome = Outcome(tag, consumer)
        self.outcomes.append(outcome)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return outcome
        try:
            writer.write(_message(tag, consumer, run, stream=stream))
            await asyncio.wait_for(_read(reader, outcome, leaves), 60)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # it stays broken
        finally:
            writer.transport.abort()
        return outcome


def _message(tag: str, consumer: int, run: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {
        "model": "slow" if stream else "plain",
        "messages": [{"role": "user", "content": f"{tag} tell me of gateways"}],
        "max_tokens": MAX_TOKENS,
    }
    if stream:
        body["stream"] = True
    payload = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key(consumer)}\r\nx-ai-tag: {tag}\r\nx-ai-run: {run}\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


async def _read(reader: asyncio.StreamReader, outcome: Outcome, leaves: int | None) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    outcome.status = int(head[9:12])
    if b"transfer-encoding: chunked" not in head:
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        outcome.ended = "whole"
        if outcome.status == 200:
            outcome.words = len(json.loads(body)["choices"][0]["message"]["content"].split())
        else:
            _refused(outcome, body)
        return
    whole = b""
    while (size := int((await reader.readuntil(b"\r\n"))[:-2], 16)) > 0:
        data = (await reader.readexactly(size + 2))[:-2]
        whole += data
        outcome.words += data.count(b'"delta":{"content":"')
        if leaves is not None and outcome.words >= leaves:
            outcome.ended = "left"
            return
    await reader.readexactly(2)
    if outcome.status != 200:
        _refused(outcome, whole)
    outcome.ended = "whole" if outcome.status != 200 or b"[DONE]" in whole else "broken"


def _refused(outcome: Outcome, body: bytes) -> None:
    error = json.loads(body)["error"]
    outcome.error = error["code"]
    if (said := _SAYS.search(error["message"])) is not None:
        outcome.needless = float(said[4]) <= float(said[2])

"""Services that tests call over a transport. Each behaves in one way."""

from __future__ import annotations

import asyncio
import json

SERVICE = "test.Service"


class Base:
    """A call that records its events."""

    done = False

    def __init__(self, services, metadata):
        self.services = services
        self.metadata = metadata
        self.heard = []
        self.cancelled = False
        self.ends = 0
        services.made.append(self)

    def admits(self, size):
        return True

    async def on_message(self, data):
        self.heard.append(data)
        return await self.answer(data)

    async def answer(self, data):
        return [data]

    async def on_half_close(self):
        return []

    async def on_end(self):
        await asyncio.sleep(0)  # a call that is never cancelled may wait
        self.ends += 1


class Echo(Base):
    """Each message is echoed."""


class Standing(Base):
    """Each message is echoed, and no stop waits for its end."""

    lasts = True


class Twice(Base):
    """Each message is echoed twice."""

    async def answer(self, data):
        return [data, data]


class Later(Base):
    """Each message is echoed after a few turns of the loop."""

    async def answer(self, data):
        for _ in range(3):
            await asyncio.sleep(0)
        return [data]


class Steps(Base):
    """A message gives the number of steps in which it is answered, and the size of each answer."""

    more = False
    steps = 0

    async def answer(self, data):
        self.left, self.size = json.loads(data)
        return await self.go_on()

    async def go_on(self):
        self.steps += 1
        self.left -= 1
        self.more = self.left > 0
        return [b"%d" % self.left + b"." * self.size]


class Silent(Base):
    """Says `there` when the client has been silent since its first message, then `tired`, and ends."""

    words = (b"there", b"tired")

    def on_silence(self, now):
        if not self.heard or self.done:
            return ()
        word, *self.words = self.words
        self.done = not self.words
        return [word]


class Slow(Base):
    """Each message waits for the test."""

    async def answer(self, data):
        try:
            await self.services.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return [data]


class Stubborn(Base):
    """Continues when it is cancelled."""

    async def answer(self, data):
        try:
            await self.services.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
        return [data]


class Sum(Base):
    """Answers at the end with the number of messages and of bytes."""

    async def answer(self, data):
        return []

    async def on_half_close(self):
        return [json.dumps([len(self.heard), sum(map(len, self.heard))]).encode()]


class Count(Base):
    """A message gives the number of answers and the size of each."""

    async def answer(self, data):
        number, size = json.loads(data)
        return [b"%d" % index + b"." * size for index in range(number)]


class Once(Base):
    """Reads one message and ends."""

    async def answer(self, data):
        self.done = True
        return [data]


class Never(Base):
    """Reads no message, but only the first one starts the call."""

    async def answer(self, data):
        self.done = True
        return []


class Watch(Base):
    """Answers at the end of the client's half, when the test allows it."""

    async def on_half_close(self):
        try:
            await self.services.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return [b"changed"]


class Fail(Base):
    """Fails at the point the message names."""

    async def answer(self, data):
        if data == b"late":
            await asyncio.sleep(0.01)
        if data in (b"now", b"late"):
            raise ValueError("secret")
        return [data]

    async def on_half_close(self):
        raise ValueError("secret")


class FailAtTheEnd(Base):
    async def on_end(self):
        self.ends += 1
        raise ValueError("secret")


class Metadata(Base):
    async def answer(self, data):
        return [json.dumps(dict(self.metadata)).encode()]


KINDS = (
    Echo,
    Standing,
    Twice,
    Later,
    Steps,
    Silent,
    Slow,
    Stubborn,
    Sum,
    Count,
    Once,
    Never,
    Watch,
    Fail,
    FailAtTheEnd,
    Metadata,
)


class Services:
    """All services, and the controls of a test: `go` releases the calls that wait."""

    def __init__(self):
        self.made = []
        self.go = asyncio.Event()

    def calls(self):
        return {
            **{f"/{SERVICE}/{kind.__name__}": lambda metadata, kind=kind: kind(self, metadata) for kind in KINDS},
            f"/{SERVICE}/Unmade": self._unmade,
        }

    def _unmade(self, metadata):
        raise ValueError("secret")

    @property
    def last(self):
        return self.made[-1]

    async def ended(self, call=None):
        """Wait until a call has ended, and return it."""
        for _ in range(2000):
            found = call or (self.made[-1] if self.made else None)
            if found is not None and found.ends:
                return found
            await asyncio.sleep(0.005)
        raise AssertionError("the call does not end")

    def check(self):
        assert [call.ends for call in self.made] == [1] * len(self.made), "each ends exactly once"

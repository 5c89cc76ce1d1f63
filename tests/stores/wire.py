"""A store behind a network that loses, delays and repeats calls and answers, and a process that may die at any call."""

from __future__ import annotations

from collections import Counter

from extproc.stores import NotSentError, StoreError

TROUBLE = ("not sent", "call lost", "answer lost", "call late", "answer doubled", "died before", "died after")
"""`call late`: the caller gives up, and the store gets the call at some later moment, maybe after its process has died.
`answer doubled`: the store gets the call once more, later: a repeated one overtook it. A `reserve` is sent once."""


class Died(BaseException):
    """The process was killed in the middle of a call."""


class Network:
    """Calls on their way, of all processes. `ran` is told of each call that the store ran: name, arguments, result."""

    def __init__(self, chance, ran):
        self.chance, self.ran = chance, ran
        self.trouble = 0.0
        self.late, self.seen = [], Counter()

    async def deliver(self):
        """Let the store have one of the calls that are on their way."""
        call = self.late.pop(self.chance.randrange(len(self.late)))
        await call()


class Wire:
    """The store as one process sees it."""

    def __init__(self, store, network):
        self._store, self._network = store, network

    def __getattr__(self, name):
        if name in ("levels", "close"):
            return getattr(self._store, name)

        async def call(*args, **options):
            network = self._network
            what = network.chance.choice(TROUBLE) if network.chance.random() < network.trouble else ""
            network.seen[what] += 1

            async def run():
                try:
                    result = await getattr(self._store, name)(*args, **options)
                except ValueError:  # a `reserve` after its void
                    assert name == "reserve"
                    return None
                network.ran(name, args, result)
                return result

            if what == "died before":
                raise Died
            if what == "not sent":
                raise NotSentError(what)
            if what == "call lost":
                raise StoreError(what)
            if what == "call late":
                network.late.append(run)
                raise StoreError(what)
            result = await run()
            if what == "answer lost":
                raise StoreError(what)
            if what == "died after":
                raise Died
            if what == "answer doubled" and name != "reserve":
                network.late.append(run)
            return result

        return call

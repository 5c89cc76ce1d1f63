"""Moments for full collections of garbage."""

import gc
import weakref

from extproc.envoy.server.collector import BLOCKS, EACH, SHORT, SPARE, Collector


class Knot:
    def __init__(self):
        self.itself = self


class Clock:
    """Time that passes with each collection."""

    def __init__(self, took):
        self.now, self._took = 0.0, took
        gc.callbacks.append(self._tick)

    def __call__(self):
        return self.now

    def _tick(self, phase, info):
        if phase == "stop" and info["generation"] == 2:
            self.now += self._took

    def close(self):
        gc.callbacks.remove(self._tick)


async def collects(look):
    """True where a look collects a cycle."""
    knot = Knot()
    gone = weakref.ref(knot)
    gc.disable()  # no collection but that of the look
    try:
        del knot
        await look()
        return gone() is None
    finally:
        gc.enable()


async def test_a_collection_beside_requests_is_a_short_one_or_frees_memory_that_they_do_not_explain():
    in_flight, blocks = 3, 1000
    clock = Clock(SHORT / 2)
    try:
        collector = Collector(lambda: in_flight, clock, lambda: blocks)
        assert await collects(collector.look)
        assert await collects(collector.look)
        in_flight = 3 + round(SHORT / EACH)
        assert not await collects(collector.look)  # these streams would make it too long
        in_flight = 3
        assert await collects(collector.look)
    finally:
        clock.close()

    clock = Clock(0.1)
    try:
        collector = Collector(lambda: in_flight, clock, lambda: blocks)
        assert await collects(collector.look)  # nobody knew how long it takes
        assert not await collects(collector.look)
        in_flight = 0
        assert await collects(collector.look)
        in_flight = 5000
        blocks += SPARE + in_flight * BLOCKS
        assert not await collects(collector.look)
        blocks += 1
        assert await collects(collector.look)
        assert not await collects(collector.look)
    finally:
        clock.close()

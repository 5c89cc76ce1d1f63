"""The stages of pools: PickEndpoint before the reservation, TellEndpoint with the answer, FreeEndpoint at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from extproc.routing.pools.picker import Facts
from extproc.routing.pools.pool import PLACED, Placed, Pool
from extproc.routing.pools.prefixes import chain
from extproc.routing.pools.queue import Ticket
from extproc.routing.prefix import prefix
from extproc.words import contract
from extproc.words.chain import Skip
from extproc.words.errors import NO_PROVIDER_AVAILABLE, POOL_FULL, Refusal
from extproc.words.exchange import LONG_WAIT, Exchange, Target
from extproc.words.runs import run_of

_ENVOYS_PATIENCE = contract.ANSWER_SECONDS / 2
_TOLD = contract.TOLD + "endpoint"


class PickEndpoint:
    """Writes `PLACED`: the endpoint of each try at a pool. While all endpoints of the first target's pool are full, the
    request waits, or goes to its next target. 429 when it has waited long enough, 503 when the pool has no endpoint.
    """

    def __init__(self, pools: Mapping[str, Pool], count: Callable[[str], None]) -> None:
        self._pools = pools
        self._count = count  # counter of skips, by reason

    async def __call__(self, exchange: Exchange) -> None:
        route = exchange.route
        if exchange.attached or not any(target.provider in self._pools for target in route.targets):
            return
        exchange.features[PLACED] = placed = Placed(exchange.id)
        while (pool := self._pools.get(route.targets[0].provider)) is not None:
            placed.tell = pool.settings.tell_endpoint
            if pool.settings.picker:
                break
            if (facts := await self._first(pool, placed, exchange)) is not None:
                placed.begin(pool, facts)
                break
            self._spill(pool, exchange)
        for target in route.targets[1:]:
            later = self._pools.get(target.provider)
            if later is not None and not later.settings.picker and target.provider not in placed.choices:
                placed.choices[later.name] = later.choose(facts_of(later, target, exchange), _tries(later, exchange))

    async def _first(self, pool: Pool, placed: Placed, exchange: Exchange) -> Facts | None:
        """Choose the pool's endpoints. None when it has no room, after the wait."""
        target, count = exchange.route.targets[0], _tries(pool, exchange)
        facts = facts_of(pool, target, exchange)
        chosen = pool.choose(facts, count)
        if not chosen or chosen[0].full or len(pool.queue):
            began = facts.now
            if not await self._wait(pool, exchange):
                return None
            pool.took_turn()
            facts.now = pool.clock()
            placed.waited += facts.now - began
            chosen = pool.choose(facts, count)
        placed.choices[pool.name] = chosen
        if chosen:
            pool.stick(exchange.consumer.name, run_of(exchange), chosen[0].endpoint.address)
        return facts

    async def _wait(self, pool: Pool, exchange: Exchange) -> bool:
        """Wait for room, in fair order. False: no room in time, or no place in the queue."""
        consumer = exchange.consumer
        priority = pool.priority(consumer.name, consumer.team)
        others = any(target.provider != pool.name for target in exchange.route.targets)
        seconds = pool.settings.spill if others else pool.settings.wait
        if priority < 0 or not seconds:
            return False
        return await wait_for_room(pool, consumer.name, priority, seconds, exchange.features.get(LONG_WAIT))

    def _spill(self, pool: Pool, exchange: Exchange) -> None:
        """Leave the pool's targets out. Raises Refusal when no other target is left."""
        route = exchange.route
        text = "all its endpoints are full" if pool.endpoints else "its pool has no endpoint"
        left = tuple([target for target in route.targets if target.provider != pool.name])
        if not left:
            kind = POOL_FULL if pool.endpoints else NO_PROVIDER_AVAILABLE
            advice = {"retry-after": str(max(1, round(pool.settings.wait / 2)))}
            raise Refusal(
                kind, f"Provider {pool.name} cannot serve {exchange.request.ask.model!r} now: {text}.", headers=advice
            )
        gone = {target.name: target for target in route.targets if target not in left}
        for target in gone.values():
            route.skipped.append(Skip(target, "full", text))
            self._count("full")
        route.targets = left


async def wait_for_room(
    pool: Pool, consumer: str, priority: int, seconds: float, say_so: Callable[[], None] | None = None
) -> bool:
    """Wait for room, in fair order. True: there is room; the caller chooses after `pool.took_turn()`. `say_so` is
    called before a wait that is long for Envoy.
    """
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def wake(room: bool) -> None:
        if not future.done():
            future.set_result(room)

    ticket = Ticket(consumer, priority, wake)
    if not pool.queue.join(ticket):
        return False
    pool.serve()
    if seconds > _ENVOYS_PATIENCE and say_so is not None:
        say_so()
    try:
        await asyncio.sleep(0)  # lets this coroutine run in a task
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        return _has_room(future)  # the turn may have come in the same moment
    except asyncio.CancelledError:  # the client left
        if _has_room(future):
            pool.took_turn()
            pool.serve()
        raise
    finally:
        pool.queue.leave(ticket)


def _has_room(future: asyncio.Future[bool]) -> bool:
    return future.done() and not future.cancelled() and future.result()


class TellEndpoint:
    """Notes the endpoint that answered, and names it to the client if the settings say so."""

    def __call__(self, exchange: Exchange) -> None:
        if (placed := exchange.features.get(PLACED)) is not None:
            placed.served = exchange.answer.head.hop.get(contract.ENDPOINT, "")
            if placed.tell and placed.served:
                exchange.answer.told[_TOLD] = placed.served


class FreeEndpoint:
    """Counts the exchange at no endpoint any more, and notes its time to the first token. Safe to call twice."""

    def __call__(self, exchange: Exchange) -> None:
        if (placed := exchange.features.get(PLACED)) is None or (endpoint := placed.free()) is None:
            return
        token, answer = exchange.answer.first_token, exchange.answer
        if token is not None and answer.attempts == 1 and exchange.request.ask.stream:
            endpoint.answered(token - (exchange.route.sent - exchange.started))


def facts_of(pool: Pool, target: Target, exchange: Exchange) -> Facts:
    """The facts of a request that the scorers read."""
    request, weights = exchange.request, pool.settings.weights
    blocks: Sequence[int] = ()
    if weights["prefix"]:
        texts = (text.value for text in request.dialect.texts(request.json))
        blocks = chain(texts, target.model)
    return Facts(
        pool.clock(),
        blocks,
        digest=int.from_bytes(prefix(exchange)[:8]) if blocks else 0,
        adapter=target.model,
        session=pool.session(exchange.consumer.name, run_of(exchange)) if weights["session"] else "",
    )


def _tries(pool: Pool, exchange: Exchange) -> int:
    """Tries at the pool's provider."""
    return sum([target.provider == pool.name for target in exchange.route.targets])

"""One soak: normal load, kills under load, a lowered limit, and a store that is paused, killed and emptied."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from bench.soak.clients import Clients, Outcome
from bench.soak.findings import Findings, check_books
from bench.soak.plan import CHARGED, Plan, limits
from bench.soak.watch import Twice, Watch, rows
from bench.soak.world import PROCESSORS, World
from extproc.money.ledger import open_ledger
from extproc.stores.redis import RedisURL
from extproc.stores.redis.counters import RedisCounters
from extproc.upstream.prices import NANO

_PATIENCE = 30.0  # seconds after a lease until everything has settled
_ASKED = 60  # requests while the store is down
_PROBES = 4 * PROCESSORS  # concurrent requests: every processor gets some


class Soak:
    """One soak. `run` it in a world that has been started."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.findings = Findings()
        self.kills = 0
        self._world = world
        self._plan = plan
        self._clients = Clients(world.ports["listener"], plan)
        self._counters = RedisCounters(RedisURL("127.0.0.1", world.redis.port), timeout=5.0)
        self._ledger = open_ledger(world.ledger)
        self._watch = Watch(self._counters, world.redis.port, plan)
        self._twice = Twice(self._counters, self._ledger, plan.twice)

    async def run(self) -> Findings:
        beside = [asyncio.create_task(work) for work in (self._watch.run(), self._twice.run())]
        try:
            await self._calm()
            await self._killing()
            await self._lowered()
            await self._paused()
        finally:
            for task in beside:
                task.cancel()
            done = await asyncio.gather(*beside, return_exceptions=True)
        for error in done:
            if not isinstance(error, asyncio.CancelledError):
                raise error
        self.findings.take(self._watch.samples)
        twice = self.findings["I5"]
        twice.checked += self._twice.tried
        twice.wrong += [f"{id} was settled again" for id in self._twice.taken]
        twice.note = f"{self._twice.tried} settled once more"
        await self._lost()
        errors = await self._metric("extproc_internal_errors_total")
        self.findings["bugs"].check(errors == 0, f"{errors:.0f} internal errors")
        self.findings["bugs"].check("Traceback" not in self._world.log, "a traceback in the log")
        await self._watch.close()
        await self._counters.close()
        self._ledger.close()
        return self.findings

    # --- the parts

    async def _calm(self) -> None:
        outcomes = await self._load("calm", int(self._plan.requests * self._plan.calm))
        await self._rest("calm")
        written = await asyncio.to_thread(rows, self._ledger)
        self.findings.equal("I4 metrics", "calm", await self._counted(), {
            "exchanges": len(written),
            "input tokens": sum(row["input_tokens"] for row in written),
            "output tokens": sum(row["output_tokens"] for row in written),
            "nano-USD": sum(_nano(row["cost_usd"]) for row in written),
            "refused": sum(bool(row["denied_by"]) for row in written),
        })  # fmt: skip
        for number in range(PROCESSORS):
            served = await self._metric(r'extproc_requests_total\{.*status="200"', number)
            self.findings["I11"].check(served > 0, f"processor {number} served nothing")
        tags = {row["labels"]["tag"] for row in written}
        for outcome in outcomes:
            self.findings["I5"].check(outcome.tag in tags, f"{outcome.tag} has no row")
        sent = sum(not row["denied_by"] and row["attempts"] > 0 for row in written)
        asked = await asyncio.to_thread(self._world.provided_count)
        self.findings["I6"].check(sent == asked, f"{sent} rows were sent, {asked} requests arrived")

    async def _killing(self) -> None:
        load = asyncio.create_task(self._load("kills", int(self._plan.requests * (1 - self._plan.calm))))
        for number in range(self._plan.kills):
            await asyncio.sleep(self._plan.every)
            if load.done():  # earlier than the kills
                await load
                load = asyncio.create_task(self._load("more", self._plan.in_flight))
            victim = number % PROCESSORS
            await asyncio.to_thread(self._world.kill, victim)
            self._world.revive(victim)
            self.kills += 1
        await load
        await self._rest("kills")
        written = await asyncio.to_thread(rows, self._ledger)
        provided = await asyncio.to_thread(self._world.provided)
        check_books(self.findings, written, self._clients.outcomes, provided)
        expired = self.findings.expired
        self.findings["I4"].note = f"{len(written)} rows, {expired} of leases that ran out, {self.kills} kills"
        most = limits(self._plan)
        for (scope, _, _), (settled, _) in self._watch.final.items():
            limit = most[scope.partition(":")[0]]
            self.findings["I11"].check(settled <= limit, f"{scope}: {settled} > {limit}")
        windows = {number for scope, _, number in self._watch.final if scope.startswith("rate:")}
        self.findings["I8"].note = f"{len(windows)} windows of a minute"

    async def _lowered(self) -> None:
        """The limit of `count` is lowered to nothing."""
        await self._reload(room=0.0)
        await self._refused("I14", "lowered", 24, "rate_limited")
        await self._reload()

    async def _paused(self) -> None:
        """Answers end while the store is down. Their use is settled when it is back."""
        streams = asyncio.create_task(self._load("store paused", 20))
        await asyncio.sleep(self._plan.pace * 2)
        self._world.redis.pause()
        try:
            await asyncio.sleep(0.1)
            await self._refused("I12", "paused", _ASKED, "store_unavailable")
            await streams
            await asyncio.sleep(0.5)
        finally:
            self._world.redis.resume()
        await self._back()
        await self._rest("store paused")

    async def _lost(self) -> None:
        before = [await self._losses(number) for number in range(PROCESSORS)]
        self._world.redis.stop()
        await self._refused("I12", "killed", _ASKED, "store_unavailable")
        self._world.redis.start()
        await self._told("killed", before, 1)
        await self._back()
        load = asyncio.create_task(self._load("store emptied", _ASKED))
        await asyncio.sleep(self._plan.pace * 3)
        await self._watch.command("FLUSHALL")
        await load
        await self._told("emptied", before, 2)

    # --- their parts

    async def _load(self, name: str, total: int) -> Sequence[Outcome]:
        start = time.perf_counter()
        outcomes = await self._clients.run(total, min(total, self._plan.in_flight))
        took = time.perf_counter() - start
        ends = Counter(_word(outcome) for outcome in outcomes)
        said = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        print(f"{name}: {total} requests in {took:.1f} s: {said}", flush=True)
        return outcomes

    async def _rest(self, when: str) -> None:
        """Wait until all leases have ended and all rows are written. Then counters and ledger have to agree."""
        deadline = time.monotonic() + self._plan.lease + _PATIENCE
        while await self._watch.held() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await self._watch.look()
        self.findings["I3"].check((held := await self._watch.held()) == 0, f"{when}: {held} leases are left")
        for (scope, _, _), (settled, reserved) in self._watch.final.items():
            self.findings["I3"].check(reserved == 0, f"{when}, {scope}: {reserved} reserved")
            self.findings["I2"].check(settled >= 0 <= reserved, f"{when}, {scope}: {settled}, {reserved}")
        charged: dict[str, int] = {}
        for name in CHARGED:
            charged |= await asyncio.to_thread(self._ledger.charges_by_scope, name)
        self.findings.equal("I4", when, self._watch.settled(), charged)

    async def _refused(self, name: str, when: str, total: int, code: str) -> None:
        """Every request is refused now, with the reason."""
        before = await asyncio.to_thread(self._world.provided_count)
        outcomes = await self._clients.run(total, 20, leaving=0.0)
        reached = await asyncio.to_thread(self._world.provided_count) - before
        self.findings[name].check(reached == 0, f"{when}: {reached} reached the provider")
        for outcome in outcomes:
            got = _word(outcome)
            # On a busy machine a slow store also refuses requests.
            self.findings[name].check(got in (code, "store_unavailable"), f"{when}: {outcome.tag} got {got}")

    async def _back(self) -> None:
        """Wait until every processor uses its store again."""
        while any(outcome.status == 503 for outcome in await self._clients.run(_PROBES, _PROBES, leaving=0.0)):
            pass

    async def _told(self, when: str, before: Sequence[float], more: int) -> None:
        """Each processor reports that the counts were lost."""
        deadline = time.monotonic() + _PATIENCE
        for number in range(PROCESSORS):
            while (lost := await self._losses(number) - before[number]) < more and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            self.findings["I12"].check(lost >= more, f"{when}: processor {number} told of {lost:.0f} losses")

    async def _reload(self, **changes: float) -> None:
        pattern = r'extproc_reloads_total\{outcome="taken"'
        before = [await self._metric(pattern, number) for number in range(PROCESSORS)]
        for number in range(PROCESSORS):
            self._world.write_settings(number, **changes)
        deadline = time.monotonic() + _PATIENCE
        for number in range(PROCESSORS):
            while await self._metric(pattern, number) <= before[number]:
                assert time.monotonic() < deadline, "the settings are not taken"
                await asyncio.sleep(0.1)

    async def _losses(self, number: int) -> float:
        return await self._metric("extproc_store_losses_total", number)

    async def _metric(self, pattern: str, number: int | None = None) -> float:
        return await asyncio.to_thread(self._world.metric, pattern, number)

    async def _counted(self) -> dict[str, int]:
        tokens = r"gen_ai_client_inference_usage_%s_tokens_total\{"
        return {
            "exchanges": round(await self._metric(r"extproc_requests_total\{")),
            "input tokens": round(await self._metric(tokens % "input")),
            "output tokens": round(await self._metric(tokens % "output")),
            "nano-USD": round(await self._metric(r"extproc_cost_usd_total\{") * NANO),
            "refused": round(
                await self._metric(r'extproc_budget_decisions_total\{.*verdict="denied"')
                + await self._metric(r'extproc_refusals_total\{code="store_unavailable"')
            ),
        }


def _word(outcome: Outcome) -> str:
    if outcome.status == 200:
        return outcome.ended
    return outcome.error or (str(outcome.status) if outcome.status else "without an answer")


def _nano(usd: str | None) -> int:
    return 0 if usd is None else round(float(usd) * NANO)

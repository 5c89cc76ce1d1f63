"""Replicas of own hardware are counted in every beat, and each minute is written once it has passed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from extproc.envoy.server.capacity import CapacityKeeper
from extproc.envoy.server.periodic import BEAT
from extproc.money.ledger import LedgerError
from extproc.money.ledger.capacity import MINUTE, Minute
from extproc.routing.catalog import Catalog
from extproc.routing.settings import ModelSettings
from extproc.upstream.prices import price
from extproc.upstream.providers import ProviderSettings

SERVED = {"kind": "vllm", "base_url": "http://pods/v1"}
CAPACITY = {"usd_per_hour": 3.6, "full_load": {"input": 10_000, "output": 1000}}


class Kept:
    """A ledger that may be away."""

    def __init__(self):
        self.minutes, self.away = [], False

    def keep_capacity(self, minutes):
        if self.away:
            raise LedgerError("away")
        self.minutes += minutes


def keeper(**more):
    providers = {
        "llama": ProviderSettings.model_validate(SERVED | {"pool": {}, "capacity": CAPACITY | more}),
        "fixed": ProviderSettings.model_validate(SERVED | {"capacity": CAPACITY | {"replicas": 4}}),
        "plain": ProviderSettings.model_validate(SERVED),
    }
    clock, kept = SimpleNamespace(now=600.0), Kept()
    pool = SimpleNamespace(known=False, endpoints={})
    services = SimpleNamespace(now=lambda: clock.now, pools={"llama": pool})
    return CapacityKeeper(services, lambda: SimpleNamespace(providers=providers), kept), clock, pool, kept


async def beats(keeper, clock, count):
    for _ in range(count):
        await keeper.turn()
        clock.now += BEAT


async def test_replicas_that_come_and_go_are_paid_by_the_second():
    counter, clock, pool, kept = keeper()
    assert counter.every() == BEAT
    await beats(counter, clock, 60)
    assert kept.minutes == []
    await beats(counter, clock, 30)
    pool.known, pool.endpoints = True, {"a": 1, "b": 2}
    await beats(counter, clock, 15)
    pool.endpoints = {"a": 1, "b": 2, "c": 3, "d": 4}
    await beats(counter, clock, 16)
    fixed = [Minute("fixed", minute * MINUTE, 4000, 240_000_000) for minute in (10, 11)]
    assert kept.minutes == [*fixed, Minute("llama", 11 * MINUTE, 3000, 180_000_000)]


async def test_minutes_wait_while_the_ledger_is_away():
    counter, clock, pool, kept = keeper()
    pool.known, kept.away = True, True
    await beats(counter, clock, 60)
    for _ in range(150):
        with pytest.raises(LedgerError):
            await counter.turn()
        clock.now += BEAT
    kept.away = False
    await counter.turn()
    times = [minute.time // MINUTE for minute in kept.minutes if minute.provider == "llama"]
    assert times == [10, 11, 12], "pods that are all gone cost nothing, and that is known"
    assert {minute.replicas for minute in kept.minutes if minute.provider == "llama"} == {0}
    await counter.turn()
    assert len(kept.minutes) == 6


async def test_a_provider_that_leaves_the_settings_is_counted_no_longer():
    counter, clock, _, kept = keeper()
    await beats(counter, clock, 30)
    del counter._settings().providers["fixed"]
    await beats(counter, clock, 90)
    assert kept.minutes == []


def test_tokens_cost_the_time_that_they_take_at_full_load():
    provider = ProviderSettings.model_validate(SERVED | {"capacity": CAPACITY | {"replicas": 1}})
    models = {
        "m": ModelSettings(provider="llama"),
        "own": ModelSettings(provider="llama", price={"input": 1, "output": 2}),
    }
    catalog = Catalog({"llama": provider}, models, {})
    assert catalog.target("m").price == price(0.1, 1.0, cached_input=0, version="settings")
    assert catalog.target("own").price == price(1, 2, version="settings")


@pytest.mark.parametrize(
    ("capacity", "reason"),
    [
        (CAPACITY, "give the number of replicas, or a pool"),
        (CAPACITY | {"replicas": 0}, "greater than or equal to 1"),
        ({"usd_per_hour": 1, "replicas": 1}, "full_load"),
        (CAPACITY | {"replicas": 1, "full_load": {"input": 0, "output": 1}}, "greater than 0"),
        (CAPACITY | {"replicas": 1, "full_load": {"input": 1, "output": 0.0001}}, "more than 1000000 USD per million"),
    ],
)
def test_what_cannot_be_counted_is_refused(capacity, reason):
    with pytest.raises(ValidationError, match=reason):
        ProviderSettings.model_validate(SERVED | {"capacity": capacity})

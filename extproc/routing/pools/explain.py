"""Pools in the explanation of a request: `extproc check --explain`. All servers are idle there, with empty caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from extproc.routing.pools.placing import facts_of
from extproc.routing.pools.pool import PLACED, Pool
from extproc.upstream.providers import ProviderSettings
from extproc.words.exchange import Exchange, Target


def idle_pools(providers: Mapping[str, ProviderSettings]) -> Mapping[str, Pool]:
    """Pools with the endpoints that the settings name. A name stands for all its addresses, which are not looked up."""
    found = {}
    for name, provider in providers.items():
        if (settings := provider.pool) is not None:
            found[name] = pool = Pool(name, provider)
            pool.update(dict.fromkeys(settings.endpoints or [settings.service or provider.url.netloc], ""))
    return found


def explain_endpoints(pools: Mapping[str, Pool], exchange: Exchange) -> Iterator[str]:
    """A line for each endpoint that the tries at pools would use, in order, with its score and the facts behind it."""
    if (placed := exchange.features.get(PLACED)) is None:
        return
    placed.free()  # the request itself is no load
    firsts: dict[str, Target] = {}
    for target in exchange.route.targets:
        firsts.setdefault(target.provider, target)
    for name, target in firsts.items():
        if (pool := pools.get(name)) is None:
            continue
        if pool.settings.picker:
            yield f"{name}: {pool.settings.picker} chooses"
        facts = facts_of(pool, target, exchange)
        for number, choice in enumerate(placed.choices.get(name, ()), 1):
            why = pool.picker.explain(choice.endpoint, facts)
            yield f"{name} {number}. {choice.endpoint.address}, score {choice.score:.2f}: {why}"

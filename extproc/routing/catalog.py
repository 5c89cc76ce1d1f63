"""The catalogue of names: entries of `models`, and virtual models that stand for several.

A chain is a tree: its leaves are targets, its branches virtual models, each with a strategy that orders the entries
below it. `Select` prunes and orders it for one request; Envoy executes the order, one cluster per try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

from extproc.access.auth.settings import ConsumerSettings, GroupSettings, TeamSettings
from extproc.dialects import client_apis, provider_apis
from extproc.dialects._models import known_end, known_output
from extproc.routing.canary import CanarySettings
from extproc.routing.history import History
from extproc.routing.matching import compiled
from extproc.routing.objectives import Objectives
from extproc.routing.parameters import compile_changes, compose
from extproc.routing.settings import ModelSettings, TargetSettings, VirtualModelSettings
from extproc.routing.strategies import strategies
from extproc.routing.strategies._several import Several
from extproc.routing.strategies._trial import OnTrial
from extproc.routing.strategies.weighted import Weighted
from extproc.upstream.prices import PriceBook, PriceSettings, known_model, preload
from extproc.upstream.providers import ProviderSettings, kinds, names_of_keys, without_key
from extproc.words.api import ClientAPI
from extproc.words.chain import Branch, Chain, RetrySettings, Share, Strategy
from extproc.words.dialect import BatchLimits
from extproc.words.errors import INVALID_REQUEST, MODEL_NOT_FOUND, Refusal
from extproc.words.exchange import Changes, Exchange, Price, Target
from extproc.words.facts import Facts
from extproc.words.values import Pattern, is_model_name

MAX_TARGETS = 64  # most targets behind one name, nested virtual models resolved
MAX_NESTING = 8
POOL_TRIES = 3
"""Tries at a provider with a pool, each at another endpoint. In a virtual model it is 2, unless `tries` is more."""

_ONE_TRY = RetrySettings(attempts=1)
_AT_A_POOL = RetrySettings(attempts=POOL_TRIES)


@dataclass(slots=True, frozen=True)
class Leaving:
    """Providers and names with their `disabled` switches from before a change."""

    providers: Mapping[str, ProviderSettings]
    models: Mapping[str, ModelSettings]
    virtual_models: Mapping[str, VirtualModelSettings]


@dataclass(slots=True, frozen=True)
class Before:
    """The names and grants from before a change for which Envoy is not ready, and the providers that wait for it.
    `leaving` are the same names without the change's switch-offs, for names that would otherwise lead to nothing.
    """

    models: Mapping[str, ModelSettings]
    virtual_models: Mapping[str, VirtualModelSettings]
    waiting: frozenset[str]
    leaving: Leaving | None = None
    consumers: Mapping[str, ConsumerSettings] = field(default_factory=dict)
    teams: Mapping[str, TeamSettings] = field(default_factory=dict)
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)


class Catalog:
    """Resolves names. Built once for a configuration that has no contradictions.

    A name that leads to a provider waiting for Envoy keeps its earlier targets (`before`), whatever kind of name it
    was.
    """

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings],
        models: Mapping[str, ModelSettings],
        virtual_models: Mapping[str, VirtualModelSettings],
        history: History | None = None,
        prices: PriceBook | None = None,
        *,
        before: Before | None = None,
        leaving: bool = False,
        stopped: Callable[[str, CanarySettings], str] = lambda _model, _canary: "",
    ) -> None:
        """With `leaving`, targets serve although their provider is now switched off. `stopped` gives the reason why a
        virtual model's canary has stopped, or an empty text.
        """
        self._stopped = stopped
        self._waiting = frozenset[str]() if before is None else before.waiting
        self._before = self._switched_on = None
        if before is not None:
            self._before = Catalog(providers, before.models, before.virtual_models, history, prices, stopped=stopped)
            if (on := before.leaving) is not None:
                names = on.models, on.virtual_models
                self._switched_on = Catalog(
                    {**providers, **on.providers}, *names, history, prices, leaving=True, stopped=stopped
                )
        self._leaving = leaving
        self.providers = providers
        self.prices = prices or PriceBook()
        self._other_prices = lru_cache(maxsize=4096)(self._price_of_other)
        preload([entry.provider.catalogue for entry in providers.values()])
        self._virtual = virtual_models
        self._history = history or History()
        self._keyless = {
            name: f"its key {provider.reference or 'api_key'} {lack}"
            for name, provider in providers.items()
            if (lack := provider.lack)
        }
        self._wildcards = [(Pattern(name), name, model) for name, model in models.items() if "*" in name]
        self._wildcards.sort(key=lambda entry: len(entry[1]), reverse=True)  # the most specific first
        self._targets = {name: self._target(name, name, model) for name, model in models.items() if "*" not in name}
        self._draws = {name: Weighted(name, None, self._history) for name, each in providers.items() if each.keys}
        self._deployments: dict[str, Target] = {}
        self._names: dict[tuple[str, str], list[str]] = {}  # names by provider and the provider's model
        for target in self._targets.values():
            self._deployments.setdefault(target.deployment, target)
            self._names.setdefault((target.provider, target.model), []).append(target.name)
        self.wildcard = lru_cache(maxsize=4096)(self._wildcard)
        self._chains = {name: self._alone(target) for name, target in self._targets.items()}
        for name in virtual_models:
            self._chains[name] = self._chain(name)

    def resolve(self, name: str) -> Chain | None:
        """The chain of a client's model name, or None. `provider/model-id` finds the entry of that model."""
        chain = self._chains.get(name)
        if chain is None and (target := self._own(name)) is not None:
            chain = self._alone(target)
        if chain is not None and self._before is not None and self._waits(chain.targets):
            earlier = self._before.resolve(name)
            if self._switched_on is not None and earlier is not None and all(map(self.unavailable, earlier.targets)):
                earlier = self._switched_on.resolve(name)
            return chain if earlier is None else replace(earlier, next=chain)
        return chain

    def target(self, name: str, provider: str = "") -> Target | None:
        """The target of a name of `models`, or of `provider/model-id`, or None. `provider`: that of one of its keys."""
        target = self._own(name)
        if target is not None and self._waits((target,)):
            target = (self._before and self._before.target(name)) or target
        if target is not None and target.provider != provider and without_key(provider) == target.provider:
            return replace(target, provider=provider) if provider in self.providers else None
        return target

    def held(self) -> Iterator[str]:
        """The names of the settings that keep their earlier targets for now."""
        for name, chain in self._chains.items():
            if self._waits(chain.targets):
                yield name
        yield from (key for _, key, model in self._wildcards if model.provider in self._waiting)

    def _own(self, name: str) -> Target | None:
        return self._targets.get(name) or self.wildcard(name) or self._deployments.get(name)

    def _waits(self, targets: Sequence[Target]) -> bool:
        waiting = self._waiting
        return bool(waiting) and any(target.provider in waiting and not target.disabled for target in targets)

    def names(self) -> Iterator[str]:
        """Every name a client may give, except names that only a wildcard covers."""
        return iter(self._chains)

    def changed(self) -> frozenset[str]:
        """Fields of requests that targets set or remove."""
        chains = self._chains.values()
        own = frozenset(name for chain in chains for target in chain.targets for name, *_ in target.changes)
        return own if self._before is None else own | self._before.changed()

    def names_of(self, provider: str, model: str) -> Iterator[str]:
        """The names of `models` that lead to `model` at `provider`."""
        provider = without_key(provider)
        yield from self._names.get((provider, model), ())
        for pattern, key, settings in self._wildcards:
            if settings.provider == provider and settings.model in (None, model):
                name = key.removesuffix("*") + model if key.endswith("/*") else model
                if settings.model is not None or pattern(name):
                    yield key if settings.model is not None else name

    def wildcards(self) -> Iterator[tuple[str, str]]:
        """The entries with `*`, and the provider of each."""
        return ((key, model.provider) for _, key, model in self._wildcards)

    def api(self, target: Target, client: ClientAPI) -> str | None:
        """The dialect in which a request in the `client` dialect reaches the target: the client's own if the provider
        speaks it, else the first one that translation can reach; None without one.
        """
        provider = self.providers[target.provider]
        if client.name in provider.native_apis and not target.api:
            return client.name
        return _api(provider.kind, target.model, client.name, target.api)

    def fetches_not(self, target: Target, dialect: str) -> bool:
        """True if the target accepts images and files only as data, not by URL, in requests of `dialect`."""
        return dialect in self.providers[target.provider].provider.no_urls

    def unavailable(self, target: Target, *, attached: bool = False) -> tuple[str, str] | None:
        """The reason why the target takes no requests now, as (reason, text), or None. In attach mode Envoy has its own
        keys.
        """
        if target.disabled or (self.providers[target.provider].disabled and not target.leaving):
            return "disabled", "it is disabled"
        if not attached and (text := self._keyless.get(target.provider)) is not None:
            return "no_key", text
        return None

    def _wildcard(self, name: str) -> Target | None:
        if "*" in name or not is_model_name(name):
            return None
        found = next((self._target(name, key, model) for pattern, key, model in self._wildcards if pattern(name)), None)
        # `openai/` alone names no model, and dots would lead out of a path that contains the model.
        return found if found is not None and found.model not in ("", ".", "..") else None

    def _target(self, name: str, key: str, settings: ModelSettings) -> Target:
        there = settings.model
        if there is None:
            prefix, star, rest = key.partition("*")
            # In `openai/*` the part before the slash names the provider, and is not part of the provider's model name.
            there = name[len(prefix) :] if star and not rest and prefix.endswith("/") else name
        provider = self.providers.get(settings.provider)
        catalogue = provider.provider.catalogue if provider else None
        known = known_model(catalogue, there, self.prices.today)
        own = settings.price
        if own is None and provider is not None and provider.capacity is not None:
            own = PriceSettings(**{name: round(rate, 9) for name, rate in provider.capacity.per_million.items()})
        price = self.prices.find(name, settings.provider, there, own, known)
        patience = provider.timeout if provider else 0.0
        return Target(
            name,
            settings.provider,
            there,
            settings.max_output_tokens,
            settings.context or known.context,
            None if settings.supports is None else frozenset(settings.supports),
            price,
            settings.disabled or (self._leaving and provider is not None and provider.disabled),
            self._leaving,
            prompt_cache=settings.prompt_cache,
            batch=_batch(provider, there),
            known_output=known_output(there),
            hosted_tools=provider.hosted_tools if provider else "refuse",
            api=settings.api or "",
            timeout=min(settings.timeout or patience, patience),
            tells_cost=provider is not None and provider.provider.tells_cost,
            price_as=partial(self._other_prices, settings.provider, catalogue, there),
            tries=1 if provider is None or provider.pool is None else POOL_TRIES,
            facts=_facts(settings, provider, there),
        )

    def _price_of_other(self, provider: str, catalogue: str | None, asked: str, answered: str) -> Price | None:
        """The price of the model `answered`, which differs from the target's model `asked`: from `models`, `prices` or
        the catalogue; None if no other price is known.
        """
        found, price = (
            self.prices.find(model, provider, model, None, known_model(catalogue, model, self.prices.today))
            for model in (answered, asked)
        )
        known = self._deployments.get(f"{provider}/{answered}")
        if known is not None and known.price is not None and known.price.is_from_settings:
            found = known.price
        if found is None or found == price:
            return None
        return replace(found, version=f"{found.version} {answered}")

    def _chain(self, name: str) -> Chain:
        targets: list[Target] = []
        root = self._branch(name, Target("", "", "", hosted_tools=""), targets)
        require = self._virtual[name].require
        return Chain(tuple(targets), self._virtual[name].retry, name, root, require=(require,) if require else ())

    def _branch(self, name: str, around: Target, targets: list[Target]) -> Branch:
        """The branch of a virtual model; its leaves are added to `targets`, with the conditions and changes of the
        virtual models around it.
        """
        virtual = self._virtual[name]
        if virtual.hosted_tools is not None:
            around = replace(around, hosted_tools=virtual.hosted_tools)
        if virtual.require is not None:
            around = replace(around, require=(*around.require, virtual.require))
        below: list[Branch | Target] = []
        for settings in virtual.targets:
            here = _within(around, settings)
            if settings.model in self._virtual:
                below.append(self._branch(settings.model, here, targets))
                continue
            target = self._own(settings.model)
            assert target is not None, settings.model
            leaf = replace(
                target,
                disabled=target.disabled or here.disabled,
                tries=max(settings.tries, min(target.tries, POOL_TRIES - 1)),
                changes=here.changes,
                match=here.match,
                hosted_tools=here.hosted_tools or target.hosted_tools,
                require=here.require,
            )
            below.append(spread := self._spread(leaf))
            targets += spread.below if isinstance(spread, Branch) else (spread,)  # type: ignore[arg-type]
        return Branch(self._strategy(name, virtual), tuple(below), _shares(virtual.targets))

    def _spread(self, target: Target) -> Target | Branch:
        """The target, or one target for each key of its provider, in the order of a draw by the keys' weights."""
        provider = self.providers.get(target.provider)
        if provider is None or not provider.keys:
            return target
        each = tuple(replace(target, provider=name) for name in names_of_keys(target.provider, provider))
        return Branch(self._draws[target.provider], each, tuple(Share(key.weight) for key in provider.keys))

    def _alone(self, target: Target) -> Chain:
        """The chain of a name that stands for one model."""
        spread = self._spread(target)
        if isinstance(spread, Branch):
            each: Any = spread.below
            return Chain(each, RetrySettings(attempts=min(3, len(each))), target.name, spread)
        return Chain((target,), _ONE_TRY if target.tries == 1 else _AT_A_POOL, target.name)

    def _strategy(self, name: str, virtual: VirtualModelSettings) -> Strategy:
        *measured, last = (strategies()[each](name, virtual.sticky, self._history) for each in virtual.strategy)
        objectives = Objectives(virtual.objectives, self._history) if virtual.objectives is not None else None
        strategy: Strategy = Several(measured, last, objectives) if measured or objectives is not None else last
        if (canary := virtual.canary) is not None:
            strategy = OnTrial(strategy, canary.target, lambda: self._stopped(name, canary))
        return strategy


def _facts(settings: ModelSettings, provider: ProviderSettings | None, model: str) -> Facts:
    """The facts of a model in the settings, else those of its provider and of the catalogue."""
    end = None if provider is None or _is_another(provider) else known_end(provider.kind, model)
    return Facts(
        settings.region or (provider and provider.region) or "",
        settings.retention if settings.retention is not None or provider is None else provider.retention,
        settings.licence or "",
        settings.deprecated or (end.deprecated if end else None),
        settings.retires or (end.retires if end else None),
        settings.successor or (end.successor if end else ""),
    )


def _is_another(provider: ProviderSettings) -> bool:
    """True for another service that speaks the API of the provider's kind."""
    return provider.base_url is not None and provider.provider.base_url is not None


def _batch(provider: ProviderSettings | None, model: str) -> BatchLimits | None:
    """The provider's limits of a batch; None for another service that speaks its API."""
    if provider is None or _is_another(provider):
        return None
    return provider.provider.batch(model)


@lru_cache(maxsize=4096)
def _api(kind: str, model: str, client: str, api: str) -> str | None:
    provider, asked = kinds()[kind], client_apis()[client]
    able: list[str] = []
    if asked.translation is not None:
        family = {name for name, known in provider_apis().items() if known.family == asked.family}
        able = [name for name in provider.preferred(model) if name in family and provider.speaks(model, name)]
    if api != client and api in able:
        return api
    if provider.speaks(model, client):
        return client
    return able[0] if able else None


def _within(around: Target, settings: TargetSettings) -> Target:
    """The conditions and changes that apply to all targets below one entry of `targets`; only the fields that settings
    give.
    """
    changes: Changes = compile_changes(settings.override, settings.default, settings.remove)
    return replace(
        around,
        disabled=around.disabled or settings.disabled,
        changes=compose(around.changes, changes),
        match=around.match + compiled(settings.match),
    )


def _shares(targets: Sequence[TargetSettings]) -> tuple[Share, ...]:
    """Missing values of max_complexity spread evenly; the last entry takes all requests."""
    shares = []
    for index, target in enumerate(targets, 1):
        limit = index / len(targets) if target.max_complexity is None else target.max_complexity
        quality = tuple((compiled(each.match), each.value) for each in target.quality)
        shares.append(Share(target.weight, 1.0 if index == len(targets) else limit, quality))
    return tuple(shares)


class Route:
    """Writes `chain`, and all its targets as `targets`, unless Open wrote them. 404 for an unknown name."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, exchange: Exchange) -> None:
        name = exchange.request.ask.model
        if exchange.route.kept.object:
            return
        if not is_model_name(name):
            message = "'model' must have 1 to 256 printable ASCII characters and no spaces."
            raise Refusal(INVALID_REQUEST, message, param="model")
        chain = self._catalog.resolve(name)
        if chain is None:
            message = f"There is no model {name!r}: GET /v1/models lists the models."
            raise Refusal(MODEL_NOT_FOUND, message, param="model")
        exchange.route.chain = chain
        exchange.route.targets = chain.targets

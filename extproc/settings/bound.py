"""Three parts of the settings: settings fixed at the start, settings that Envoy must have before they apply, and the
rest.

`fixed` keeps the old values of the first part. `without_envoy` keeps the old values of the second, for a change that
Envoy has not got yet, or refuses.

Until Envoy has accepted a change, every name that leads to a provider unknown to Envoy keeps its old targets: `Catalog`
resolves it by the old names (`Settings.before`). A name may change from a model to a wildcard or a chain. Consumers
keep their grants of the old targets (`auth.earlier_grants`); all other rights that the change removes end at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from extproc import __version__
from extproc.routing.catalog import Before, Catalog, Leaving
from extproc.routing.settings import ModelSettings, TargetSettings, VirtualModelSettings
from extproc.settings.config import Settings
from extproc.upstream.providers import CoolDownSettings, PoolSettings, ProviderSettings

_SECTIONS = ("status", "admin", "processor", "stores")
"""Sections fixed at the start: addresses, processes and open stores."""
_FIELDS = {"listener": ("max_connections",), "telemetry": ("log_buffer", "semconv")}
"""Further settings fixed at the start."""
_FREE = {
    "prices",
    "surcharges",
    "unknown_price",
    "models",
    "consumers",
    "teams",
    "groups",
    "guardrails",
    "brake",
    "attach",
    "foreign_objects",
}
"""Sections that are not in Envoy's configuration. A test compares that configuration."""
_PROCESSORS_OWN = {"disabled": False, "cool_down": CoolDownSettings()}
"""Settings of a provider that are not in Envoy's configuration."""
_Switched = TypeVar("_Switched", ModelSettings, TargetSettings)


def fixed(settings: Settings, first: Settings) -> Settings:
    """`settings`, with the values of `first` for everything fixed at the start."""
    changes: dict[str, Any] = {name: getattr(first, name) for name in _SECTIONS}
    for name, fields in _FIELDS.items():
        kept = {field: getattr(getattr(first, name), field) for field in fields}
        changes[name] = getattr(settings, name).model_copy(update=kept)
    if _cache(settings) != _cache(first):
        changes["cache"] = first.cache
    return settings.model_copy(update=changes)


def changes_of_fixed(settings: Settings, first: Settings) -> Sequence[str]:
    """The settings in which `settings` differs from `fixed(settings, first)`."""
    found = [name for name in _SECTIONS if getattr(settings, name) != getattr(first, name)]
    for name, fields in _FIELDS.items():
        new, old = getattr(settings, name), getattr(first, name)
        found += [f"{name}.{field}" for field in fields if getattr(new, field) != getattr(old, field)]
    return found + (["cache"] if _cache(settings) != _cache(first) else [])


def _cache(settings: Settings) -> object:
    """The cache settings, with those of the store fixed: it is opened at the start, if there are rules."""
    kept = settings.cache
    semantic = kept.semantic
    similar = semantic.embeddings, semantic.verify, semantic.memory, kept.is_semantic
    turns = kept.conversations
    return bool(kept.rules), kept.key, kept.memory, kept.disk, similar, turns.enabled, turns.memory, turns.disk


def digest(settings: Settings) -> str:
    """A digest of everything that Envoy's listeners, clusters and routes are made from."""
    rest = settings.model_dump(
        mode="json", exclude={*_FREE, *_SECTIONS, "providers", "virtual_models", "budgets", "cache", "mcp"}
    )
    parts = [
        __version__,
        rest,
        settings.processor.model_dump(mode="json"),
        {name: _envoys(provider).model_dump(mode="json") for name, provider in settings.providers.items()},
        [virtual.retry.model_dump(mode="json") for virtual in settings.virtual_models.values()],
        bool(settings.budgets),
        settings.longest_wait,
        bool(settings.cache.rules),
        None if settings.mcp is None else settings.mcp.of_envoy,
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _envoys(provider: ProviderSettings) -> ProviderSettings:
    pool = None if provider.pool is None else PoolSettings()  # Envoy knows only that there is one
    return provider.model_copy(update={**_PROCESSORS_OWN, "pool": pool})


def without_envoy(settings: Settings, now: Settings, *, leaving: bool = False) -> Settings:
    """The part of `settings` that can apply while Envoy keeps what `now` gave it.

    A provider known to Envoy keeps its definition, an unknown one is switched off. Names that lead to either keep their
    old targets (`Settings.before`), for consumers granted those targets. Whatever `settings` switch off is off. With
    `leaving`, a name that leads to such a provider, and would have no target meanwhile, keeps targets that the change
    switches off.
    """
    providers: dict[str, ProviderSettings] = {}
    waiting = set[str]()
    for name, new in settings.providers.items():
        old = now.providers.get(name)
        if old is not None and _envoys(old) == _envoys(new):
            providers[name] = new
            continue
        if not new.disabled:
            waiting.add(name)
        own = {"disabled": True} if old is None else {field: getattr(new, field) for field in _PROCESSORS_OWN}
        providers[name] = (old or new).model_copy(update=own)
    before = None
    if waiting:
        providers = {**now.providers, **providers}  # old names may lead to removed providers
        models = {name: _off(model, settings.models.get(name)) for name, model in now.models.items()}
        virtual_models = {
            name: _without_targets(virtual, settings.virtual_models.get(name))
            for name, virtual in now.virtual_models.items()
        }
        consumers = {consumer.name: consumer for consumer in now.consumers}
        on = Leaving(now.providers, now.models, now.virtual_models) if leaving else None
        before = Before(models, virtual_models, frozenset(waiting), on, consumers, now.teams, now.groups)
    found = settings.model_copy(
        update={
            "providers": providers,
            "listener": now.listener,
            "attribution": now.attribution,
            "mcp": now.mcp if now.mcp is None or settings.mcp is None else settings.mcp.without_envoy(now.mcp),
            "auth": settings.auth.model_copy(update={"jwt": now.auth.jwt}),
            "telemetry": settings.telemetry.model_copy(update={"traces": now.telemetry.traces}),
        }
    )
    return found.with_before(before)


def _off(old: _Switched, new: _Switched | None) -> _Switched:
    """`old`, with everything switched off that `new` switches off."""
    return old.model_copy(update={"disabled": True}) if new is not None and new.disabled else old


def _without_targets(old: VirtualModelSettings, new: VirtualModelSettings | None) -> VirtualModelSettings:
    """`old`, without the targets that `new` switches off."""
    off = {target.model: target for target in new.targets if target.disabled} if new is not None else {}
    return old.model_copy(update={"targets": [_off(target, off.get(target.model)) for target in old.targets]})


def held_back(settings: Settings, used: Settings) -> Sequence[str]:
    """The settings whose old values `without_envoy` kept."""
    providers: Mapping[str, ProviderSettings] = used.providers
    found = [f"providers.{name}" for name, provider in settings.providers.items() if providers.get(name) != provider]
    if (before := used.before) is not None:
        for name in Catalog(used.providers, used.models, used.virtual_models, before=before).held():
            section = "models" if name in settings.models else "virtual_models"
            if getattr(before, section).get(name) != getattr(settings, section)[name]:
                found.append(f"{section}.{name}")
    found += [name for name in ("listener", "attribution", "mcp") if getattr(settings, name) != getattr(used, name)]
    found += ["auth.jwt"] if settings.auth.jwt != used.auth.jwt else []
    found += ["telemetry.traces"] if settings.telemetry.traces != used.telemetry.traces else []
    return found

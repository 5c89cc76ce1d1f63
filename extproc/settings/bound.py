"""The parts of the settings that bind at the start, that Envoy must have before they can apply, and all others.

`fixed` leaves the first at what they were. `without_envoy` leaves the second at what they were, for a change that Envoy
has not got, or does not take.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from extproc import __version__
from extproc.providers import CoolDown, ProviderSettings
from extproc.routing.catalog import ModelSettings
from extproc.settings.config import Settings

_SECTIONS = ("status", "admin", "processor", "stores")
"""Sections that bind at the start: addresses, processes and stores that are open."""
_FIELDS = {"usage": ("mode", "log_interval"), "listener": ("max_connections",), "telemetry": ("log_buffer",)}
"""Further settings that bind at the start."""
_FREE = {"prices", "surcharges", "unknown_price", "models", "consumers", "teams", "groups", "guardrails", "attach"}
"""Sections of which Envoy has nothing. A test compares Envoy's configuration."""
_PROCESSORS_OWN = {"disabled": False, "cool_down": CoolDown()}
"""Settings of a provider of which Envoy has nothing."""


def fixed(settings: Settings, first: Settings) -> Settings:
    """`settings`, with everything that binds at the start as it is in `first`."""
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
    """The store of kept answers is opened at the start, where there are rules."""
    kept = settings.cache
    semantic = kept.semantic
    similar = semantic.embeddings, semantic.memory, semantic.shared, kept.is_semantic
    return bool(kept.rules), kept.key, kept.memory, kept.disk, similar


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
        bool(settings.cache.rules),
        None if settings.mcp is None else settings.mcp.of_envoy,
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _envoys(provider: ProviderSettings) -> ProviderSettings:
    return provider.model_copy(update=_PROCESSORS_OWN)


def without_envoy(settings: Settings, now: Settings) -> Settings:
    """As much of `settings` as can apply while Envoy stays as it is with `now`.

    A provider that Envoy has keeps its definition, one that Envoy has not is switched off. A model that moves to such a
    provider stays where it was.
    """
    providers: dict[str, ProviderSettings] = {}
    for name, new in settings.providers.items():
        old = now.providers.get(name)
        if old is None:
            providers[name] = new.model_copy(update={"disabled": True})
        elif _envoys(old) == _envoys(new):
            providers[name] = new
        else:
            providers[name] = old.model_copy(update={field: getattr(new, field) for field in _PROCESSORS_OWN})
    models: dict[str, ModelSettings] = {}
    for name, model in settings.models.items():
        before = now.models.get(name)
        stays = before is not None and model.provider not in now.providers
        models[name] = before if before is not None and stays else model
        if (needed := models[name].provider) not in providers:
            providers[needed] = now.providers[needed]
    return settings.model_copy(
        update={
            "providers": providers,
            "models": models,
            "listener": now.listener,
            "attribution": now.attribution,
            "mcp": now.mcp if now.mcp is None or settings.mcp is None else settings.mcp.without_envoy(now.mcp),
            "auth": settings.auth.model_copy(update={"jwt": now.auth.jwt}),
            "telemetry": settings.telemetry.model_copy(update={"traces": now.telemetry.traces}),
        }
    )


def held_back(settings: Settings, used: Settings) -> Sequence[str]:
    """The settings that `without_envoy` left as they were."""
    providers: Mapping[str, ProviderSettings] = used.providers
    found = [f"providers.{name}" for name, provider in settings.providers.items() if providers.get(name) != provider]
    found += [f"models.{name}" for name, model in settings.models.items() if used.models.get(name) != model]
    found += [name for name in ("listener", "attribution", "mcp") if getattr(settings, name) != getattr(used, name)]
    found += ["auth.jwt"] if settings.auth.jwt != used.auth.jwt else []
    found += ["telemetry.traces"] if settings.telemetry.traces != used.telemetry.traces else []
    return found

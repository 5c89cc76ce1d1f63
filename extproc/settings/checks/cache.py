"""Contradictions and lints of the cache of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from extproc.cache.answers import LEAST_SECRET
from extproc.cache.stores import doubts as doubt_store
from extproc.cache.stores import is_memory

if TYPE_CHECKING:
    from extproc.settings.config import Settings

KeyPath = tuple[str | int, ...]


def contradictions(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    cache, store = settings.cache, settings.stores.cache
    if not cache.rules:
        return
    if is_memory(store):
        if settings.processor.workers > 1:
            yield ("stores", "cache"), "memory: keeps the answers of each worker alone: use sqlite: or redis:"
    elif cache.key is None:
        yield ("cache", "key"), "answers in SQLite and Redis are encrypted: give a key, env:NAME or file:/path"


def doubts(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    cache, store = settings.cache, settings.stores.cache
    if not cache.rules:
        return
    for doubt in doubt_store(store):
        yield ("stores", "cache"), doubt
    if cache.key is not None and not is_memory(store) and len(cache.key.read() or "") < LEAST_SECRET:
        yield ("cache", "key"), f"{cache.key} is not set or has under {LEAST_SECRET} characters: nothing is kept"
    if store.startswith("redis") and store == settings.stores.counters:
        yield ("stores", "cache"), "answers may fill the Redis of the budgets, which must not evict: use another one"
    for index, rule in enumerate(cache.rules[:-1]):
        if not rule.match:
            yield ("cache", "rules", index), "it matches every request: the rules below never apply"

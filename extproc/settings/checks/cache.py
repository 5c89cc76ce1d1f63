"""Contradictions and lints of the cache of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from extproc.cache.answers import LEAST_SECRET
from extproc.cache.stores import doubts as doubt_store
from extproc.cache.stores import is_memory
from extproc.words.offline import has_package
from extproc.words.values import Pattern

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
    if not cache.is_semantic:
        return
    if not has_package("numpy"):
        yield ("cache", "semantic"), "questions are compared with numpy: pip install 'llm-extproc[semantic]'"
    similar, model = cache.semantic, cache.semantic.embeddings
    if model is None:
        return
    place = ("cache", "semantic", "embeddings")
    around = settings.around_guardrails
    if model.consumer not in around.keys:
        yield (*place, "consumer"), f"there is no consumer {model.consumer!r} with a key in env or file"
    if not any(Pattern(name)(model.model) for name in around.models):
        yield (*place, "model"), f"there is no model {model.model!r}"
    if model.url is None and around.door.startswith("https:"):
        yield (*place, "url"), "the listener has TLS: give the address with the name of its certificate"
    if similar.threshold is None and any(rule.semantic == "enforce" for rule in cache.rules):
        yield ("cache", "semantic", "threshold"), "give the threshold of this model: its samples in shadow mode show it"


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
    if cache.is_semantic and settings.processor.workers > 1 and not store.startswith("redis"):
        yield ("cache", "semantic"), "each worker compares its own questions alone: workers share them through Redis"
    for index, rule in enumerate(cache.rules[:-1]):
        if not rule.match:
            yield ("cache", "rules", index), "it matches every request: the rules below never apply"

"""Contradictions and lints of the cache of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from extproc.cache.answers import LEAST_SECRET
from extproc.cache.stores import doubts as doubt_store
from extproc.cache.stores import is_memory
from extproc.settings.document import Found
from extproc.words.values import has_package

if TYPE_CHECKING:
    from extproc.settings.config import Settings


def contradictions(settings: Settings) -> Iterator[Found]:
    cache, store = settings.cache, settings.stores.cache
    if not cache.rules:
        return
    if is_memory(store):
        if settings.processor.workers > 1:
            yield ("stores", "cache"), "memory: keeps the answers of each worker alone: use sqlite: or redis:"
    elif cache.key is None:
        yield ("cache", "key"), "answers in SQLite and Redis are encrypted: give a key, env:NAME or file:/path"
    yield from _semantic(settings)


def _semantic(settings: Settings) -> Iterator[Found]:
    """Contradictions of rules for questions in other words."""
    cache, similar = settings.cache, settings.cache.semantic
    for index, rule in cache.semantic_rules:
        place = ("cache", "rules", index, "semantic")
        if rule.semantic == "enforce" and similar.verify is None and not similar.questions:
            yield (
                place,
                (
                    "a score alone may give the answer to another question: add `cache.semantic.verify: "
                    "{model, consumer}`, which is asked about each, or `cache.semantic.questions`, or write "
                    "`semantic: shadow`"
                ),
            )
        elif rule.semantic == "shadow" and similar.embeddings is None:
            yield place, "questions are compared by vectors: give `cache.semantic.embeddings: {model, consumer}`"
        if rule.semantic == "enforce" and similar.verify is not None and similar.threshold is None:
            at = ("cache", "semantic", "threshold")
            yield at, "give the threshold from which `verify` is asked: samples in shadow mode show it"
    if similar.verify is not None and similar.embeddings is None:
        yield ("cache", "semantic", "verify"), "it judges what `embeddings` find: give `embeddings: {model, consumer}`"
    if not cache.is_semantic:
        return
    if not has_package("numpy"):
        yield ("cache", "semantic"), "questions are compared with numpy: pip install 'llm-extproc[semantic]'"
    around = settings.around_guardrails
    for name, model in (("embeddings", similar.embeddings), ("verify", similar.verify)):
        for key, message in model.problems(around) if model is not None else ():
            yield ("cache", "semantic", name, key), message


def doubts(settings: Settings) -> Iterator[Found]:
    cache, store = settings.cache, settings.stores.cache
    if not cache.rules:
        if cache.conversations.enabled and not is_memory(store) and cache.key is None:
            yield (
                ("cache", "key"),
                "turns of conversations in SQLite and Redis are encrypted: without a key none is kept",
            )
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

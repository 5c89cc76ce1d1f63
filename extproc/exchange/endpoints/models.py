"""`GET /v1/models`: models that the consumer may use, in the shape of the client's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from extproc.access.auth import earlier_grants
from extproc.access.auth.require import unmet_of
from extproc.exchange.parsing import listed_at
from extproc.routing.catalog import Catalog
from extproc.upstream.prices import known_models, per_million
from extproc.words.actions import LocalReply
from extproc.words.dialect import Listed
from extproc.words.errors import MODEL_NOT_FOUND, Refusal
from extproc.words.exchange import Consumer, Exchange
from extproc.words.facts import Facts


class Models:
    """Answers the list of models, or one model of it; leaves other requests alone."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known = {name: self._describe(name) for name in catalog.names()}
        for pattern, provider in catalog.wildcards():
            for model in known_models(catalog.providers[provider].provider.catalogue):
                name = pattern.replace("*", model) if pattern.endswith("/*") or pattern == "*" else model
                if catalog.resolve(name) is not None:
                    self._known.setdefault(name, self._describe(name))

    def __call__(self, exchange: Exchange) -> LocalReply | None:
        if exchange.request.operation != "list_models":
            return None
        name = listed_at(exchange.request.head.path.partition("?")[0])
        if not name:
            return _json(exchange.request.dialect.replies.models(self._list(exchange.consumer)))
        found = self._known.get(name)
        if found is None and self._catalog.resolve(name) is not None:
            found = self._describe(name)
        if found is None or not self._usable(name, exchange.consumer):
            raise Refusal(
                MODEL_NOT_FOUND, f"There is no model {name[:256]!r}: GET /v1/models lists the models.", param="model"
            )
        return _json(exchange.request.dialect.replies.model(found))

    def _list(self, consumer: Consumer) -> Sequence[Listed]:
        return [found for name, found in self._known.items() if self._usable(name, consumer)]

    def _usable(self, name: str, consumer: Consumer) -> bool:
        chain = self._catalog.resolve(name)
        if chain is None or not consumer.may_use(name):
            return False
        may_use = consumer.may_use if chain.next is None else earlier_grants(consumer, chain, chain.next)
        return any(
            may_use(target.name)
            and self._catalog.unavailable(target) is None
            and not unmet_of((*consumer.require, *target.require), target)
            for target in chain.targets
        )

    def _describe(self, name: str) -> Listed:
        chain = self._catalog.resolve(name)
        assert chain is not None, name
        target = chain.targets[0]
        provider = self._catalog.providers[target.provider].provider
        virtual = len(chain.targets) > 1 or target.name != name
        return Listed(
            name,
            "gateway" if virtual else provider.gen_ai_name,
            target.context,
            target.max_output_tokens,
            None if target.price is None or virtual else per_million(target.price),
            Facts() if virtual else target.facts,
            None if virtual else target.supports,
        )


def _json(value: Any) -> LocalReply:
    return LocalReply(200, msgspec.json.encode(value), {"content-type": "application/json"})

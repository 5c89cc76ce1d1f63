"""Models that a request names beside its own: fallbacks of a router, the model of a tool that the provider runs.

They are the provider's names, and reach it as the client wrote them. A consumer may name a model that is granted to it:
by that name, or as an entry of `models` that leads to it at the same provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects._named import EACH
from extproc.routing.catalog import Catalog
from extproc.upstream.prices import FREE
from extproc.words.exchange import Exchange, Target

_MOST = 64
"""Models that one request may name, beyond which it is taken to name one without a grant."""


class Ungranted:
    """The first model that a request names at a target without a grant of its consumer; empty where there is none."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, exchange: Exchange, target: Target) -> str:
        client, body = exchange.request.dialect, getattr(exchange.request, "json", None) or {}
        changed = {name for name, *_ in target.changes}
        named = [place for place in client.fields.models if place[0] in body and place[0] not in changed]
        if not named or self._catalog.api(target, client) != client.name:
            return ""
        models = dict.fromkeys(model for place in named for model in _at(body, place))
        checked = list(models)[:_MOST]
        found = (model for model in checked if not self._is_granted(exchange, target, model))
        return next(found, list(models)[_MOST] if len(models) > _MOST else "")

    def _is_granted(self, exchange: Exchange, target: Target, model: str) -> bool:
        if model == target.model or model.startswith(FREE):
            return True
        return any(map(exchange.consumer.may_use, (model, *self._catalog.names_of(target.provider, model))))


def _at(value: Any, place: Sequence[str]) -> Iterator[str]:
    """The strings at a place of a body."""
    if not place:
        if isinstance(value, str) and value:
            yield value
    elif place[0] == EACH:
        for item in value if isinstance(value, list) else ():
            yield from _at(item, place[1:])
    elif isinstance(value, Mapping) and place[0] in value:
        yield from _at(value[place[0]], place[1:])

"""Further models that a request names: fallbacks of a router, the model of a tool that the provider runs.

They are the provider's names, and reach the provider as the client wrote them. A consumer may name a model granted to
it: by that name, or as an entry of `models` that leads to the model at the same provider.
"""

from __future__ import annotations

from collections.abc import Sequence

from extproc.dialects._named import Named, named_in
from extproc.routing.catalog import Catalog
from extproc.upstream.prices import FREE
from extproc.words.exchange import Exchange, Target

_MOST = 64
"""Most models that one request may name; a request with more counts as naming an ungranted one."""


class Ungranted:
    """Finds the first model that a request names at a target without a grant for its consumer; empty without one."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, exchange: Exchange, target: Target) -> str:
        found = named_at(exchange, target)
        if not found or self._catalog.api(target, exchange.request.dialect) != exchange.request.dialect.name:
            return ""
        models = dict.fromkeys(each.model for each in found if each.told)
        checked = list(models)[:_MOST]
        refused = (model for model in checked if not self._is_granted(exchange, target, model))
        return next(refused, list(models)[_MOST] if len(models) > _MOST else "")

    def _is_granted(self, exchange: Exchange, target: Target, model: str) -> bool:
        if model == target.model or model.startswith(FREE):
            return True
        return any(map(exchange.consumer.may_use, (model, *self._catalog.names_of(target.provider, model))))


def named_at(exchange: Exchange, target: Target) -> Sequence[Named]:
    """The further models that a request names, except in fields that the target changes."""
    places, body = exchange.request.dialect.fields.models, getattr(exchange.request, "json", None)
    if not places or not body or not (present := [place for place in places if place[0] in body]):
        return ()
    changed = {name for name, *_ in target.changes}
    return list(named_in(body, [place for place in present if place[0] not in changed]))

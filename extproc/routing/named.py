"""Further models that a request names: fallbacks of a router, the model of a tool that the provider runs.

They are the provider's names, and reach the provider as the client wrote them. A consumer may name a model granted to
it: by that name, or as an entry of `models` that leads to the model at the same provider. Others are refused, or left
out of the request.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from extproc.access.auth.require import unmet_of
from extproc.dialects._named import Named, named_in, without
from extproc.routing.catalog import Catalog
from extproc.upstream.prices import FREE
from extproc.wire.framing.patch import replaced
from extproc.words.exchange import Exchange, Target

_MOST = 64
"""Most models that one request may name; a request with more counts as naming an ungranted one."""


class Ungranted:
    """Finds the first model that a request names at a target without a grant for its consumer; empty without one.

    With `leave_out` it takes such models out of the request, except from a batch.
    """

    def __init__(self, catalog: Catalog, *, leave_out: bool = False) -> None:
        self._catalog = catalog
        self._leave_out = leave_out

    def __call__(self, exchange: Exchange, target: Target) -> str:
        found = named_at(exchange, target)
        if not found or self._catalog.api(target, exchange.request.dialect) != exchange.request.dialect.name:
            return ""
        models = dict.fromkeys(each.model for each in found if each.told)
        checked = list(models)[:_MOST]
        refused = (model for model in checked if not self._is_granted(exchange, target, model))
        if len(models) > _MOST or not self._leave_out or exchange.request.ask.batch:
            return next(refused, list(models)[_MOST] if len(models) > _MOST else "")
        if without := frozenset(refused):
            _leave_out(exchange, target, without)
        return ""

    def _is_granted(self, exchange: Exchange, target: Target, model: str) -> bool:
        if model == target.model or model.startswith(FREE):
            return True
        names = list(self._catalog.names_of(target.provider, model))
        if required := (*exchange.consumer.require, *exchange.route.require, *target.require):
            known = [found for name in names if (found := self._catalog.target(name)) is not None]
            if not known or any(unmet_of(required, one) for one in known):
                return False
        return any(map(exchange.consumer.may_use, (model, *names)))


def named_at(exchange: Exchange, target: Target) -> Sequence[Named]:
    """The further models that a request names, except in fields that the target changes."""
    body = getattr(exchange.request, "json", None)
    places = _places(exchange, target) if body else ()
    return list(named_in(body, places)) if body and places else ()


def _places(exchange: Exchange, target: Target) -> Sequence[Sequence[str]]:
    """Places of the body that name models there, except those that the target changes."""
    places, body = exchange.request.dialect.fields.models, exchange.request.json
    if not places or not (present := [place for place in places if place[0] in body]):
        return ()
    changed = {name for name, *_ in target.changes}
    return [place for place in present if place[0] not in changed]


def _leave_out(exchange: Exchange, target: Target, models: Collection[str]) -> None:
    """Take these models out of the request: the list item that names one, or its field."""
    request = exchange.request
    changed = without(request.json, _places(exchange, target), models)
    request.ignored += tuple([name if value is None else f"{name}[]" for name, value in changed.items()])
    request.body, request.masked = replaced(request.body, request.json, changed), True

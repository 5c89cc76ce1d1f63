"""Open, Recall and Seal: ids of objects in a request become the provider's, and those in its answer the client's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from msgspec import UNSET

from extproc.access.kept import Ids, Object, is_sealed, owner
from extproc.dialects import _objects
from extproc.routing.catalog import Catalog
from extproc.wire.framing import Frame, Framing
from extproc.wire.framing.multipart import is_form
from extproc.wire.framing.patch import rewritten
from extproc.words import contract
from extproc.words.api import Found
from extproc.words.chain import Chain, RetrySettings
from extproc.words.dialect import HOSTED, ID, KEPT, Ask
from extproc.words.errors import FOREIGN_OBJECT, INVALID_REQUEST, OBJECT_NOT_FOUND, Refusal
from extproc.words.exchange import Exchange
from extproc.words.values import Pattern

_KEPT_NOWHERE = (
    "{!r} names an answer that is not kept, or no longer, or not for this consumer: send the whole conversation, "
    "with 'store' set to false."
)
_ONCE = RetrySettings(attempts=1)
_version = re.compile(r"^(https://[^/]*)?/v1(beta)?(?=/)").sub
_in_query = re.compile(r"[a-z]{1,16}[_-]kept_[A-Za-z0-9_-]{1,1024}").sub


class Open:
    """For a call about a kept object: writes `ask`, `chain` and `targets`. Only a part of a file has a body, which
    Parse has read. 404 for an id that this gateway did not give to the consumer.
    """

    def __init__(self, ids: Ids, catalog: Catalog) -> None:
        self._ids = ids
        self._catalog = catalog

    def __call__(self, exchange: Exchange) -> None:
        id, kept, consumer = exchange.request.endpoint.id, exchange.route.kept, owner(exchange.consumer)
        if not id:
            return
        if exchange.request.dialect.endpoints.names:  # the name begins behind the version: `/v1beta/batches/{id}`
            id = f"{exchange.request.endpoint.pattern.split('/', 2)[2].partition(ID)[0]}{KEPT}{id}"
        found = self._ids.open(consumer, id)
        target = None if found is None else self._catalog.target(found.target, found.provider)
        if found is None or target is None or target.provider != found.provider:
            raise unknown(id)
        kept.ids[found.id] = id
        kept.object, kept.made_by, kept.sealing = found.id, found.made_by, True
        if exchange.request.head.ended:
            exchange.request.body, exchange.request.json, exchange.request.ask = b"", {}, Ask("", free=True)
        path, _, query = exchange.request.head.path.partition("?")

        def opened(match: re.Match[str]) -> str:  # the item after which a list continues
            item = self._ids.open(consumer, match[0])
            if item is None or item.provider != found.provider:
                raise unknown(match[0])
            return item.id

        if query:
            exchange.request.head.path = f"{path}?{_in_query(opened, query)}"
        exchange.request.ask.model = target.name
        exchange.request.ask.stream = dict(parse_qsl(query, max_num_fields=64)).get("stream") == "true"
        exchange.request.ask.later = found.input_tokens, found.output_tokens
        exchange.route.chain = Chain((target,), _ONCE, target.name)
        exchange.route.targets = (target,)


class Recall:
    """Writes the provider's ids into a request that names objects, and `keeper`, the provider that has them.

    404 for an id that this gateway did not give to the consumer. 400 for a raw id of the provider, unless `foreign`
    allows it or no provider of the model has sealed ids.
    """

    def __init__(self, ids: Ids, catalog: Catalog, foreign: str | Sequence[str] = "refuse") -> None:
        self._ids = ids
        self._catalog = catalog
        self._allows_all = foreign == "allow"
        self._allowed = [Pattern(each) for each in foreign] if not isinstance(foreign, str) else []

    def __call__(self, exchange: Exchange) -> None:
        kept, dialect, needs = exchange.route.kept, exchange.request.dialect, exchange.request.ask.needs
        if kept.object:  # Open found it
            return
        address = dialect.offers.stored.objects.address
        changes: dict[tuple[int, Any], Any] = {}
        for place in _objects.in_request(exchange.request.json, dialect.offers.stored.objects, named=kept.named):
            sealed = place.id.removeprefix(address)
            if is_sealed(sealed):
                found = self._open(exchange, place, sealed)
                changes[id(place.holder), place.key] = found if sealed == place.id else address + found
            elif place.refers:
                self._check(exchange, place)
        if changes:
            if is_form(exchange.request.body):
                message = "Ids of objects cannot stand in a form, or in a file for a batch: send their content."
                raise Refusal(INVALID_REQUEST, message)
            exchange.request.body = rewritten(exchange.request.body, exchange.request.json, changes)
            exchange.request.masked = True
            if exchange.request.ask.later[0]:  # the body stands for the file
                exchange.request.ask.file_bytes = len(exchange.request.body)
        if dialect.offers.stored.unnamed and not exchange.request.ask.model:
            field = next(iter(dialect.fields.spoken))
            raise unknown(str(exchange.request.json.get(field)), field)
        kept.sealing = (
            bool(kept.ids) or dialect.offers.stored.keeps(exchange.request.json) or exchange.request.ask.speaks
        )
        kept.sealing = kept.sealing or not needs.keys().isdisjoint((HOSTED, "state", "thread"))

    def _open(self, exchange: Exchange, place: Found, sealed: str) -> str:
        kept = exchange.route.kept
        found = self._ids.open(owner(exchange.consumer), sealed)
        if found is None:
            raise unknown(sealed, place.where)
        kept.ids[found.id] = sealed
        if place.refers:
            if kept.keeper not in ("", found.provider):
                message = f"{place.where!r} names an object at another provider than the other ids of the request do."
                raise Refusal(INVALID_REQUEST, message, param=place.where)
            kept.keeper = found.provider
            if place.where in exchange.request.dialect.fields.spoken and not exchange.request.ask.model:
                _take_model(exchange, found)
        return found.id

    def _check(self, exchange: Exchange, place: Found) -> None:
        """Refuse a raw id of the provider, because any consumer that knows it could use the object."""
        if exchange.request.dialect.offers.stored.objects.ours(place.id):
            raise Refusal(OBJECT_NOT_FOUND, _KEPT_NOWHERE.format(place.where), param=place.where)
        if self._allows_all or any(allowed(place.id) for allowed in self._allowed):
            return
        if exchange.request.dialect.offers.stored.unnamed and not exchange.request.ask.model:
            raise unknown(place.id, place.where)
        chain = self._catalog.resolve(exchange.request.ask.model)
        if chain is not None and any(self._ids.able(target.provider) for target in chain.targets):
            message = (
                f"{place.where!r} is the id of a {place.kind} that this gateway did not give out: {_quoted(place.id)}. "
                "Use the id from an answer of the gateway, or have it listed in `foreign_objects`."
            )
            raise Refusal(FOREIGN_OBJECT, message, param=place.where)


def _take_model(exchange: Exchange, found: Object) -> None:
    """Write the model and the tokens of a batch, which are those of its file."""
    ask = exchange.request.ask
    ask.model = found.target
    ask.later = found.input_tokens, found.output_tokens
    ask.file_tokens, ask.answer_tokens = ask.later


def _quoted(id: str) -> str:
    return repr(id if len(id) <= 64 else f"{id[:64]}…")


def unknown(id: str, param: str | None = None) -> Refusal:
    message = f"The gateway gave this consumer no object with the id {_quoted(id)}, or its model or key is gone."
    return Refusal(OBJECT_NOT_FOUND, message, param=param)


class Seal:
    """A stage of events: replaces the provider's ids by sealed ones."""

    changes_length = True

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        kept, answer = exchange.route.kept, exchange.answer
        if not kept.sealing or contract.TRANSLATED in answer.head.hop:
            return False
        return bool(kept.ids) or (answer.target is not None and self._ids.able(answer.target.provider))

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        report, ids, stored = exchange.answer.report, exchange.route.kept.ids, exchange.request.dialect.offers.stored
        objects, link = stored.objects, stored.link
        assert report is not None, "Read wrote it"
        for event in events:
            if event.data is None or not _objects.may_answer(event.data, objects):
                continue
            if (tree := event.parse()) is not UNSET:
                self._add(exchange, [place.id for place in _objects.in_answer(tree, objects)])
        self._add(exchange, report.kept)
        for event in events if ids else ():
            for id, sealed in ids.items():
                _replace(event, id, sealed, link)
        return events

    def _add(self, exchange: Exchange, found: Sequence[str]) -> None:
        ids, target = exchange.route.kept.ids, exchange.answer.target
        assert target is not None, "Origin found it"
        for id in found:
            if id not in ids and not is_sealed(id):
                report, ask = exchange.answer.report, exchange.request.ask
                is_late = ask.lasting and report is not None and id == report.pending
                made = Object(target.provider, target.name, id, *ask.later, made_by=exchange.id if is_late else "")
                ids[id] = self._ids.seal(owner(exchange.consumer), made) or id


def _replace(event: Frame, id: str, sealed: str, link: str) -> None:
    """Replace an id, and addresses of its object at the provider by the gateway's path."""
    if id.encode() not in event.raw:
        return
    changes = {b'"%b"' % id.encode(): b'"%b"' % sealed.encode()}
    if link:
        address = re.compile(rb'"https?:[^"\s]*%b"' % re.escape(_version("", link).replace(ID, id)).encode())
        changes |= dict.fromkeys(address.findall(event.raw), b'"%b"' % link.replace(ID, sealed).encode())
    for old, new in changes.items():
        event.raw = event.raw.replace(old, new)
        if event.data is not None:
            event.data, event.tree = event.data.replace(old, new), UNSET

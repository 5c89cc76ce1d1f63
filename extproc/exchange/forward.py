"""Forward: the changes Envoy makes to the request, and the headers that instruct the tries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import msgspec

from extproc.access.auth import CREDENTIAL_HEADERS, AttributionSettings
from extproc.access.kept import Ids, owner
from extproc.money.budgets import without
from extproc.routing.parameters import apply
from extproc.routing.pools.pool import PLACED
from extproc.routing.prefix import prefix
from extproc.routing.retries import retry_headers
from extproc.upstream.providers import ProviderSettings, kinds
from extproc.wire.framing.patch import patch
from extproc.words import contract
from extproc.words.actions import Continue
from extproc.words.contract import CACHE, GUARDRAILS, Edit, Service
from extproc.words.dialect import ID
from extproc.words.exchange import Exchange, Target
from extproc.words.sample import Sample
from extproc.words.values import Patterns

_encode = msgspec.json.encode


_MAX_EDITS = 8192
"""Most bytes of the header with each try's edits. Above it, every try starts from the client's body. The header is long
when later tries must restore fields that the first try changed.
"""


_NEVER_SENT = frozenset((*CREDENTIAL_HEADERS, GUARDRAILS, CACHE))
"""Request headers that are only for the gateway."""


_ENVOYS = (
    *(":*", "host", "content-type", "content-length", "content-encoding", "transfer-encoding", "accept"),
    *("accept-encoding", "x-request-id", "x-forwarded-*", "x-envoy-*", f"{contract.PREFIX}*"),
)
"""Headers of HTTP, of the body, or of the other team's Envoy."""


_AS_IT_IS = Edit({})


class Forward:
    """Writes `onward`, and marks the request as forwarded.

    The forwarded body is the first target's. The attempt attachment changes it for other targets, so a request whose
    first try succeeds does not need that attachment.
    """

    def __init__(
        self,
        attribution: AttributionSettings,
        providers: Mapping[str, ProviderSettings],
        kept: Sequence[str] | None = None,
        places: Mapping[str, str] = MappingProxyType({}),
        ids: Ids | None = None,
    ) -> None:
        self._ids = ids  # makes cache keys of conversation prefixes for providers
        self._query_of = {name: kinds()[entry.kind].client_query for name, entry in providers.items()}
        self._clusters = {name: places.get(name, contract.try_cluster(name)) for name in providers}
        # Client headers that attach mode keeps, and the headers that each provider accepts beside them; None: all are
        # kept.
        self._kept = None if kept is None else Patterns((*_ENVOYS, *kept))
        listed = {} if kept is None else providers
        self._passed = {name: Patterns(entry.passed) for name, entry in listed.items()}
        self._label_prefix = attribution.prefix if attribution.strip else None

    def __call__(self, exchange: Exchange) -> None:
        request, route = exchange.request, exchange.route
        edits = [_AS_IT_IS] if route.kept.object else self._edits(exchange)
        headers, first, order = (self._to_routes if exchange.attached else self._to_hops)(exchange, edits)
        if ":path" not in headers and (path := self._path(exchange)) is not None:
            headers[":path"] = path
        body = request.body if request.masked else None
        fields = {**request.edits, **first.fields}
        model = request.dialect.fields.model
        if model in request.json and fields.get(model) == request.ask.model and model not in request.edits:
            del fields[model]
        if fields or first.removed or request.ignored:
            left_out = [name for name in request.ignored if name not in fields]
            body = patch(request.body, fields, [*first.removed, *left_out])
        route.onward = Continue(headers, self._removed(exchange), body, reroute=True, order=order)
        route.forwarded, route.sent = True, time.perf_counter()

    def _to_hops(self, exchange: Exchange, edits: Sequence[Edit]) -> tuple[dict[str, str], Edit, tuple[str, ...]]:
        """Headers for the tries, the edit to make now, and the tries' clusters in order."""
        headers, first = self._headers(exchange), _AS_IT_IS
        if not exchange.route.kept.object:
            first, told = _share_out(edits, exchange)
            headers |= told
        return headers, first, tuple([self._clusters[target.provider] for target in exchange.route.targets])

    def _to_routes(self, exchange: Exchange, edits: Sequence[Edit]) -> tuple[dict[str, str], Edit, tuple[str, ...]]:
        """`_to_hops` for attach mode. The other team's routes choose the cluster by the header with the providers'
        names. All tries send the first target's path and body: `check --attach` refuses a chain whose targets differ in
        model or changes.
        """
        request, targets = exchange.request, exchange.route.targets
        headers = {contract.PROVIDER: ",".join(dict.fromkeys(target.provider for target in targets))}
        if request.dialect.fields.model is None and not exchange.route.kept.object:
            headers[":path"] = request.endpoint.path(targets[0].model) + self._query(exchange)
            renamed = request.dialect.offers.naming.for_model(request.json, targets[0].model)
            if renamed is not request.json:
                request.body, request.masked = _encode(renamed), True
        return headers, edits[0], ()

    def _edits(self, exchange: Exchange) -> list[Edit]:
        """Each try's edits to the client's body. Edits common to all tries go into `exchange.request.edits`."""
        request, targets, limits = exchange.request, exchange.route.targets, exchange.money.output_limits
        offers, model, output_field = request.dialect.offers, request.dialect.fields.model, request.ask.output_field
        if request.ask.stream and (usage := offers.usage_request(request.json)):
            request.edits |= usage
            exchange.answer.usage_hidden = True
        if offers.stored.unnamed:
            removed = [name for name in (model,) if name in request.json]
            # The request goes to one provider.
            return [Edit(offers.stored.renamed(request.json, targets[0].model), removed)] * len(targets)
        found = []
        for index, target in enumerate(targets):
            fields, removed = apply(target.changes, request.json, output_field) if target.changes else ({}, [])
            if model is not None:
                fields[model] = target.model
            if limits and (limit := limits[index]) is not None and output_field:
                fields[output_field] = limit
                removed = [name for name in removed if name != output_field]
            name = target.adaptation.cache_key
            absent = name and name not in request.json and name not in fields
            if absent and (key := self._cache_key(exchange, target)) is not None:
                fields = {**fields, name: key}
            found.append(Edit(fields, removed, _service(exchange, target, fields)))
        return found

    def _cache_key(self, exchange: Exchange, target: Target) -> str | None:
        """Key of this consumer's conversation prefix. By it the provider finds the server that has the prefix
        cached.
        """
        if self._ids is None or not (found := prefix(exchange)):
            return None
        return self._ids.digest(target.provider, owner(exchange.consumer), found)

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        retry, targets = exchange.route.chain.retry, exchange.route.targets
        timeout = retry.per_try_timeout_stream if exchange.request.ask.stream else retry.per_try_timeout
        if timeout is None:
            timeout = max([target.timeout for target in targets])
        headers = {
            contract.ID: exchange.id,
            contract.TARGETS: contract.encode_targets(targets, exchange.consumer.name),
            contract.TIMEOUT: (milliseconds := str(int(timeout * 1000))),
            "x-envoy-upstream-rq-per-try-timeout-ms": milliseconds,
        }
        if (placed := exchange.features.get(PLACED)) is not None:
            headers[contract.ENDPOINTS] = placed.header([target.provider for target in targets])
        if len(targets) > 1:
            headers["x-envoy-max-retries"] = str(len(targets) - 1)
            headers |= retry_headers(tuple(retry.on))
            if retry.back_off and any(target.tries > 1 for target in targets):
                headers[contract.ATTEND] = contract.ATTEND_LATER
                headers[contract.BACK_OFF] = str(int(retry.back_off * 1000))
        return headers

    def _path(self, exchange: Exchange) -> str | None:
        """Path of the forwarded request, by which the route is chosen again; None: the client's path."""
        request, path, endpoint = exchange.request, exchange.request.head.path, exchange.request.endpoint
        if object := exchange.route.kept.object:
            upload = request.dialect.offers.stored.upload
            if upload is not None and request.operation == upload.operation:
                return upload.provider_path.replace(ID, object.removeprefix(upload.prefix))
            path = endpoint.pattern.replace(ID, object)
            if request.dialect.endpoints.names:
                path = f"/v1/{object}{endpoint.pattern.partition(ID)[2]}"
            return path + self._query(exchange)
        if endpoint.alias:
            return endpoint.path(endpoint.model)
        return path.partition("?")[0] + self._query(exchange) if "?" in path else None

    def _query(self, exchange: Exchange) -> str:
        """The client's query, reduced to parameters that a provider may get."""
        query = exchange.request.head.path.partition("?")[2]
        providers = {target.provider for target in exchange.route.targets}
        allowed = {name for provider in providers for name in self._query_of[provider]}
        allowed.update(exchange.request.endpoint.query)
        kept = [part for part in query.split("&") if unquote(part.partition("=")[0]) in allowed]
        return "?" + "&".join(kept) if kept else ""

    def _removed(self, exchange: Exchange) -> tuple[str, ...]:
        """Credential and label headers to remove here, because attach mode has no inner listener that strips them."""
        prefix = self._label_prefix
        removed = [
            name
            for name in exchange.request.head.headers
            if name in _NEVER_SENT or (prefix is not None and name.startswith(prefix))
        ]
        if exchange.attached and self._kept is not None:
            removed += self._foreign(exchange, self._kept)
        return tuple(dict.fromkeys(removed))

    def _foreign(self, exchange: Exchange, kept: Patterns) -> list[str]:
        """Client headers that are neither in `kept` nor accepted by every possible provider."""
        lists = [self._passed[target.provider] for target in exchange.route.targets]
        return [
            name
            for name in exchange.request.head.headers
            if not kept(name) and not all(passed(name) for passed in lists)
        ]


class Shed:
    """Frees a large body after forwarding. Until the exchange ends, only its size and a sample of its text are
    needed.
    """

    def __call__(self, exchange: Exchange) -> None:
        ask, size = exchange.request.ask, len(exchange.request.body)
        if not ask.free and not ask.file_bytes:
            exchange.request.seen = Sample(without(exchange.request.body, ask.image_data))
        exchange.request.shed = size
        exchange.request.body, exchange.request.json = b"", {}
        exchange.request.ask.image_data.clear()
        if exchange.request.place is not None:
            exchange.request.place.resize(0)


def _service(exchange: Exchange, target: Target, fields: Mapping[str, Any]) -> Service | None:
    """The service that rewrites the request for the target; None if a request with these `fields` needs no rewrite."""
    adaptation, request = target.adaptation, exchange.request
    if adaptation.needed is None or adaptation.needed({**request.json, **fields}, request.ask.needs):
        return adaptation.service
    return None


def _share_out(edits: Sequence[Edit], exchange: Exchange) -> tuple[Edit, Mapping[str, str]]:
    """The edits to make now, and the headers with the tries' remaining edits."""
    first, name = edits[0], exchange.request.dialect.fields.model
    if exchange.request.dialect.offers.stored.unnamed:
        return first, {}
    if name is not None and not [edit for edit in edits if len(edit.fields) > 1 or edit.removed or edit.service]:
        return first, _names_only(name, tuple([edit.fields[name] for edit in edits]))
    left = [_difference(first, edit, exchange) for edit in edits]
    if not any(edit.fields or edit.removed or edit.service for edit in left):
        return first, {}
    which = contract.ATTEND_LATER if first.service is None else contract.ATTEND_ALL
    value = contract.encode_edits(left)
    if len(value) > _MAX_EDITS:
        first, which, value = Edit({}), contract.ATTEND_ALL, contract.encode_edits(edits)
    headers = {contract.ATTEND: which, contract.EDITS: value}
    if any(edit.service is not None for edit in edits):
        headers[contract.DIALECT] = exchange.request.dialect.name
    return first, headers


@lru_cache(maxsize=4096)
def _names_only(name: str, models: tuple[str, ...]) -> Mapping[str, str]:
    """Headers for tries that differ only in the model's name, in the field `name`."""
    if len(set(models)) == 1:
        return {}
    edits = [Edit({} if model == models[0] else {name: model}) for model in models]
    return {contract.ATTEND: contract.ATTEND_LATER, contract.EDITS: contract.encode_edits(edits)}


def _difference(done: Edit, wanted: Edit, exchange: Exchange) -> Edit:
    """The edit from a body changed by `done` to the client's body changed by `wanted`."""
    fields = {
        name: value
        for name, value in wanted.fields.items()
        if name not in done.fields or not _same(done.fields[name], value)
    }
    removed = [name for name in wanted.removed if name not in done.removed]
    before = contract.changed(exchange.request.json, exchange.request.edits)
    for name in (*done.fields, *done.removed):
        if name in wanted.fields or name in wanted.removed:
            continue
        holder, key = contract.place(before, name)
        if key in holder:
            fields[name] = holder[key]
        else:
            removed.append(name)
    return Edit(fields, removed, wanted.service)


def _same(one: Any, other: Any) -> bool:
    """Equality in JSON, where 1 differs from true."""
    return one == other and (type(one) is type(other) is str or _encode(one) == _encode(other))

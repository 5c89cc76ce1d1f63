"""Classify, Admit and Parse: the API by path, room for the request, and the meaning of its body."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from extproc.dialects import (
    NOT_FORWARDED,
    WRAPPER,
    Finder,
    _objects,
    by_path,
    client_apis,
    is_name,
    models_paths,
    speaking,
)
from extproc.exchange.admission import too_large
from extproc.wire.framing.content_types import is_json
from extproc.wire.framing.json import InvalidJSON, parse_named
from extproc.wire.framing.multipart import InvalidFormError, boundary_of, fields_of, lone_file, parts_of
from extproc.wire.framing.names import Names, fold
from extproc.wire.framing.slices import SlicedReader
from extproc.words.api import ClientAPI
from extproc.words.dialect import Endpoint, Fields
from extproc.words.errors import (
    INVALID_JSON,
    INVALID_REQUEST,
    METHOD_NOT_ALLOWED,
    PATH_NOT_FOUND,
    UNSUPPORTED_ENCODING,
    Refusal,
)
from extproc.words.exchange import Exchange

_ODD = re.compile(r"[^\w/.:-].*", re.ASCII | re.DOTALL)
_MANY = 20_000
"""Values in a body, above which a thread interprets it: that work is pure Python."""

OWN_PATHS = {"/v1/usage": "usage", "/v1/budgets": "budgets"}
"""Operations on a consumer's own spending: path -> operation."""
QUARANTINE = "/v1/quarantine/"
"""Beginning of paths of quarantined tool results; the reference follows."""


class Classify:
    """Writes `dialect`, `endpoint` and `operation`. Refuses an unknown path with 404, a wrong method with 405, and a
    body other than JSON with 415. `quarantine`: tool results are kept.
    """

    def __init__(self, *, quarantine: bool = False) -> None:
        self._endpoints = Finder(client_apis().values())
        self._quarantine = quarantine

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request.head
        path = request.path.partition("?")[0]
        found = self._endpoints.find(path, request.headers)
        if found is None:
            exchange.request.dialect = speaking(path, request.headers)  # gives a refusal the shape of the client's API
            exchange.request.operation = "unknown"
            if listed_at(path) is not None and (":" not in path or request.method != "POST"):
                exchange.request.operation = "list_models"
                _check_method(request.method, ("GET", "HEAD"), path)
                return
            if path in OWN_PATHS:
                exchange.request.operation = OWN_PATHS[path]
                _check_method(request.method, ("GET",), path)
                return
            if self._quarantine and path.startswith(QUARANTINE):
                exchange.request.operation = "quarantine"
                _check_method(request.method, ("GET",), path)
                return
            if found_calls := self._endpoints.calls(path, request.headers):
                self._call(exchange, found_calls, path)
                return
            message = (
                f"The gateway does not serve {_short_path(path)!r}. It serves {self._paths()}; see docs/endpoints.md."
            )
            raise Refusal(PATH_NOT_FOUND, message)
        exchange.request.dialect, exchange.request.endpoint = found
        exchange.request.operation = exchange.request.endpoint.operation
        _check_method(request.method, ("POST",), path)
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            others = "" if exchange.attached else ", or compressed with gzip or zstd"  # Envoy decompresses these bodies
            raise Refusal(UNSUPPORTED_ENCODING, f"The body is compressed: send it without content-encoding{others}.")
        kind = request.headers.get("content-type", "application/json")
        if not is_json(kind) and not (exchange.request.dialect.endpoints.forms and boundary_of(kind)):
            other = " or a form ('multipart/form-data')" if exchange.request.dialect.endpoints.forms else ""
            message = f"The body must be JSON in UTF-8, with 'content-type: application/json'{other}."
            raise Refusal(UNSUPPORTED_ENCODING, message)

    def _call(self, exchange: Exchange, found: Mapping[str, tuple[ClientAPI, Endpoint]], path: str) -> None:
        """A call about an object that a provider keeps."""
        request = exchange.request.head
        exchange.request.dialect, endpoint = next(iter(found.values()))
        exchange.request.operation = endpoint.operation
        _check_method(request.method, tuple(found), path)
        exchange.request.dialect, exchange.request.endpoint = found[request.method]
        exchange.request.operation = exchange.request.endpoint.operation
        upload = exchange.request.dialect.offers.stored.upload
        takes_part = upload is not None and exchange.request.operation == upload.operation
        if not request.ended and request.length != 0 and not takes_part:
            raise Refusal(INVALID_REQUEST, f"{request.method} {path} takes no body.")

    def _paths(self) -> str:
        """Paths for a refusal, without those of calls about kept objects, which are too many."""
        return ", ".join([*sorted(by_path()), *models_paths(), *OWN_PATHS])


@dataclass(slots=True, frozen=True)
class BodyLimits:
    """Limits of a body: bytes, levels, values, and bytes of memory of one text with characters beyond Latin letters."""

    size: int
    depth: int
    nodes: int = 250_000
    text: int = 16 << 20


class Parse:
    """Writes `json` and `ask`. Refuses with 400 a body that two parsers could read differently."""

    def __init__(
        self,
        limits: BodyLimits,
        changed: Collection[str] = (),
        weigh: Callable[[Exchange, int], None] = lambda _exchange, _size: None,
        *,
        hosted: tuple[int, int] = (0, 0),
    ) -> None:
        self._limits = limits
        self._weigh = weigh
        self._hosted = hosted  # tokens held for input of hosted tools, and billed calls held for each tool
        # `changed` are fields that targets set or remove.
        self._names = {
            name: Names({*dialect.fields.relied_on, *NOT_FORWARDED, *changed}, NOT_FORWARDED)
            for name, dialect in client_apis().items()
        }
        self._inside = {name: Inside(dialect.fields) for name, dialect in client_apis().items()}
        self._objects = {name: _objects.names(dialect.offers.stored.objects) for name, dialect in client_apis().items()}

    def __call__(self, exchange: Exchange) -> None:
        self._check_size(exchange)
        if exchange.request.endpoint.id:
            self._part(exchange)
            return
        if exchange.request.dialect.endpoints.forms and (
            boundary := boundary_of(exchange.request.head.headers.get("content-type", ""))
        ):
            self._interpret(exchange, self._form(exchange, boundary), None)
            return
        try:
            tree, names = parse_named(exchange.request.body, self._limits.depth, self._limits.nodes)
        except InvalidJSON as error:
            raise Refusal(INVALID_JSON, str(error)) from None
        self._interpret(exchange, tree, names)

    def _part(self, exchange: Exchange) -> None:
        """Read a part of a file, see `Upload`."""
        request = exchange.request
        upload = request.dialect.offers.stored.upload
        assert upload is not None, "no other call has a body"
        request.json = {"file": lone_file(request.body, whole=upload.whole(request.head.headers))}
        self.read(exchange)

    def _form(self, exchange: Exchange, boundary: bytes) -> dict[str, Any]:
        """Fields of a form. Names such as `model[]` are refused, because a server could take them for `model`."""
        body = exchange.request.body
        try:
            fields = fields_of(body, parts_of(body, boundary))
        except InvalidFormError as error:
            raise Refusal(INVALID_REQUEST, str(error)) from None
        relied = {fold(name) for name in exchange.request.dialect.fields.fixed}
        for name in fields:
            stem = re.split(r"[.\[\]]", name, maxsplit=1)[0]
            if stem != name and fold(stem) in relied:
                raise Refusal(INVALID_REQUEST, f"The form has the field {name!r}: write {stem!r}.", param=stem)
        return fields

    def _check_size(self, exchange: Exchange) -> None:
        body = exchange.request.body
        if len(body) > self._limits.size:
            raise too_large(self._limits.size)
        if not body:
            raise Refusal(INVALID_JSON, "The request has no body: send JSON.")
        if len(body) != exchange.request.head.length:
            self._weigh(exchange, len(body))

    def _interpret(self, exchange: Exchange, tree: Any, met: Collection[str] | None) -> None:
        """Read the meaning of the body. `met` are the keys of all its objects, if known."""
        if not isinstance(tree, dict):
            raise Refusal(INVALID_REQUEST, "The body must be a JSON object.")
        if (spelled := exchange.request.dialect.offers.naming.spelled(tree)) is not tree:
            tree, exchange.request.masked = spelled, True
            exchange.request.body = msgspec.json.encode(tree)
            met = None
        names, objects = self._names[exchange.request.dialect.name], self._objects[exchange.request.dialect.name]
        exchange.route.kept.named = met is None or not objects.isdisjoint(met)
        self._inside[exchange.request.dialect.name].check(tree, met)
        if isinstance(wrapped := tree.get(WRAPPER), dict):
            names.refuse(wrapped, f"'{WRAPPER}'")
        if not names.usual(tree):
            names.check(tree)
            if not tree.keys().isdisjoint(NOT_FORWARDED):
                exchange.request.ignored = tuple([name for name in tree if name in NOT_FORWARDED])
                tree = {name: value for name, value in tree.items() if name not in NOT_FORWARDED}
        if exchange.request.endpoint.alias:
            tree = self._named_by_path(exchange, tree)
        exchange.request.json = tree
        self.read(exchange)

    def read(self, exchange: Exchange) -> None:
        """Write `ask`, the meaning of `json`. Raises Refusal."""
        ask = exchange.request.ask = exchange.request.dialect.read(exchange.request.json, exchange.request.endpoint)
        tokens, calls = self._hosted
        ask.hosted_tokens, ask.hosted_calls = ask.requests * tokens, ask.requests * calls

    def _named_by_path(self, exchange: Exchange, tree: dict[str, Any]) -> dict[str, Any]:
        """The body with the path's model, if the path names one."""
        model, name = exchange.request.endpoint.model, exchange.request.dialect.fields.model
        if not model or name is None or tree.get(name) == model:
            return tree
        exchange.request.edits[name] = model
        return {**tree, name: model}


class ParseLarge(Parse):
    """`Parse` for a large body: in slices, with a turn for other requests after each. Stops when Envoy ends the
    request.
    """

    async def __call__(self, exchange: Exchange) -> None:  # type: ignore[override]
        if exchange.request.endpoint.id or (
            exchange.request.dialect.endpoints.forms
            and boundary_of(exchange.request.head.headers.get("content-type", ""))
        ):
            super().__call__(exchange)
            return
        self._check_size(exchange)
        try:
            reader = await read_in_turns(exchange.request.body, self._limits)
        except InvalidJSON as error:
            raise Refusal(INVALID_JSON, str(error)) from None
        if reader.nodes > _MANY:
            await asyncio.to_thread(self._interpret, exchange, reader.root, reader.names)
        else:
            self._interpret(exchange, reader.root, reader.names)


async def read_in_turns(body: bytes, limits: BodyLimits) -> SlicedReader:
    """A reader of the whole `body`; other requests have a turn after each slice. Raises InvalidJSON."""
    reader = SlicedReader(body, depth=limits.depth, nodes=limits.nodes, text=limits.text)
    await asyncio.sleep(0)
    for _ in reader.read():
        await asyncio.sleep(0)
    return reader


_DEEPER = (dict, list)


class Inside:
    """`Names` for fields inside those that the gateway relies on: roles, contents, options of streams."""

    def __init__(self, fields: Fields) -> None:
        self._names = Names(fields.inside)
        self._below, self._data = fields.relied_on if fields.inside else frozenset(), fields.data

    def check(self, tree: Mapping[str, Any], met: Collection[str] | None = None) -> None:
        """Refuse another spelling of a known field with 400. `met`, the keys of the whole body, saves most walks."""
        names, data = self._names, self._data
        if met is not None and (names.usual(met) or names.twin(met) is None):
            return
        waiting = [tree[name] for name in self._below & tree.keys()]
        while waiting:
            node = waiting.pop()
            kind = type(node)
            if kind is list:
                waiting += [item for item in node if type(item) in _DEEPER]
            elif kind is dict:
                names.check(node)
                waiting += [value for name, value in node.items() if type(value) in _DEEPER and name not in data]


def _short_path(path: str) -> str:
    """An unknown path, shortened for its refusal."""
    return _ODD.sub("", path)[:120]


def listed_at(path: str) -> str | None:
    """The model id in `/v1/models/{id}`; empty for the list, None for another path. The id may have slashes, plain or
    escaped, but no empty, `.` or `..` segment.
    """
    for base in models_paths():
        if path == base:
            return ""
        name = unquote(path.removeprefix(base + "/"))
        if path.startswith(base + "/") and is_name(name):
            return name
    return None


def _check_method(method: str, allowed: tuple[str, ...], path: str) -> None:
    if method not in allowed:
        headers = {"allow": ", ".join(allowed)}
        shown = " and ".join(allowed) if len(allowed) > 1 and "HEAD" not in allowed else allowed[0]
        raise Refusal(METHOD_NOT_ALLOWED, f"The path {path} takes {shown} only.", headers=headers)

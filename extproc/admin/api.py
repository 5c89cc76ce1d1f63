"""The admin API: spending, budgets, grants, recent exchanges, and the console that shows them.

`openapi.py` describes it. Every error is `{"error": {"message", "code"}}`.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from extproc.admin import answers
from extproc.admin.guard import JSON, Guard, failure
from extproc.admin.openapi import Operation, parameters, usage_parameters
from extproc.admin.openapi import document as describe
from extproc.admin.sources import SourceError, Sources

MAX_PARAMETERS = 256  # parameters of one query
MAX_BODY = 64 << 10  # bytes
_SLOWEST = 10.0  # seconds for a body to arrive
_UNSEEN = " \n\u00a0\u200b\u3000\ufeff"  # characters before the first one that shows
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet would compute

_NUMBERS = answers.Numbers.__struct_fields__


def admin_app(sources: Sources, token: str | None) -> ASGIApp:
    """The API and the console over `sources`. Without a token it answers only to names of loopback."""
    app = Starlette(
        routes=ROUTES,
        exception_handlers={
            SourceError: _source_error,
            HTTPException: _http_error,
            ClientDisconnect: _disconnected,
            Exception: _bug,
        },
    )
    app.router.redirect_slashes = False
    app.state.sources = sources
    return Guard(app, token)


def _sources(request: Request) -> Sources:
    found: Sources = request.app.state.sources
    return found


def _json(kind: type[Any], found: Any, status: int = 200, *, row: type[Any] | None = None) -> Response:
    """An answer of its type, as the description promises. Fields that the type does not have are left out.

    Long lists are converted `row` by row: 10,000 at once would keep the event loop from the interpreter for 60 ms.
    """
    if row is not None:
        found = {**found, "data": [msgspec.convert(one, row) for one in found["data"]]}
    return JSON(msgspec.convert(found, kind), status)


# --- reading


def usage(request: Request) -> Response:
    parameters = request.query_params.multi_items()
    if len(parameters) > MAX_PARAMETERS:
        return failure(400, f"at most {MAX_PARAMETERS} parameters")
    formats = [value for name, value in parameters if name == "format"]
    if len(formats) > 1 or not set(formats) <= {"json", "csv"}:
        return failure(400, "format must be json or csv")
    wanted = formats[0] if formats else "csv" if "text/csv" in request.headers.get("accept", "") else "json"
    try:
        report = _sources(request).usage([(name, value) for name, value in parameters if name != "format"])
    except ValueError as error:
        return failure(400, str(error))
    if wanted == "json":
        return _json(answers.Usage, report, row=answers.UsageRow)
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    content = as_csv(report).encode(errors="backslashreplace")
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def as_csv(report: Mapping[str, Any]) -> str:
    """The rows of a usage report. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    fields: Sequence[str] = report["group_by"]
    writer.writerow([_cell(name) for name in ("start", "end", *fields, *_NUMBERS)])
    for row in report["data"]:
        group = [row["group"].get(name) for name in fields]
        writer.writerow([_cell(value) for value in (row["start"], row["end"], *group, *(row[n] for n in _NUMBERS))])
    return out.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    bare = text.lstrip(" \n")
    # Spreadsheets of some languages compute the full-width and small forms of the signs too.
    folded = unicodedata.normalize("NFKC", text.lstrip(_UNSEEN)[:1])
    return f"'{text}" if bare.startswith(_FORMULA) or folded.startswith(_FORMULA) else text


def budgets(request: Request) -> Response:
    return _json(answers.Budgets, _sources(request).budgets(None))


def budget(request: Request) -> Response:
    return _json(answers.Budgets, _sources(request).budgets(request.path_params["name"]))


def exchanges(request: Request) -> Response:
    given = dict(request.query_params)
    if len(given) != len(request.query_params.multi_items()):
        return failure(400, "each parameter once")
    if not given.get("limit", "100").isdecimal():  # msgspec takes 1e3 too
        return failure(400, "limit: a whole number")
    try:
        query = msgspec.convert(given, answers.ExchangesQuery, strict=False)
    except msgspec.ValidationError as error:
        return failure(400, _plain(error))
    filters = {name: given[name] for name in given if name != "limit"}
    found = list(_sources(request).exchanges(query.limit, filters))
    return _json(answers.Exchanges, {"object": "list", "data": found}, row=answers.Exchange)


def exchange(request: Request) -> Response:
    found = _sources(request).exchange(request.path_params["id"])
    return failure(404, "no exchange has that id") if found is None else _json(answers.Exchange, found)


def providers(request: Request) -> Response:
    return _json(answers.Providers, {"object": "list", "data": _sources(request).providers()})


def _plain(error: Exception) -> str:
    """The text of msgspec about a value, with its name in front: `limit: expected ...`."""
    message, _, path = str(error).partition(" - at `$.")
    return f"{path.removesuffix('`')}: {message[0].lower()}{message[1:]}" if path else message


# --- grants


async def grants(request: Request) -> Response:
    sources = _sources(request)
    if request.method != "POST":
        found = list(await run_in_threadpool(sources.grants))
        return _json(answers.Grants, {"object": "list", "data": found})
    body = await _body(request)
    try:
        asked = msgspec.json.decode(body, type=answers.NewGrant)
        wanted = msgspec.structs.asdict(asked) | {"amount": Decimal(asked.amount)}
        given = await run_in_threadpool(sources.grant, wanted)
    except (ValueError, RecursionError) as error:
        return failure(400, _plain(error))
    return _json(answers.Grant, given, 201)


def grant(request: Request) -> Response:
    id = request.path_params["id"]
    return Response(status_code=204) if _sources(request).revoke(id) else failure(404, "no grant has that id")


# --- the cache of answers


def cached(request: Request) -> Response:
    return _json(answers.Cache, _sources(request).cache())


async def forget(request: Request) -> Response:
    body = await _body(request)
    try:
        asked = msgspec.json.decode(body, type=answers.Forget)
    except (ValueError, RecursionError) as error:
        return failure(400, _plain(error))
    count = await run_in_threadpool(_sources(request).forget, asked.consumer)
    return _json(answers.Forgotten, {"deleted": count})


async def _body(request: Request) -> bytes:
    """The body, whose length must match its Content-Length. Raises HTTPException."""
    length = request.headers.get("content-length")
    if length is None:
        raise HTTPException(411, "send a body with its Content-Length")
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BODY:
        raise HTTPException(413, f"a body is at most {MAX_BODY} bytes")
    body = b""
    try:
        async with asyncio.timeout(_SLOWEST):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise HTTPException(413, f"a body is at most {MAX_BODY} bytes")
    except TimeoutError:
        raise HTTPException(408, f"a body arrives within {_SLOWEST:.0f} seconds") from None
    return body


# --- the page and the description


def openapi(_request: Request) -> Response:
    return JSON(document())


def console(_request: Request) -> Response:
    return HTMLResponse(_CONSOLE, headers={"content-security-policy": _CONSOLE_POLICY})


def _policy(page: str) -> str:
    """A policy that runs only the page's own script and style, by their hashes, and lets it connect only to this
    server.
    """

    def hashes(tag: str) -> str:
        [source] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_CONSOLE = Path(__file__).with_name("console.html").read_text(encoding="utf-8")
_CONSOLE_POLICY = _policy(_CONSOLE)

_STORE = (503,)
_CHANGE = (403, *_STORE)

OPERATIONS = (
    Operation("GET", "/", console, "The console", media="text/html", open=True),
    Operation("GET", "/openapi.json", openapi, "This description", media="application/json", open=True),
    Operation(
        *("GET", "/usage", usage, "Spending: a row for each group and time", answers.Usage),
        media="text/csv",
        errors=_STORE,
        parameters=usage_parameters(),
    ),
    Operation("GET", "/budgets", budgets, "All budgets and the room left in them", answers.Budgets, errors=_STORE),
    Operation("GET", "/budgets/{name}", budget, "One budget, in a list", answers.Budgets, errors=(404, *_STORE)),
    Operation("GET", "/grants", grants, "The grants that still count", answers.Grants, errors=_STORE),
    Operation(
        *("POST", "/grants", grants, "Give one scope room beyond its budget's limit", answers.Grant, 201),
        errors=(404, 409, 411, 413, 415, *_CHANGE),
        body=answers.NewGrant,
        name="grant",
    ),
    Operation("DELETE", "/grants/{id}", grant, "Take a grant back", status=204, errors=(404, *_CHANGE), name="revoke"),
    Operation("GET", "/cache", cached, "Size of the cache of answers", answers.Cache, errors=(404, *_STORE)),
    Operation(
        *("POST", "/cache/forget", forget, "Delete kept answers, a consumer's or all", answers.Forgotten),
        errors=(404, 411, 413, 415, *_CHANGE),
        body=answers.Forget,
    ),
    Operation(
        *("GET", "/exchanges", exchanges, "Recent exchanges, the latest first", answers.Exchanges),
        errors=_STORE,
        parameters=parameters(answers.ExchangesQuery),
    ),
    Operation(
        *("GET", "/exchanges/{id}", exchange, "By its id or x-request-id", answers.Exchange), errors=(404, *_STORE)
    ),
    Operation(
        "GET",
        "/providers",
        providers,
        "Speed, failures and cool-down of each model at its provider",
        answers.Providers,
        errors=_STORE,
    ),
)


@cache
def document() -> Mapping[str, Any]:
    """The OpenAPI description, served at `/openapi.json`."""
    return describe(OPERATIONS)


def _routes() -> Sequence[Route]:
    methods: dict[str, list[str]] = {}
    handlers = {operation.path: operation.handler for operation in OPERATIONS}
    for operation in OPERATIONS:
        methods.setdefault(operation.path, []).append(operation.method)
    return [Route(path, handlers[path], methods=methods[path]) for path in handlers]


ROUTES = _routes()


# --- errors


def _source_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SourceError)
    return failure(error.status, error.message)


def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "there is nothing at this path", 405: "this path does not know this method"}
    return failure(error.status_code, messages.get(error.status_code, error.detail), **dict(error.headers or {}))


def _disconnected(_request: Request, _error: Exception) -> Response:
    return failure(400, "the body ended early")


def _bug(_request: Request, _error: Exception) -> Response:
    return failure(500, "this is a bug of the gateway; its log has the details")

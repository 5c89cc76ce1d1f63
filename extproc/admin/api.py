"""The admin API: who spent what, what is left of budgets, recent exchanges, and the console that shows them.

`openapi.py` describes it. Every error is `{"error": {"message", "code"}}`.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from extproc.admin.guard import JSON, Guard, failure
from extproc.admin.openapi import document
from extproc.admin.sources import EXCHANGE_FILTERS, SourceError, Sources
from extproc.ledger import OUTCOMES

MAX_LISTED = 1000
MAX_PARAMETERS = 256  # of one query
MAX_BODY = 64 << 10  # bytes
_SLOWEST = 10.0  # seconds for a body to arrive
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute

_NUMBERS = (
    *("requests", "refused", "errors"),
    *("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("cost_usd", "unpriced"),
)


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /grants` takes."""

    budget: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
    scope: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,2048}\Z")]
    amount: Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?\Z")]
    expires_in: Annotated[float, msgspec.Meta(ge=1, le=366 * 86400)] | None = None


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
        return JSON(report)
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
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA) else text


def budgets(request: Request) -> Response:
    return JSON(_sources(request).budgets(None))


def budget(request: Request) -> Response:
    return JSON(_sources(request).budgets(request.path_params["name"]))


def exchanges(request: Request) -> Response:
    filters = dict(request.query_params)
    if len(filters) != len(request.query_params.multi_items()) or not filters.keys() <= {"limit", *EXCHANGE_FILTERS}:
        return failure(400, f"send only these parameters, each once: limit, {', '.join(EXCHANGE_FILTERS)}")
    limit = filters.pop("limit", "100")
    if not re.fullmatch("[1-9][0-9]{0,3}", limit) or int(limit) > MAX_LISTED:
        return failure(400, f"limit must be a number from 1 to {MAX_LISTED}")
    if not re.fullmatch("[0-9]{1,3}", filters.get("status", "200")):
        return failure(400, "status must be a number of up to three digits")
    if filters.get("outcome", "ok") not in OUTCOMES:
        return failure(400, f"outcome must be one of {', '.join(OUTCOMES)}")
    return JSON({"object": "list", "data": list(_sources(request).exchanges(int(limit), filters))})


def exchange(request: Request) -> Response:
    found = _sources(request).exchange(request.path_params["id"])
    return failure(404, "no exchange has that id") if found is None else JSON(found)


def providers(request: Request) -> Response:
    return JSON({"object": "list", "data": _sources(request).providers()})


# --- grants


async def grants(request: Request) -> Response:
    sources = _sources(request)
    if request.method != "POST":
        return JSON({"object": "list", "data": list(await run_in_threadpool(sources.grants))})
    body = await _body(request)
    try:
        asked = msgspec.json.decode(body, type=GrantBody)
        amount = Decimal(asked.amount)
        if not amount:
            return failure(400, "amount must be more than 0")
        return JSON(await run_in_threadpool(sources.grant, msgspec.structs.asdict(asked) | {"amount": amount}), 201)
    except (ValueError, RecursionError) as error:
        return failure(400, str(error))


def grant(request: Request) -> Response:
    id = request.path_params["id"]
    return Response(status_code=204) if _sources(request).revoke(id) else failure(404, "no grant has that id")


async def _body(request: Request) -> bytes:
    """The body, which says its length and keeps to it. Raises HTTPException."""
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
    """Nothing runs but the page's own script and style, by their hashes; it talks to nobody but this server."""

    def hashes(tag: str) -> str:
        [source] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_CONSOLE = Path(__file__).with_name("console.html").read_text(encoding="utf-8")
_CONSOLE_POLICY = _policy(_CONSOLE)

ROUTES = [
    Route("/", console),
    Route("/openapi.json", openapi),
    Route("/usage", usage),
    Route("/budgets", budgets),
    Route("/budgets/{name}", budget),
    Route("/grants", grants, methods=["GET", "POST"]),
    Route("/grants/{id}", grant, methods=["DELETE"]),
    Route("/exchanges", exchanges),
    Route("/exchanges/{id}", exchange),
    Route("/providers", providers),
]


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

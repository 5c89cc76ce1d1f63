"""The admin API: spending, budgets, grants, recent exchanges, and the console that shows them.

`openapi.py` describes it. Every error is `{"error": {"message", "code"}}`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from extproc.operate.admin import answers, desk
from extproc.operate.admin.failures import Failures
from extproc.operate.admin.guard import JSON, Guard, failure, principal
from extproc.operate.admin.handling import answer_of, body_of, plain, query_of, sources_of, tell
from extproc.operate.admin.openapi import Operation, labels_parameter, parameters, usage_parameters
from extproc.operate.admin.openapi import document as describe
from extproc.operate.admin.sources import Desk, SourceError, Sources
from extproc.wire.framing import shapes

if TYPE_CHECKING:
    from extproc.settings.signon import OIDCSettings
    from extproc.words.values import Secret

MAX_PARAMETERS = 256  # parameters of one query
_UNSEEN = " \n\u00a0\u200b\u3000\ufeff"  # characters before the first one that shows
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet would compute

_NUMBERS = answers.Numbers.__struct_fields__


def admin_app(
    sources: Sources,
    token: str | Callable[[], str | None] | None,
    operators: Desk | None = None,
    oidc: OIDCSettings | None = None,
    given: Sequence[Secret] = (),
    *,
    failures: Failures | None = None,
) -> ASGIApp:
    """The API and the console over `sources` and `operators`. Without token and sign-on it answers only to names of
    loopback. `given`: secrets that, with the client's, sign sessions. Without `failures` wrong tokens have no limit.
    """
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
    app.state.desk = operators
    app.state.signon = sign_on = None
    if oidc is not None:
        if operators is None:  # never open without it
            raise ValueError("sign-on needs the operators' desk")
        from extproc.operate.admin.signon import SignOn  # noqa: PLC0415 - its library takes 4 MB

        app.state.signon = sign_on = SignOn(oidc, operators, given)
    return Guard(app, token, None if sign_on is None else sign_on.find, "" if oidc is None else oidc.url, failures)


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
        report = sources_of(request).usage([(name, value) for name, value in parameters if name != "format"])
    except ValueError as error:
        return failure(400, str(error))
    if wanted == "json":
        return answer_of(answers.Usage, report, row=answers.UsageRow)
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    content = as_csv(report).encode(errors="backslashreplace")
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def latency(request: Request) -> Response:
    return _asked(request, sources_of(request).latency, answers.Latencies, answers.Latency)


def findings(request: Request) -> Response:
    listed = lambda given: {"object": "list", "data": list(sources_of(request).findings(given))}  # noqa: E731
    return _asked(request, listed, answers.Findings, answers.Finding)


def _asked(
    request: Request, ask: Callable[[Sequence[tuple[str, str]]], Any], kind: type[Any], row: type[Any]
) -> Response:
    """The answer to a question with the parameters of a report."""
    parameters = request.query_params.multi_items()
    if len(parameters) > MAX_PARAMETERS:
        return failure(400, f"at most {MAX_PARAMETERS} parameters")
    try:
        return answer_of(kind, ask(parameters), row=row)
    except ValueError as error:
        return failure(400, str(error))


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
    return answer_of(answers.Budgets, sources_of(request).budgets(None))


def stores(request: Request) -> Response:
    return answer_of(answers.Stores, sources_of(request).stores())


def budget(request: Request) -> Response:
    return answer_of(answers.Budgets, sources_of(request).budgets(request.path_params["name"]))


def exchanges(request: Request) -> Response:
    query = query_of(request, answers.ExchangesQuery, labels=True)
    if isinstance(query, Response):
        return query
    try:
        found = list(sources_of(request).exchanges(request.query_params.multi_items()))
    except ValueError as error:
        return failure(400, str(error))
    return answer_of(answers.Exchanges, {"object": "list", "data": found}, row=answers.Exchange)


def exchange(request: Request) -> Response:
    found = sources_of(request).exchange(request.path_params["id"])
    return failure(404, "no exchange has that id") if found is None else answer_of(answers.Exchange, found)


def tools(request: Request) -> Response:
    query = query_of(request, answers.ToolsQuery)
    if isinstance(query, Response):
        return query
    found = sources_of(request).tools(definitions=query.definitions == "true")
    return answer_of(answers.ToolServers, {"object": "list", "data": found})


def providers(request: Request) -> Response:
    return answer_of(answers.Providers, {"object": "list", "data": sources_of(request).providers()})


# --- grants


async def grants(request: Request) -> Response:
    sources = sources_of(request)
    if request.method != "POST":
        found = list(await run_in_threadpool(sources.grants))
        return answer_of(answers.Grants, {"object": "list", "data": found})
    body = await body_of(request)
    try:
        asked = shapes.decode(body, answers.NewGrant)
        wanted = msgspec.structs.asdict(asked) | {"amount": Decimal(asked.amount)}
        given = await run_in_threadpool(sources.grant, wanted)
    except (ValueError, RecursionError) as error:
        return failure(400, plain(error))
    tell(request, **{name: given[name] for name in ("id", "budget", "scope", "amount", "expires_at")})
    return answer_of(answers.Grant, given, 201)


def grant(request: Request) -> Response:
    id = request.path_params["id"]
    return Response(status_code=204) if sources_of(request).revoke(id) else failure(404, "no grant has that id")


# --- the cache of answers


def cached(request: Request) -> Response:
    return answer_of(answers.Cache, sources_of(request).cache())


def similar(request: Request) -> Response:
    return answer_of(answers.SimilarQuestions, {"object": "list", "data": sources_of(request).similar()})


async def forget(request: Request) -> Response:
    body = await body_of(request)
    try:
        asked = shapes.decode(body, answers.Forget)
    except (ValueError, RecursionError) as error:
        return failure(400, plain(error))
    count = await run_in_threadpool(sources_of(request).forget, asked.consumer)
    tell(request, deleted=count)  # without the name, which may be the reason
    return answer_of(answers.Forgotten, {"deleted": count})


# --- the ledger


async def forget_consumer(request: Request) -> Response:
    body = await body_of(request)
    try:
        asked = shapes.decode(body, answers.ForgetConsumer)
    except (ValueError, RecursionError) as error:
        return failure(400, plain(error))
    done = await run_in_threadpool(sources_of(request).forget_consumer, asked.consumer, delete=asked.delete)
    tell(request, deleted=asked.delete, **done)  # without the name
    return answer_of(answers.ForgottenConsumer, done)


def export(request: Request) -> Response:
    query = query_of(request, answers.ExportQuery)
    if isinstance(query, Response):
        return query
    before = None if query.before is msgspec.UNSET else query.before
    rows = sources_of(request).export(query.consumer, before, query.limit)
    tell(request, consumer=query.consumer, rows=len(rows))
    lines = b"".join(b"%b\n" % bytes(JSON(row).body) for row in rows)
    return Response(lines, media_type="application/jsonl")


async def rebuild(request: Request) -> Response:
    body = await body_of(request)
    try:
        shapes.decode(body, answers.Nothing)
    except (ValueError, RecursionError) as error:
        return failure(400, plain(error))
    await run_in_threadpool(sources_of(request).rebuild)
    return Response(status_code=204)


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

OPERATIONS = (
    Operation("GET", "/", console, "The console", media="text/html", open=True),
    Operation("GET", "/openapi.json", openapi, "This description", media="application/json", open=True),
    Operation(
        *("GET", "/usage", usage, "Spending: a row for each group and time", answers.Usage),
        media="text/csv",
        errors=_STORE,
        parameters=usage_parameters(),
    ),
    Operation(
        *("GET", "/latency", latency, "How long answers took: a row for each group and time", answers.Latencies),
        errors=_STORE,
        parameters=usage_parameters(format=False),
    ),
    Operation(
        *("GET", "/findings", findings, "Findings of guardrails, the most frequent first", answers.Findings),
        errors=_STORE,
        parameters=usage_parameters(format=False),
    ),
    Operation("GET", "/budgets", budgets, "All budgets and the room left in them", answers.Budgets, errors=_STORE),
    Operation("GET", "/budgets/{name}", budget, "One budget, in a list", answers.Budgets, errors=(404, *_STORE)),
    Operation(
        *("GET", "/stores", stores, "Whether counters and ledger can be written, tried", answers.Stores),
        errors=_STORE,
        role="operator",  # it writes
    ),
    Operation("GET", "/grants", grants, "The grants that still count", answers.Grants, errors=_STORE),
    Operation(
        *("POST", "/grants", grants, "Give one scope room beyond its budget's limit", answers.Grant, 201),
        errors=(404, 409, 411, 413, 415, *_STORE),
        body=answers.NewGrant,
        name="grant",
        role="operator",
    ),
    Operation(
        *("DELETE", "/grants/{id}", grant, "Take a grant back"),
        status=204,
        errors=(404, *_STORE),
        name="revoke",
        role="operator",
    ),
    Operation(
        "GET",
        "/auth/login",
        desk.login,
        "Sign on: to the identity provider",
        status=302,
        errors=(404, 429, 503),
        open=True,
    ),
    Operation(
        *("GET", "/auth/callback", desk.callback, "Sign on: back from the identity provider"),
        status=302,
        errors=(404,),
        parameters=parameters(answers.CallbackQuery),
        open=True,
    ),
    Operation(
        *("POST", "/auth/logout", desk.logout, "End the session"),
        status=204,
        errors=(404, 411, 413, 415),
        body=answers.Nothing,
        name="sign_out",
    ),
    Operation("GET", "/me", desk.me, "The operator who asks, the listener, stale settings", answers.Me),
    Operation(
        "GET", "/keys", desk.keys, "Gateway keys, without the keys themselves", answers.Keys, errors=(404, *_STORE)
    ),
    Operation(
        *("POST", "/keys", desk.keys, "Make a gateway key", answers.IssuedKey, 201),
        errors=(404, 409, 411, 413, 415, *_STORE),
        body=answers.NewKey,
        name="issue_key",
        role="operator",
    ),
    Operation(
        *("DELETE", "/keys/{id}", desk.key, "Revoke a gateway key"),
        status=204,
        errors=(404, *_STORE),
        name="revoke_key",
        role="operator",
    ),
    Operation(
        *("GET", "/models", desk.models, "Names that clients may give, with targets and prices", answers.Models),
        errors=(404, *_STORE),
        parameters=parameters(answers.ModelsQuery),
    ),
    Operation(
        *(
            "POST",
            "/playground",
            desk.playground,
            "Send a chat request through the listener, with a key",
            answers.Played,
        ),
        errors=(404, 409, 411, 413, 415, *_STORE),
        body=answers.Play,
        role="operator",
    ),
    Operation(
        *("GET", "/audit", desk.audit, "Acts of operators, the latest first", answers.Trail),
        errors=(404, *_STORE),
        parameters=parameters(answers.TrailQuery),
        role="admin",
    ),
    Operation("GET", "/cache", cached, "Size of the cache of answers", answers.Cache, errors=(404, *_STORE)),
    Operation(
        *("GET", "/cache/similar", similar, "Questions in other words that met a kept one", answers.SimilarQuestions),
        errors=_STORE,
        role="operator",  # samples may show texts
    ),
    Operation(
        *("POST", "/cache/forget", forget, "Delete kept answers, a consumer's or all", answers.Forgotten),
        errors=(404, 411, 413, 415, *_STORE),
        body=answers.Forget,
        name="forget_answers",
        role="operator",
    ),
    Operation(
        *("POST", "/ledger/forget", forget_consumer, "Forget a consumer", answers.ForgottenConsumer),
        errors=(404, 411, 413, 415, *_STORE),
        body=answers.ForgetConsumer,
        role="admin",
    ),
    Operation(
        *("GET", "/ledger/export", export, "A consumer's rows, one JSON object a line"),
        media="application/jsonl",
        errors=_STORE,
        parameters=parameters(answers.ExportQuery),
        role="admin",
        audited=True,
    ),
    Operation(
        *("POST", "/ledger/rebuild", rebuild, "Make the sums of hours and days anew"),
        status=204,
        errors=(411, 413, 415, *_STORE),
        body=answers.Nothing,
        name="rebuild_sums",
        role="admin",
    ),
    Operation(
        *("GET", "/exchanges", exchanges, "Recent exchanges, the latest first", answers.Exchanges),
        errors=_STORE,
        parameters=[*parameters(answers.ExchangesQuery), labels_parameter()],
    ),
    Operation(
        *("GET", "/exchanges/{id}", exchange, "By its id or x-request-id", answers.Exchange), errors=(404, *_STORE)
    ),
    Operation(
        *("GET", "/tools", tools, "MCP servers and the state of their tools", answers.ToolServers),
        errors=(404, *_STORE),
        parameters=parameters(answers.ToolsQuery),
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
    paths: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _route(operations), methods=list(operations)) for path, operations in paths.items()]


def _route(operations: Mapping[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    """Answers a path's methods to operators of the role that each needs. Changes and audited reads are written into the
    audit trail.
    """

    async def answer(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        who = principal(request)
        if not who.may(operation.role):
            return failure(403, f"this needs the role {operation.role}: yours is {who.role}", code="role_missing")
        if iscoroutinefunction(operation.handler):
            found: Response = await operation.handler(request)
        else:
            found = await run_in_threadpool(operation.handler, request)
        trail: Desk | None = request.app.state.desk
        audited = operation.audited or operation.method != "GET"
        if audited and found.status_code < 400 and trail is not None:
            detail = {**request.path_params, **request.scope.get("told", {})}
            await run_in_threadpool(trail.record, who.name, who.role, operation.id, detail)
        return found

    return answer


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

"""The admin API: spending, budgets, grants, recent exchanges, and the console that shows them.

Each operation is a row of `OPERATIONS`; `openapi.py` describes them. Every error is `{"error": {"message", "code"}}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from extproc.cache.stores import CacheError
from extproc.money.ledger import LedgerError
from extproc.money.ledger.operators import TooManyKeysError
from extproc.operate.admin import (
    answers,
    comparison,
    exchanges,
    handlers,
    live,
    page,
    playing,
    questions,
    runs,
)
from extproc.operate.admin.failures import Failures
from extproc.operate.admin.guard import JSON, AdminGuard, failure, principal
from extproc.operate.admin.handling import answer_of, given, read_call
from extproc.operate.admin.openapi import Operation, usage_parameters
from extproc.operate.admin.openapi import document as describe
from extproc.operate.reports import ReportError
from extproc.operate.reports.desk import Desk
from extproc.operate.reports.reports import AdminReports
from extproc.stores import StoreError

if TYPE_CHECKING:
    from extproc.settings.signon import OIDCSettings
    from extproc.words.values import Secret


def admin_app(
    reports: AdminReports,
    token: str | Callable[[], str | None] | None,
    desk: Desk | None = None,
    oidc: OIDCSettings | None = None,
    given: Sequence[Secret] = (),
    *,
    failures: Failures | None = None,
) -> ASGIApp:
    """The API and the console over `reports` and `desk`. Without token and sign-on it answers only to loopback host
    names. `given` are secrets that sign sessions, together with the client's secret. Without `failures` wrong tokens
    have no limit.
    """
    files = page.file_routes()
    told = Route(live.PATH, live.Live(reports), methods=["GET"])
    app = Starlette(routes=[*ROUTES, told, *files], exception_handlers=dict.fromkeys((*_FAILURES, Exception), _failed))
    app.router.redirect_slashes = False
    app.state.reports = reports
    app.state.desk = desk
    app.state.signon = session = None
    if oidc is not None:
        if desk is None:  # without a desk the API stays closed
            raise ValueError("sign-on needs the operators' desk")
        from extproc.operate.admin.signon import SignOn  # noqa: PLC0415 - its library takes 4 MB

        app.state.signon = sign_on = SignOn(oidc, desk, given)
        session = sign_on.find
    address = "" if oidc is None else oidc.url
    open_paths = {*(operation.path for operation in OPERATIONS if operation.open), *(file.path for file in files)}
    return AdminGuard(app, token, session, address, failures=failures, open_paths=open_paths)


# --- the page and the description


def openapi(_call: object) -> Response:
    return JSON(document())


OPERATIONS = (
    Operation("GET", "/", "console", "The console", lambda _call: page.page(), media="text/html", open=True),
    Operation("GET", "/openapi.json", "openapi", "This description", openapi, media="application/json", open=True),
    Operation(
        *("GET", "/usage", "usage", "Spending: a row for each group and time", handlers.usage, answers.Usage),
        media="text/csv",
        parameters=usage_parameters(),
    ),
    Operation(
        *("GET", "/latency", "latency", "How long answers took: a row for each group and time"),
        *(handlers.latency, answers.Latencies),
        parameters=usage_parameters(format=False),
    ),
    Operation(
        *("GET", "/findings", "findings", "Findings of guardrails, the most frequent first"),
        *(handlers.findings, answers.Findings),
        parameters=usage_parameters(format=False),
    ),
    Operation(
        *("GET", "/budgets", "budgets", "All budgets and the room left in them"),
        *(lambda call: call.reports.budgets(None), answers.Budgets),
    ),
    Operation(
        *("GET", "/budgets/{name}", "budget", "One budget, in a list"),
        *(lambda call: call.reports.budgets(call.named), answers.Budgets),
    ),
    Operation(
        *("POST", "/budgets/{name}/reset", "reset_count", "Begin a count anew in its window"),
        *(handlers.reset, questions.ResetCount),
        body=questions.Reset,
        role="admin",  # a reset gives room without a grant's bounds
    ),
    Operation(
        *("GET", "/questions", "questions", "Requests that wait for an operator, the latest first"),
        *(handlers.asked, questions.Questions),
    ),
    Operation(
        *("POST", "/questions/{id}", "decide", "Approve or deny a request that waits"),
        *(handlers.decide, questions.Question),
        errors=(409,),
        body=questions.Decision,
        role="operator",
    ),
    Operation(
        *("POST", "/sign-ins/end", "end_sign_in", "Forget a user's tokens at an MCP server"),
        *(handlers.end_sign_in, questions.SignIn),
        body=questions.SignIn,
        role="operator",
    ),
    Operation(
        *("GET", "/stores", "stores", "Whether counters and ledger can be written, tried"),
        *(lambda call: call.reports.stores(), answers.Stores),
        role="operator",  # the operation writes
    ),
    Operation(
        *("GET", "/grants", "grants", "The grants that still count"),
        *(lambda call: call.reports.grants(), answers.Grants),
    ),
    Operation(
        *("POST", "/grants", "grant", "Give one scope room beyond its budget's limit"),
        *(handlers.grant, answers.Grant, 201),
        errors=(404, 409),
        body=answers.NewGrant,
        role="operator",
    ),
    Operation("DELETE", "/grants/{id}", "revoke", "Take a grant back", handlers.revoke, status=204, role="operator"),
    Operation(
        *("GET", "/auth/login", "login", "Sign on: to the identity provider", handlers.login),
        status=302,
        errors=(404, 429, 503),
        open=True,
    ),
    Operation(
        *("GET", "/auth/callback", "callback", "Sign on: back from the identity provider", handlers.callback),
        status=302,
        errors=(404,),
        query=answers.CallbackQuery,
        open=True,
    ),
    Operation(
        *("POST", "/auth/logout", "sign_out", "End the session", handlers.sign_out),
        status=204,
        errors=(404,),
        body=answers.Nothing,
    ),
    Operation("GET", "/me", "me", "The operator who asks, the listener, stale settings", handlers.me, answers.Me),
    Operation(
        *("GET", "/keys", "keys", "Gateway keys, without the keys themselves"),
        *(lambda call: call.desk.keys(), answers.Keys),
        errors=(404,),
    ),
    Operation(
        *("POST", "/keys", "issue_key", "Make a gateway key", handlers.issue_key, answers.IssuedKey, 201),
        errors=(404, 409),
        body=answers.NewKey,
        role="operator",
    ),
    Operation(
        *("DELETE", "/keys/{id}", "revoke_key", "Revoke a gateway key", handlers.revoke_key),
        status=204,
        role="operator",
    ),
    Operation(
        *("GET", "/models", "models", "Names that clients may give, with targets and prices"),
        *(lambda call: call.desk.models(given(call.query.consumer)), answers.Models),
        errors=(404,),
        query=answers.ModelsQuery,
    ),
    Operation(
        *("POST", "/playground", "playground", "Send a chat request through the listener, with a key"),
        *(playing.playground, answers.Played),
        media="text/event-stream",
        errors=(404, 409),
        body=answers.Play,
        role="operator",
    ),
    Operation(
        *("POST", "/explain", "explain", "The way of a request through the gateway, without sending it"),
        *(handlers.explain, answers.Explained),
        errors=(404,),
        body=answers.Explain,
        role="operator",
    ),
    Operation(
        *("GET", "/settings", "settings", "The settings file"),
        *(lambda call: call.desk.file.shown(), answers.SettingsText),
        errors=(404, 409),
        role="admin",  # the text may have addresses that are secrets, such as those of webhooks
    ),
    Operation(
        *("POST", "/settings", "change_settings", "A change of the settings: its difference and verdict"),
        *(handlers.change_settings, answers.SettingsChange),
        errors=(404, 409),
        body=answers.ChangeSettings,
        role="admin",
    ),
    Operation(
        *("POST", "/providers/check", "ask_providers", "Send one small request to each provider"),
        *(lambda call: call.desk.file.ask_providers(), answers.ProvidersAsked),
        errors=(404,),
        body=answers.Nothing,
        role="admin",  # it costs a little money
    ),
    Operation(
        *("GET", "/audit", "audit", "The audit trail, the latest entries first", handlers.audit, answers.Trail),
        errors=(404,),
        query=answers.TrailQuery,
        role="admin",
    ),
    Operation(
        *("GET", "/cache", "cached", "Size of the cache of answers"),
        *(lambda call: call.reports.cache(), answers.Cache),
        errors=(404,),
    ),
    Operation(
        *("GET", "/cache/similar", "similar", "Questions in other words that met a kept one, the latest first"),
        *(lambda call: call.reports.similar(), answers.SimilarQuestions),
        role="operator",  # samples may show texts
    ),
    Operation(
        *("POST", "/cache/forget", "forget_answers", "Delete kept answers, a consumer's or all"),
        *(handlers.forget_answers, answers.Forgotten),
        errors=(404,),
        body=answers.Forget,
        role="operator",
    ),
    Operation(
        *("POST", "/ledger/forget", "forget_consumer", "Forget a consumer"),
        *(handlers.forget_consumer, answers.ForgottenConsumer),
        errors=(404,),
        body=answers.ForgetConsumer,
        role="admin",
    ),
    Operation(
        *("GET", "/ledger/export", "export", "A consumer's rows, one JSON object a line", handlers.export),
        media="application/jsonl",
        query=answers.ExportQuery,
        role="admin",
        audited=True,
    ),
    Operation(
        *("POST", "/ledger/rebuild", "rebuild_sums", "Make the sums of hours and days anew"),
        lambda call: call.reports.rebuild(),
        status=204,
        body=answers.Nothing,
        role="admin",
    ),
    Operation(
        *("GET", "/exchanges", "exchanges", "Recent exchanges, the latest first"),
        *(handlers.exchanges, exchanges.Exchanges),
        query=exchanges.ExchangesQuery,
        labels=True,
    ),
    Operation(
        *("GET", "/in-flight", "in_flight", "Exchanges that have not ended, the longest first, with what each holds"),
        *(lambda call: call.reports.under_way(), exchanges.InFlight),
    ),
    Operation(
        *("GET", "/exchanges/{id}", "exchange", "By its id or x-request-id", handlers.exchange, exchanges.Exchange)
    ),
    Operation(
        *("GET", "/exchanges/{id}/texts", "read_texts", "Texts of an exchange, where they are recorded"),
        *(lambda call: call.desk.texts(call.named), answers.Texts),
        errors=(404, 409),
        role="admin",
        audited=True,
    ),
    Operation(
        *("GET", "/runs", "runs", "Runs of agents, the latest first"),
        *(lambda call: call.reports.runs(given(call.query.consumer), call.query.hours), runs.Runs),
        query=runs.RunsQuery,
    ),
    Operation(
        *("GET", "/runs/{id}", "run", "The run of that name, with its calls, for each consumer that uses it"),
        *(handlers.run, runs.Runs),
        query=runs.RunQuery,
    ),
    Operation(
        *("GET", "/comparison", "compare", "Two targets compared: whether the second is safe to use"),
        *(handlers.compare, comparison.Comparison),
        query=comparison.ComparisonQuery,
    ),
    Operation(
        *(
            "GET",
            "/comparison/pairs",
            "compare_pairs",
            "Answers to the same requests compared: a shadow's, or a replay's",
        ),
        *(handlers.compare_pairs, comparison.Comparison),
        query=comparison.PairsQuery,
    ),
    Operation(
        *("GET", "/tools", "tools", "MCP servers and the state of their tools"),
        *(lambda call: call.reports.tools(definitions=call.query.definitions == "true"), answers.ToolServers),
        errors=(404,),
        query=answers.ToolsQuery,
    ),
    Operation(
        *("GET", "/providers", "providers", "Speed, failures and cool-down of each model at its provider"),
        *(lambda call: {"object": "list", "data": call.reports.providers()}, answers.Providers),
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
    """A route that answers a path's methods to operators with the role that each method needs. Changes and audited
    reads are written into the audit trail.
    """

    async def answer(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        operator, desk = principal(request), request.app.state.desk
        if not operator.may(operation.role):
            message = f"this needs the role {operation.role}: yours is {operator.role}"
            return failure(403, message, code="role_missing")
        call = await read_call(request, operation)
        found = await run_in_threadpool(lambda: answer_of(operation, operation.handler(call)))
        if (operation.audited or operation.method != "GET") and found.status_code < 400 and desk is not None:
            detail = {**request.path_params, **call.detail}
            await run_in_threadpool(desk.record, operator.name, operator.role, operation.id, detail)
        return found

    return answer


ROUTES = _routes()


# --- errors

_WORDS = {404: "there is nothing at this path", 405: "this path does not know this method"}
_FAILURES: Mapping[type[Exception], Callable[[Any], tuple[int, str]]] = {
    ReportError: lambda error: (error.status, error.message),
    TooManyKeysError: lambda error: (409, str(error)),
    LedgerError: lambda error: (503, str(error)),
    StoreError: lambda _error: (503, "the counters store does not answer"),
    CacheError: lambda _error: (503, "the cache's store does not answer"),
    ClientDisconnect: lambda _error: (400, "the body ended early"),
    HTTPException: lambda error: (error.status_code, _WORDS.get(error.status_code, error.detail)),
}
"""Statuses and texts of expected errors. Any other error is a bug."""


def _failed(_request: Request, error: Exception) -> Response:
    kind = next((kind for kind in type(error).__mro__ if kind in _FAILURES), None)
    if kind is None:
        return failure(500, "this is a bug of the gateway; its log has the details")
    return failure(*_FAILURES[kind](error), **dict(getattr(error, "headers", None) or {}))

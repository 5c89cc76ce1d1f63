"""Handlers of the operators' desk: sign-on, keys, models, the playground, the audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from extproc.operate.admin import answers
from extproc.operate.admin.guard import failure, principal
from extproc.operate.admin.handling import answer_of, body_of, desk_of, plain, query_of, sources_of, tell
from extproc.operate.admin.sources import Desk, SourceError
from extproc.wire.framing import shapes

if TYPE_CHECKING:
    from extproc.operate.admin.signon import SignOn


# --- sign-on


def _sign_on(request: Request) -> SignOn:
    found: SignOn | None = request.app.state.signon
    if found is None:
        raise SourceError(404, "sign-on is not set up: admin.oidc")
    return found


def login(request: Request) -> Response:
    return _sign_on(request).login(request)


def callback(request: Request) -> Response:
    answer, who = _sign_on(request).callback(request)
    desk: Desk | None = request.app.state.desk
    if who is not None and desk is not None:
        desk.record(who.name, who.role, "sign_in", {})
    return answer


async def logout(request: Request) -> Response:
    await body_of(request)
    return await run_in_threadpool(_sign_on(request).logout, request)


# --- operators, keys, models


def me(request: Request) -> Response:
    who = principal(request)
    desk: Desk | None = request.app.state.desk
    door = None if desk is None else desk.door()
    about = {"name": who.name, "role": who.role, "session": who.session, "door": door}
    sources = sources_of(request)
    return answer_of(answers.Me, {**about, "stale": sources.stale(), "certificate": sources.certificate()})


async def playground(request: Request) -> Response:
    body = await body_of(request)
    try:
        asked = shapes.decode(body, answers.Play)
    except (ValueError, RecursionError) as error:
        return failure(400, plain(error))
    content = msgspec.json.encode({**asked.body, "stream": False})
    played = await run_in_threadpool(desk_of(request).play, asked.key, content)
    tell(request, status=played["status"])
    return answer_of(answers.Played, played)


async def keys(request: Request) -> Response:
    desk = desk_of(request)
    if request.method != "POST":
        return answer_of(answers.Keys, {"object": "list", "data": list(await run_in_threadpool(desk.keys))})
    body = await body_of(request)
    try:
        asked = shapes.decode(body, answers.NewKey)
    except (ValueError, RecursionError) as error:
        return failure(400, plain(error))
    wanted = (asked.consumer, asked.name, asked.expires_in, principal(request).name)
    made = await run_in_threadpool(desk.issue, *wanted)
    tell(request, **{name: made[name] for name in ("id", "consumer", "name", "expires_at")})
    return answer_of(answers.IssuedKey, made, 201)


def key(request: Request) -> Response:
    found = desk_of(request).revoke_key(request.path_params["id"])
    return Response(status_code=204) if found else failure(404, "no key in force has that id")


def models(request: Request) -> Response:
    query = query_of(request, answers.ModelsQuery)
    if isinstance(query, Response):
        return query
    consumer = None if query.consumer is msgspec.UNSET else query.consumer
    return answer_of(answers.Models, {"object": "list", "data": list(desk_of(request).models(consumer))})


def audit(request: Request) -> Response:
    query = query_of(request, answers.TrailQuery)
    if isinstance(query, Response):
        return query
    before = None if query.before is msgspec.UNSET else query.before
    return answer_of(answers.Trail, {"object": "list", "data": list(desk_of(request).trail(query.limit, before))})

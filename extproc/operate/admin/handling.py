"""Shared parts of the admin API's handlers: its sources, parameters, bodies and answers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from extproc.operate.admin.guard import JSON, failure
from extproc.operate.admin.sources import Desk, SourceError, Sources
from extproc.wire.framing import shapes

MAX_BODY = 64 << 10  # bytes
_SLOWEST = 10.0  # seconds for a body to arrive


def sources_of(request: Request) -> Sources:
    found: Sources = request.app.state.sources
    return found


def desk_of(request: Request) -> Desk:
    found: Desk | None = request.app.state.desk
    if found is None:
        raise SourceError(404, "there is no such thing here")
    return found


def tell(request: Request, **detail: Any) -> None:
    """Facts of an act for the audit trail."""
    request.scope["told"] = detail


def answer_of(kind: type[Any], found: Any, status: int = 200, *, row: type[Any] | None = None) -> Response:
    """An answer of its type, as the description promises. Fields that the type does not have are left out.

    Long lists are converted `row` by row: 10,000 at once would keep the event loop from the interpreter for 60 ms.
    """
    if row is not None:
        found = {**found, "data": [shapes.convert(one, row) for one in found["data"]]}
    return JSON(shapes.convert(found, kind), status)


_FORMS = {"amount": "a number above 0 is expected, with up to 18 digits, and 9 after the point: 25 or 0.50"}


def plain(error: Exception) -> str:
    """The text of msgspec about a value, with its name in front: `limit: expected ...`. A pattern is put into words."""
    message, _, path = str(error).partition(" - at `$.")
    if " matching regex " in message:
        message = _FORMS.get(path.removesuffix("`"), "it is empty, too long, or has characters that are not allowed")
    return f"{path.removesuffix('`')}: {message[0].lower()}{message[1:]}" if path else message


def query_of(request: Request, kind: type[Any], *, labels: bool = False) -> Any:
    """The parameters as `kind` has them, each once, and with `labels` those of labels; or the refusal."""
    given = dict(request.query_params)
    if len(given) != len(request.query_params.multi_items()):
        return failure(400, "each parameter once")
    if labels:
        given = {name: value for name, value in given.items() if not name.startswith("label.")}
    if not given.get("limit", "100").isdecimal():  # msgspec takes 1e3 too
        return failure(400, "limit: a whole number")
    try:
        return shapes.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        return failure(400, plain(error))


async def body_of(request: Request) -> bytes:
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

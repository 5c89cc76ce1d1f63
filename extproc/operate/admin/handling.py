"""One request to an operation of the admin API: parameters, body and answer, of the types in the OpenAPI
description.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from extproc.operate.admin.guard import JSON, Principal, principal
from extproc.operate.admin.openapi import Operation
from extproc.operate.reports import ReportError
from extproc.operate.reports.desk import Desk
from extproc.operate.reports.reports import AdminReports
from extproc.wire.framing import shapes

MAX_BODY = 64 << 10  # most bytes of a body
MAX_PARAMETERS = 256  # most parameters of one query
_SLOWEST = 10.0  # seconds for a body to arrive


@dataclass(slots=True)
class AdminCall:
    """One request to an operation, for its handler. `query` and `body` have the operation's types."""

    request: Request
    query: Any = None
    body: Any = None
    detail: Mapping[str, Any] = field(default_factory=dict)  # facts for the audit trail

    @property
    def reports(self) -> AdminReports:
        found: AdminReports = self.request.app.state.reports
        return found

    @property
    def desk(self) -> Desk:
        """The operators' desk. Raises ReportError if there is none."""
        found: Desk | None = self.request.app.state.desk
        if found is None:
            raise ReportError(404, "there is no such thing here")
        return found

    @property
    def operator(self) -> Principal:
        return principal(self.request)

    @property
    def named(self) -> str:
        """The last part of a path, which names one object."""
        [found] = self.request.path_params.values()
        return str(found)

    def parameters(self) -> Sequence[tuple[str, str]]:
        """All parameters as received. Raises ReportError for too many."""
        found = self.request.query_params.multi_items()
        if len(found) > MAX_PARAMETERS:
            raise ReportError(400, f"at most {MAX_PARAMETERS} parameters")
        return found


async def read_call(request: Request, operation: Operation) -> AdminCall:
    """The request, read as the operation declares. Raises ReportError."""
    call = AdminCall(request)
    if operation.query is not None:
        call.query = _query(request, operation.query, labels=operation.labels)
    if operation.body is not None:
        content = await _body(request)
        with readable():
            call.body = shapes.decode(content, operation.body)
    return call


def answer_of(operation: Operation, found: Any) -> Response:
    """The answer, converted to its type. Fields outside the type are left out.

    Long lists are converted row by row: 10,000 rows at once would block the event loop for 60 ms.
    """
    if isinstance(found, Response):
        return found
    if operation.answer is None:
        return Response(status_code=operation.status)
    if not isinstance(found, Mapping):
        found = {"object": "list", "data": found}
    if (row := _row(operation.answer)) is not None:
        found = {**found, "data": [shapes.convert(one, row) for one in found["data"]]}
    return JSON(shapes.convert(found, operation.answer), operation.status)


@cache
def _row(kind: type) -> Any:
    """The type of an answer's rows; None for an answer without rows."""
    data = get_type_hints(kind).get("data")
    return get_args(data)[0] if get_origin(data) is Sequence else None


@contextmanager
def readable() -> Iterator[None]:
    """Turns a ValueError into a ReportError with its text: the request cannot be read, or not be answered."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise ReportError(400, _plain(error)) from None


_FORMS = {"amount": "a number above 0 is expected, with up to 18 digits, and 9 after the point: 25 or 0.50"}


def _plain(error: Exception) -> str:
    """The text of msgspec about a value, after the name of the value: `limit: expected ...`. Patterns are put into
    words.
    """
    message, _, path = str(error).partition(" - at `$.")
    if " matching regex " in message:
        message = _FORMS.get(path.removesuffix("`"), "it is empty, too long, or has characters that are not allowed")
    return f"{path.removesuffix('`')}: {message[0].lower()}{message[1:]}" if path else message


def _query(request: Request, kind: type, *, labels: bool) -> Any:
    """The parameters of the type `kind`, each at most once; `labels` also allows parameters of labels. Raises
    ReportError.
    """
    given = dict(request.query_params)
    if len(given) != len(request.query_params.multi_items()):
        raise ReportError(400, "each parameter once")
    if labels:
        given = {name: value for name, value in given.items() if not name.startswith("label.")}
    if not given.get("limit", "100").isdecimal():  # msgspec accepts 1e3, too
        raise ReportError(400, "limit: a whole number")
    with readable():
        return shapes.convert(given, kind, strict=False)


async def _body(request: Request) -> bytes:
    """The body, whose length must match its Content-Length. Raises ReportError."""
    length = request.headers.get("content-length")
    if length is None:
        raise ReportError(411, "send a body with its Content-Length")
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BODY:
        raise ReportError(413, f"a body is at most {MAX_BODY} bytes")
    body = b""
    try:
        async with asyncio.timeout(_SLOWEST):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise ReportError(413, f"a body is at most {MAX_BODY} bytes")
    except TimeoutError:
        raise ReportError(408, f"a body arrives within {_SLOWEST:.0f} seconds") from None
    return body


def given(value: Any) -> Any:
    """A parameter of a query; None if it is left out."""
    return None if value is msgspec.UNSET else value

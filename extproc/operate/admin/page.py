"""The console's files: a page, its style, and ES modules that the browser loads as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from extproc.operate.admin.files import FOLDER, KINDS, POLICY


def page() -> Response:
    return _file(FOLDER / "index.html")


def file_routes() -> Sequence[Route]:
    """A route for each file that the page loads. They have no data, and need no token."""
    found = sorted(path for path in FOLDER.rglob("*.*") if path.suffix in (".css", ".js"))
    return [_route(path) for path in found]


def _route(path: Path) -> Route:
    def give(_request: Request) -> Response:
        return _file(path)

    return Route(f"/console/{path.relative_to(FOLDER)}", give)


def _file(path: Path) -> Response:
    headers = {"content-security-policy": POLICY}
    return Response(path.read_bytes(), media_type=f"{KINDS[path.suffix]}; charset=utf-8", headers=headers)

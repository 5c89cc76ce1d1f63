"""The console's files: a page, its style, and ES modules that the browser loads as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = Path(__file__).with_name("console")
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The page runs and connects to this server's files only. Other answers of the API are no scripts: they have the
header `x-content-type-options: nosniff`.
"""


def page() -> Response:
    return _file(_FILES / "index.html")


def file_routes() -> Sequence[Route]:
    """A route for each file that the page loads. They have no data, and need no token."""
    found = sorted(path for path in _FILES.rglob("*.*") if path.suffix in (".css", ".js"))
    return [_route(path) for path in found]


def _route(path: Path) -> Route:
    def give(_request: Request) -> Response:
        return _file(path)

    return Route(f"/console/{path.relative_to(_FILES)}", give)


def _file(path: Path) -> Response:
    headers = {"content-security-policy": _POLICY}
    return Response(path.read_bytes(), media_type=f"{_KINDS[path.suffix]}; charset=utf-8", headers=headers)

"""The page "my usage" on the public listener. Envoy gives its files itself; they have no data, and need no key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.route import v3 as routev3

from extproc.envoy.envoy_config import typed
from extproc.envoy.envoy_config.typed import pack
from extproc.operate.admin.files import FOLDER, KINDS, POLICY

PATH = "/my-usage"
MOST = 64 << 10  # most bytes of a file; Envoy's own limit for a direct response is 4 KiB
_FILES = ("my-usage.js", "dom.js", "format.js", "style.css")
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
}


def my_usage() -> Sequence[routev3.Route]:
    """A route for the page, and for each file that it loads."""
    files = [_route(f"{PATH}/{name}", FOLDER / name) for name in _FILES]
    return [_route(PATH, FOLDER / "my-usage.html"), *files]


def _route(path: str, file: Path) -> routev3.Route:
    asked = routev3.HeaderMatcher(name=":method", string_match=typed.exact("GET"))
    headers = {**_HEADERS, "content-type": f"{KINDS[file.suffix]}; charset=utf-8"}
    body = corev3.DataSource(inline_string=file.read_text(encoding="utf-8"))
    return routev3.Route(
        name="my-usage",
        match=routev3.RouteMatch(path=path, headers=[asked]),
        direct_response=routev3.DirectResponseAction(status=200, body=body),
        response_headers_to_add=[typed.set_header(name, value) for name, value in headers.items()],
        typed_per_filter_config={"envoy.filters.http.ext_proc": pack(routev3.FilterConfig(disabled=True))},
    )

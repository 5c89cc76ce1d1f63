"""The files of the console's folder. Envoy gives some of them to developers, so this module imports no server."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("console")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""A page runs and connects to files of its own server only. Other answers of the API are no scripts: they have the
header `x-content-type-options: nosniff`.
"""

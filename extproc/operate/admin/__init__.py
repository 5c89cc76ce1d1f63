"""HTTP for people and probes, on a thread of its own so that a slow scraper never delays a request.

Two doors: `status` (metrics and health, no token) and `admin` (spending, budgets, exchanges, the console). The
libraries that answer are imported with the first connection.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from extproc.operate.admin.doors import HTTPThread
from extproc.operate.admin.sources import SourceError, Sources
from extproc.operate.admin.spare import probing

if TYPE_CHECKING:
    from extproc.operate.admin.api import admin_app
    from extproc.operate.admin.failures import Failures
    from extproc.operate.admin.http import status_app
    from extproc.operate.admin.siblings import Findings, Health, Siblings, inner_app

__all__ = [
    "Failures",
    "Findings",
    "HTTPThread",
    "Health",
    "Siblings",
    "SourceError",
    "Sources",
    "admin_app",
    "inner_app",
    "probing",
    "status_app",
]
_LATER = {"Failures": "failures", "admin_app": "api", "status_app": "http"} | dict.fromkeys(
    ("Findings", "Health", "Siblings", "inner_app"), "siblings"
)


def __getattr__(name: str) -> Any:
    file = _LATER.get(name)
    if file is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"extproc.operate.admin.{file}"), name)

"""HTTP for people and probes, on a thread of its own so that a slow scraper never delays a request.

Two doors: `status` (metrics and health, no token) and `admin` (spending, budgets, exchanges, the console).
"""

from extproc.admin.api import admin_app
from extproc.admin.http import HTTPThread, status_app
from extproc.admin.sources import SourceError, Sources

__all__ = ["HTTPThread", "SourceError", "Sources", "admin_app", "status_app"]

"""The stage that names the consumer."""

from __future__ import annotations

from extproc.access.auth import Access, Authenticate
from extproc.exchange.services import Services
from extproc.settings.config import Settings


def authenticate(settings: Settings, services: Services) -> Authenticate:
    earlier = settings.before
    before = None if earlier is None else Access(earlier.teams, earlier.groups)
    access = Access(settings.teams, settings.groups, before, {} if earlier is None else earlier.consumers)
    return Authenticate(
        settings.auth,
        settings.consumers,
        access,
        settings.attribution,
        services.now,
        tools=() if settings.mcp is None else settings.mcp.anonymous,
        issued=services.issued,
    )

"""The stage that names the consumer."""

from __future__ import annotations

from extproc.access.auth import Access, Authenticate
from extproc.exchange.services import Services
from extproc.settings.config import Settings


def authenticate(settings: Settings, services: Services) -> Authenticate:
    return Authenticate(
        settings.auth,
        settings.consumers,
        Access(settings.teams, settings.groups),
        settings.attribution,
        services.now,
        tools=() if settings.mcp is None else settings.mcp.anonymous,
        issued=services.issued,
    )

"""The stage of the brake."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.exchange.services import Services
from extproc.settings.config import Settings
from extproc.tools.brake import Brake


def brake(settings: Settings, services: Services) -> Sequence[Brake]:
    return [] if settings.brake is None else [Brake(settings.brake, services.runs)]

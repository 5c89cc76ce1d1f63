"""The stage of answers that pass unread."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.exchange.services import Services
from extproc.exchange.unread.choice import Follow, WhyRead
from extproc.settings.config import Settings
from extproc.wire.framing.events import Events


def why_read(settings: Settings, events: Events) -> WhyRead:
    """The reason why an answer has to be read, for a request."""
    idle = settings.limits.stream_idle
    patient = {name for name, provider in settings.providers.items() if provider.timeout > idle}
    return WhyRead(settings.usage.mode, events.reason, patient)


def follow(services: Services, why: WhyRead) -> Sequence[Follow]:
    return [Follow(services.waiting, why)] if why.enabled else []

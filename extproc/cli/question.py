"""A request to explain, and what stands in for its client and for the running gateway."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from extproc.auth import KeySettings
from extproc.routing.history import History
from extproc.settings.config import Settings
from extproc.telemetry.metrics import Telemetry
from extproc.words.values import Secret

_ANONYMOUS = "anonymous"


@dataclass(slots=True, frozen=True)
class Question:
    """A request to explain. Who asks: a consumer's name, or a gateway key; neither: nobody who says so."""

    body: bytes
    path: str = "/v1/chat/completions"
    consumer: str | None = None
    key: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    attached: bool = False  # to somebody else's Envoy


class Witness(Telemetry):
    """Notes which stages ran."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, lambda _line: None)
        self.stages: list[str] = []

    def stage(self, name: str) -> Callable[[float], None]:
        return lambda _seconds: self.stages.append(name)


class Blank(History):
    """Knows nothing and learns nothing, not even that this request was on its way."""

    def chosen(self, deployment: str, size: int, *, streamed: bool) -> None:
        """Nothing goes there."""


class _Held(Secret):
    """A secret made here instead of read from somewhere."""

    __slots__ = ()

    def read(self) -> str | None:
        return self.where


class _PosedKey(KeySettings):
    @property
    def secret(self) -> Secret | None:
        return _Held("env", self.env or "")


def pose(settings: Settings, question: Question) -> tuple[Settings, Mapping[str, str]]:
    """Settings in which a consumer that is named has a key that we know, and the headers of the request."""
    headers = {settings.attribution.prefix + name.lower(): value for name, value in question.labels.items()}
    name, key = question.consumer, question.key
    if (name is None and key is None) or name == _ANONYMOUS:
        if settings.auth.required:
            raise ValueError("auth.required is on: say who asks with --consumer NAME or --key env:NAME")
    elif name is not None:
        names = [entry.name for entry in settings.consumers]
        if name not in names:
            raise ValueError(f"there is no consumer {name!r}; there are {', '.join(names) or 'none'}")
        key = secrets.token_urlsafe(32)
        keys = [_PosedKey.model_construct(env=key)]
        consumers = [
            entry.model_copy(update={"keys": keys}) if entry.name == name else entry for entry in settings.consumers
        ]
        settings = settings.model_copy(update={"consumers": consumers})
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return settings, headers

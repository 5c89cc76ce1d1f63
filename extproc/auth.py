"""Who is asking, and which models they may use.

A gateway key is kept only as a keyed hash and found by that hash, so neither the settings, nor the memory of a running
processor, nor the time a lookup takes gives a key away.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from extproc.errors import EXPIRED_KEY, INVALID_KEY, MISSING_KEY, MODEL_NOT_ALLOWED, Refusal
from extproc.exchange import Consumer, Exchange, Request
from extproc.routing import Skip
from extproc.values import Name, Pattern, Secret, SecretRef, Section, is_variable

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key")
"""Where a client may put its key; none of them ever reaches a provider."""

HASH_PREFIX = "hmac-sha256:"
_MAX_KEY = 4096  # bytes; longer ones are refused unhashed
_MAX_LABELS = 32
_MAX_LABEL = 256  # bytes of a label's value


class KeySettings(Section):
    """One key of a consumer: where it is, or what it hashes to (`extproc keys` prints both)."""

    env: str | None = None
    file: str | None = None
    hash: Annotated[str, StringConstraints(pattern=r"^hmac-sha256:[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> KeySettings:
        if sum(value is not None for value in (self.env, self.file, self.hash)) != 1:
            raise ValueError("a key is one of {env: NAME}, {file: /path} or {hash: hmac-sha256:…}")
        if self.env is not None and not is_variable(self.env):
            raise ValueError("env is the name of an environment variable, never the key itself")
        return self

    @property
    def secret(self) -> Secret | None:
        if self.env is not None:
            return Secret("env", self.env)
        return Secret("file", self.file) if self.file is not None else None


class ConsumerSettings(Section):
    """Who pays: a person, an application, an agent."""

    name: Name
    team: Name | None = None
    keys: Sequence[KeySettings] = ()
    expires: date | None = Field(None, description="The first day (UTC) on which its keys are no longer good")
    disabled: bool = Field(False, description="Kill switch: its keys are refused")
    models: Sequence[str] | None = Field(None, description="Patterns of models it may use; absent: all; []: none")
    labels: Mapping[str, str] = Field(default_factory=dict, description="Labels that headers cannot override")


class TeamSettings(Section):
    models: Sequence[str] | None = Field(None, description="Patterns of models its members may use at most")


class AuthSettings(Section):
    required: bool = Field(True, description="false: a request without a key is the consumer `anonymous`")
    key_secret: SecretRef | None = Field(None, description="Keys the hashes of gateway keys; needed for `hash:` keys")


class AttributionSettings(Section):
    prefix: Annotated[str, StringConstraints(pattern=r"^x-[a-z0-9-]*-$")] = "x-ai-"
    strip: bool = Field(True, description="Labels do not reach the provider")
    metrics: Sequence[Name] = Field((), max_length=4, description="Labels that become labels of metrics")

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, value: Sequence[str]) -> Sequence[str]:
        if len({name.replace("-", "_").replace(".", "_") for name in value}) < len(value):
            raise ValueError("two of these would be the same label of a metric, where - and . are written _")
        return value


def hash_key(key: str, secret: str) -> str:
    """What is stored in place of a gateway key."""
    return HASH_PREFIX + hmac.new(secret.encode(), key.encode(), hashlib.sha256).hexdigest()


def make_key() -> str:
    """A new gateway key: 256 random bits."""
    return "sk-gw-" + secrets.token_urlsafe(32)


@dataclass(slots=True, frozen=True)
class _Entry:
    consumer: Consumer
    key: str  # a name for it that is no secret and the same in every replica
    expires: float | None  # seconds since the epoch
    disabled: bool


class Authenticate:
    """Writes `consumer` and `labels`. 401 without a good key."""

    def __init__(
        self,
        auth: AuthSettings,
        consumers: Sequence[ConsumerSettings],
        teams: Mapping[str, TeamSettings],
        attribution: AttributionSettings,
        now: Callable[[], float],
    ) -> None:
        self._required = auth.required
        self._now = now
        self._prefix = attribution.prefix
        secret = auth.key_secret.read() if auth.key_secret else None
        self._secret = (secret or secrets.token_hex(32)).encode()
        self._entries: dict[bytes, _Entry] = {}
        for settings in consumers:
            who, expires = consumer(settings, teams), _expiry(settings.expires)
            for index, key in enumerate(settings.keys):
                entry = _Entry(who, f"{settings.name}#{index}", expires, settings.disabled)
                if key.hash is not None:
                    self._entries[bytes.fromhex(key.hash.removeprefix(HASH_PREFIX))] = entry
                elif key.secret is not None and (value := key.secret.read()) is not None:
                    self._entries[self._digest(value)] = entry
        self._anonymous = Consumer("anonymous")

    def __call__(self, exchange: Exchange) -> None:
        key = credential(exchange.request)
        if key is None:
            if self._required:
                raise Refusal(MISSING_KEY, "Send your gateway key: 'Authorization: Bearer <key>'.")
            exchange.consumer = self._anonymous
        else:
            entry = self._find(key)
            exchange.consumer, exchange.key = entry.consumer, entry.key
        exchange.labels = self._labels(exchange)

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._secret, key.encode("utf-8", "surrogateescape"), "sha256")

    def _find(self, key: str) -> _Entry:
        entry = self._entries.get(self._digest(key)) if len(key) <= _MAX_KEY else None
        if entry is None or entry.disabled:
            raise Refusal(INVALID_KEY, "This gateway does not know that key, or it is disabled.")
        if entry.expires is not None and self._now() >= entry.expires:
            raise Refusal(EXPIRED_KEY, "This key has expired; ask for a new one.")
        return entry

    def _labels(self, exchange: Exchange) -> Mapping[str, str]:
        prefix = self._prefix
        labels: dict[str, str] = {}
        for name, value in exchange.request.headers.items():
            if name.startswith(prefix) and len(labels) < _MAX_LABELS:
                label = name[len(prefix) :]
                if label and value:
                    labels[label[:64]] = value[:_MAX_LABEL]
        labels.update(exchange.consumer.labels)
        return labels


class Authorize:
    """Narrows `targets` to those granted. 403 when none is left."""

    def __call__(self, exchange: Exchange) -> None:
        consumer, model = exchange.consumer, exchange.ask.model
        if not consumer.may_use(exchange.chain.name):
            message = f"{consumer.name} may not use {model!r}; GET /v1/models lists what it may use."
            raise Refusal(MODEL_NOT_ALLOWED, message, param="model")
        may_use = consumer.may_use
        granted = tuple([target for target in exchange.targets if may_use(target.name)])
        if len(granted) < len(exchange.targets):
            text = f"{consumer.name} may not use it"
            exchange.skipped += [
                Skip(target, "not_granted", text) for target in exchange.targets if target not in granted
            ]
            exchange.targets = granted
        if not exchange.targets:
            message = f"{consumer.name} may use no model behind {model!r}: GET /v1/models."
            raise Refusal(MODEL_NOT_ALLOWED, message, param="model")


def credential(request: Request) -> str | None:
    """The client's key, or None. Raises Refusal (401) when there are two that differ, or a header holds no key."""
    found: str | None = None
    for name in CREDENTIAL_HEADERS:
        value = request.headers.get(name)
        if value is None:
            continue
        key = value
        if name == "authorization":
            scheme, _, key = value.partition(" ")
            if scheme.lower() != "bearer":
                raise Refusal(INVALID_KEY, "Send the key as 'Authorization: Bearer <key>'.")
        key = key.strip()
        if not key:
            raise Refusal(INVALID_KEY, f"The header '{name}' holds no key.")
        if found is not None and found != key:
            raise Refusal(INVALID_KEY, "The request carries two keys that differ; send one.")
        found = key
    return found


def _expiry(day: date | None) -> float | None:
    return None if day is None else datetime.combine(day, time.min, UTC).timestamp()


def consumer(settings: ConsumerSettings, teams: Mapping[str, TeamSettings]) -> Consumer:
    """A consumer with its grant: a model must be granted by the consumer and by its team, where they say anything."""
    team = teams.get(settings.team) if settings.team else None
    grants = [
        [Pattern(model) for model in models]
        for models in (settings.models, team.models if team else None)
        if models is not None
    ]
    if not grants:
        return Consumer(settings.name, settings.team or "", dict(settings.labels))

    def may_use(model: str) -> bool:
        return all(any(pattern(model) for pattern in patterns) for patterns in grants)

    return Consumer(settings.name, settings.team or "", dict(settings.labels), may_use)

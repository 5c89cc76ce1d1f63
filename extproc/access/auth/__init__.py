"""Authentication and authorization: the consumer of a request, and the models it may use.

A gateway key is kept only as a keyed hash and found by that hash, so neither the settings, nor the memory of a running
processor, nor the time of a lookup gives a key away. Envoy verifies tokens and client certificates; here their names
become consumers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import NoReturn
from urllib.parse import parse_qsl

from extproc.access.auth.access import Access, Identity, ToolGrants, earlier_grants
from extproc.access.auth.certificates import Certificates
from extproc.access.auth.claims import Tokens
from extproc.access.auth.issued import IssuedKey
from extproc.access.auth.require import unmet
from extproc.access.auth.settings import (
    AttributionSettings,
    AuthSettings,
    ConsumerSettings,
    GroupSettings,
    JWTSettings,
    KeySettings,
    TeamSettings,
    cut,
)
from extproc.words.chain import Skip
from extproc.words.contract import CACHE, GUARDRAILS
from extproc.words.errors import EXPIRED_KEY, INVALID_KEY, MISSING_KEY, MODEL_NOT_ALLOWED, Refusal
from extproc.words.exchange import NOTHING_VERIFIED, Consumer, Exchange, RequestHead, Target
from extproc.words.values import Patterns

__all__ = (
    "ANONYMOUS",
    "CREDENTIAL_HEADERS",
    "Access",
    "AttributionSettings",
    "AuthSettings",
    "Authenticate",
    "Authorize",
    "ConsumerSettings",
    "GroupSettings",
    "IssuedKey",
    "JWTSettings",
    "KeySettings",
    "TeamSettings",
    "ToolGrants",
    "credential",
    "credential_headers",
    "earlier_grants",
    "hash_key",
    "make_key",
)

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Headers where a client may put its key; none ever reaches a provider."""

ANONYMOUS = "anonymous"
HASH_PREFIX = "hmac-sha256:"
_MAX_KEY = 4096  # most bytes of a key; a longer key is refused unhashed
_MAX_LABELS = 32
SESSION = "session"
"""The label that `attribution.session` gives."""
_UNKNOWN = "The gateway does not know this key, or the key is disabled."
_TWO = "The request carries two different keys: send one."
_SEVERAL = "The request carries credentials of two consumers: send those of one."


def credential_headers(auth: AuthSettings) -> Sequence[str]:
    """Every header that may hold a key or a token."""
    return tuple(dict.fromkeys((*CREDENTIAL_HEADERS, *(issuer.header for issuer in auth.jwt))))


def hash_key(key: str, secret: str) -> str:
    """The hash that is stored in place of a gateway key."""
    return HASH_PREFIX + hmac.new(secret.encode(), key.encode(), hashlib.sha256).hexdigest()


def make_key() -> str:
    """A new gateway key: 256 random bits."""
    return "sk-gw-" + secrets.token_urlsafe(32)


class Authenticate:
    """Writes `consumer`, `key` and `labels`. 401 without a valid credential, or with credentials of two consumers."""

    def __init__(
        self,
        auth: AuthSettings,
        consumers: Sequence[ConsumerSettings],
        access: Access,
        attribution: AttributionSettings,
        now: Callable[[], float],
        *,
        tools: Sequence[str] = (),
        issued: Sequence[IssuedKey] = (),
    ) -> None:
        """`tools` grants tools to requests without a credential, see `ToolGrants`. `issued` are keys that operators
        made.
        """
        self._required = auth.required
        self._now = now
        self._prefix = attribution.prefix
        self._session = attribution.session
        self._token_headers = [name for name in credential_headers(auth) if name not in CREDENTIAL_HEADERS]
        secret = auth.read_key_secret()
        self._secret = (secret or secrets.token_hex(32)).encode()
        self._keys: dict[bytes, Identity] = {}
        # Identities by valid keys that clients have sent, to save the digest of 6 µs.
        self._known: dict[str, Identity] = {}
        subjects: dict[str, Identity] = {}
        certificates: dict[str, Identity] = {}
        by_consumer: dict[str, list[IssuedKey]] = {}
        for given in issued:
            if given.revoked is None:
                by_consumer.setdefault(given.consumer, []).append(given)
        for settings in consumers:
            who, expires = access.consumer(settings), _expiry(settings.expires)
            for digest, identity in self._read_keys(settings, who):
                self._keys[digest] = identity
            for made in by_consumer.get(settings.name, ()):
                until = min((at for at in (made.expires, expires) if at is not None), default=None)
                identity = Identity(who, f"{settings.name}#{made.name}", until, settings.disabled)
                self._keys.setdefault(bytes.fromhex(made.hash.removeprefix(HASH_PREFIX)), identity)
            by_token = Identity(who, f"{who.name}#jwt", expires, settings.disabled)
            subjects |= dict.fromkeys(settings.subjects, by_token)
            certificates |= dict.fromkeys(settings.certificates, replace(by_token, key=f"{who.name}#certificate"))
        taken = frozenset((ANONYMOUS, *(settings.name for settings in consumers)))
        self._tokens = Tokens(auth.jwt, subjects, taken, access)
        self._certificates = Certificates(certificates)
        self._anonymous = Consumer(ANONYMOUS, tools=ToolGrants([Patterns(tools)]))

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request.head
        for name in self._token_headers:
            if name in request.headers:  # a token in the header was not accepted: Envoy removes accepted ones
                self._refuse(request)
        key = credential(request, exchange.request.dialect.endpoints.key_parameter)
        identity = None if key is None else self._by_key(key, request)
        if request.verified is not NOTHING_VERIFIED:
            for other in self._verified(request):
                if identity is not None and identity.consumer.name != other.consumer.name:
                    raise Refusal(INVALID_KEY, _SEVERAL)
                identity = identity or other
        if identity is not None:
            exchange.consumer, exchange.money.key = identity.consumer, identity.key
        elif self._required:
            raise Refusal(MISSING_KEY, "The request has no gateway key: send 'Authorization: Bearer <key>'.")
        else:
            exchange.consumer = self._anonymous
        exchange.money.labels = self._labels(exchange)

    def _read_keys(self, settings: ConsumerSettings, who: Consumer) -> Iterator[tuple[bytes, Identity]]:
        """The digests of a consumer's keys, except keys whose secret is not set."""
        for index, key in enumerate(settings.keys):
            days = [day for day in (settings.expires, key.expires) if day is not None]
            expires = _expiry(min(days, default=None))
            consumer = replace(who, labels={**who.labels, **key.labels}) if key.labels else who
            name = str(index) if key.name is None else key.name
            identity = Identity(consumer, f"{settings.name}#{name}", expires, settings.disabled or key.disabled)
            if key.hash is not None:
                yield bytes.fromhex(key.hash.removeprefix(HASH_PREFIX)), identity
            elif key.secret is not None and (value := key.secret.read()) is not None:
                yield self._digest(value), identity

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._secret, key.encode("utf-8", "surrogateescape"), "sha256")

    def _by_key(self, key: str, request: RequestHead) -> Identity:
        identity = self._known.get(key)
        if identity is None:
            identity = self._keys.get(self._digest(key)) if len(key) <= _MAX_KEY else None
            if identity is None:
                self._refuse(request, token=key.count(".") == 2)
            self._known[key] = identity
        return self._good(identity)

    def _refuse(self, request: RequestHead, *, token: bool = True) -> NoReturn:
        """The refusal with 401, with Envoy's reason if Envoy checked a token."""
        if token:
            self._tokens.refuse(request.verified.token)
        raise Refusal(INVALID_KEY, _UNKNOWN)

    def _verified(self, request: RequestHead) -> Iterator[Identity]:
        """The consumers of the credentials that Envoy has verified."""
        for identity in self._tokens.find(request.verified.token):
            yield self._good(identity)
        found = self._certificates.find(request.verified.connection)
        if found is not None:
            yield self._good(found)

    def _good(self, identity: Identity) -> Identity:
        if identity.disabled:
            raise Refusal(INVALID_KEY, _UNKNOWN)
        if identity.expires is not None and self._now() >= identity.expires:
            raise Refusal(EXPIRED_KEY, "The key has expired: ask the operator for a new one.")
        return identity

    def _labels(self, exchange: Exchange) -> Mapping[str, str]:
        prefix = self._prefix
        labels: dict[str, str] = {}
        for name, value in exchange.request.head.headers.items():
            if name.startswith(prefix) and len(labels) < _MAX_LABELS and name not in (GUARDRAILS, CACHE):
                label = name[len(prefix) :]
                if label and value:
                    labels[label[:64]] = cut(value)
        headers = exchange.request.head.headers
        for name in self._session:
            if (session := headers.get(name)) and len(labels) < _MAX_LABELS:
                labels.setdefault(SESSION, cut(session))
                break
        for label, value in exchange.consumer.labels.items():
            if value:
                labels[label] = value
            else:  # the consumer has no label of that name, and the client cannot set it
                labels.pop(label, None)
        return labels


class Authorize:
    """Narrows `targets` to the granted ones that meet all requirements. 403 when none remains.

    `ungranted` gives a further model that the request names and its consumer may not use at a target.
    """

    def __init__(self, ungranted: Callable[[Exchange, Target], str] = lambda _exchange, _target: "") -> None:
        self._ungranted = ungranted

    def __call__(self, exchange: Exchange) -> None:
        consumer, route, model = exchange.consumer, exchange.route, exchange.request.ask.model
        chain = route.chain
        if not consumer.may_use((chain.next or chain).name):
            raise _not_allowed(f"Consumer {consumer.name} may not use {model!r}", "model")
        may_use = consumer.may_use if chain.next is None else earlier_grants(consumer, chain, chain.next)
        granted = tuple([target for target in route.targets if may_use(target.name)])
        if exchange.consumer.require or route.require or any(target.require for target in granted):
            granted = _meeting(exchange, granted)
        named = [self._ungranted(exchange, target) for target in granted]
        left = tuple([target for target, other in zip(granted, named, strict=True) if not other])
        if not granted:
            raise _not_allowed(f"Consumer {consumer.name} may use no target of {model!r}", "model")
        if not left:
            other = f"{named[0][:256]!r}, which the request names beside its model"
            raise _not_allowed(f"Consumer {consumer.name} may not use {other}")
        if len(left) < len(route.targets):
            for target in route.targets:
                if target not in left and all(skip.target is not target for skip in route.skipped):
                    what = "a model that the request names there" if target in granted else "it"
                    route.skipped.append(Skip(target, "not_granted", f"consumer {consumer.name} may not use {what}"))
            route.targets = left


def _meeting(exchange: Exchange, targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets that meet all requirements; the others are skipped. 403 when none remains."""
    reasons = [unmet(exchange, target) for target in targets]
    skipped = [Skip(target, "required", why) for target, why in zip(targets, reasons, strict=True) if why]
    if len(skipped) == len(targets) and skipped:
        text = "; ".join(f"{skip.target.name}: {skip.text}" for skip in skipped[:4])
        message = f"No target of {exchange.request.ask.model!r} meets `require`: {text}."
        raise Refusal(MODEL_NOT_ALLOWED, message[:1000], param="model")
    exchange.route.skipped += skipped
    return tuple([target for target, why in zip(targets, reasons, strict=True) if not why])


def _not_allowed(message: str, param: str | None = None) -> Refusal:
    return Refusal(MODEL_NOT_ALLOWED, f"{message}: GET /v1/models lists its models.", param=param)


def credential(request: RequestHead, parameter: str = "") -> str | None:
    """The client's key, or None. The key is in a header, or in the query's `parameter` if the API has one. Raises
    Refusal (401) when two keys differ, or a header holds no key.
    """
    found = _in_query(request.path, parameter) if parameter and "?" in request.path else None
    for name in CREDENTIAL_HEADERS:
        value = request.headers.get(name)
        if value is None:
            continue
        key = value
        if name == "authorization":
            scheme, _, key = value.partition(" ")
            if scheme.lower() != "bearer":
                raise Refusal(INVALID_KEY, "The header 'authorization' has no key: send 'Authorization: Bearer <key>'.")
        key = key.strip()
        if not key:
            raise Refusal(INVALID_KEY, f"The header '{name}' has no key.")
        if found is not None and found != key:
            raise Refusal(INVALID_KEY, _TWO)
        found = key
    return found


def _in_query(path: str, parameter: str) -> str | None:
    keys = {value for name, value in parse_qsl(path.partition("?")[2]) if name == parameter}
    if len(keys) > 1:
        raise Refusal(INVALID_KEY, _TWO)
    return next(iter(keys), None)


def _expiry(day: date | None) -> float | None:
    return None if day is None else datetime.combine(day, time.min, UTC).timestamp()

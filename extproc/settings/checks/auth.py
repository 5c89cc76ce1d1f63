"""Contradictions and lints of the auth settings. See `checks`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from extproc.access.auth import ANONYMOUS, hash_key
from extproc.settings.document import Found
from extproc.words.values import has_file, is_loopback

if TYPE_CHECKING:
    from extproc.access.auth import KeySettings
    from extproc.settings.config import Settings


def contradictions(settings: Settings) -> Iterator[Found]:
    """Contradictions of the auth settings. Each refuses the file."""
    secret = settings.auth.key_secret
    if secret is not None and settings.auth.read_key_secret() is None:
        yield ("auth", "key_secret"), f"{secret} is not set"
    known: set[str] = set()
    for index, entry in enumerate(settings.consumers):
        where = ("consumers", index)
        if entry.name in known:
            yield (*where, "name"), f"another entry has the name {entry.name!r}"
        known.add(entry.name)
        if entry.name == ANONYMOUS:
            yield (*where, "name"), "this name is reserved for requests without a credential"
        if entry.team is not None and entry.team not in settings.teams:
            yield (*where, "team"), f"there is no team {entry.team!r} in teams"
        for number, group in enumerate(entry.groups):
            if group not in settings.groups:
                yield (*where, "groups", number), f"there is no group {group!r} in groups"
        names: set[str] = set()
        for number, key in enumerate(entry.keys):
            name = str(number) if key.name is None else key.name
            if key.hash is not None and secret is None:
                yield (*where, "keys", number), "a hash needs auth.key_secret, the secret it was made with"
            if name in names:
                yield (*where, "keys", number), f"another key of {entry.name} has the name {name!r}"
            names.add(name)
    yield from _shared_keys(settings)
    yield from _shared_names(settings)
    yield from _issuer_contradictions(settings)


def _shared_keys(settings: Settings) -> Iterator[Found]:
    """Contradictions of equal keys, found by their hashes, so that a key equals its own hash in the settings."""
    secret = settings.auth.read_key_secret()
    owners: dict[str, str] = {}
    for index, entry in enumerate(settings.consumers):
        for number, key in enumerate(entry.keys):
            hashed = _hashed(key, secret or "")
            owner = owners.setdefault(hashed, entry.name) if hashed else entry.name
            if owner != entry.name:
                yield ("consumers", index, "keys", number), f"consumer {owner} has the same key: give each its own"


def _hashed(key: KeySettings, secret: str) -> str | None:
    value = key.secret.read() if key.secret is not None else None
    return key.hash if value is None else hash_key(value, secret)


def _shared_names(settings: Settings) -> Iterator[Found]:
    for field in ("subjects", "certificates"):
        owners: dict[str, str] = {}
        for index, entry in enumerate(settings.consumers):
            for number, name in enumerate(getattr(entry, field)):
                owner = owners.setdefault(name, entry.name)
                if owner != entry.name:
                    yield ("consumers", index, field, number), f"consumer {owner} lists the same name"


def _issuer_contradictions(settings: Settings) -> Iterator[Found]:
    for (first, one), (second, two) in combinations(enumerate(settings.auth.jwt), 2):
        if one.issuer == two.issuer:
            yield ("auth", "jwt", second, "issuer"), f"auth.jwt.{first} has the same issuer"
        elif one.prefix.startswith(two.prefix) or two.prefix.startswith(one.prefix):
            message = f"{one.issuer} could name the same consumers: give both prefixes, neither the start of the other"
            yield ("auth", "jwt", second, "prefix"), message


def doubts(settings: Settings) -> Iterator[Found]:
    """Lints of the auth settings. Never raises."""
    auth = settings.auth
    enters = any(entry.can_enter for entry in settings.consumers)
    if auth.required and not auth.jwt and not enters:
        yield ("consumers",), "no consumer has a credential and auth.required is true: every request is refused"
    for index, entry in enumerate(settings.consumers):
        where = ("consumers", index)
        if not entry.can_enter and enters:
            yield where, "has no keys, subjects or certificates: no request can come from it"
        for number, key in enumerate(entry.keys):
            if key.secret is not None and key.secret.read() is None:
                yield (*where, "keys", number), f"{key.secret} is not set: requests with this key are refused"
        if entry.subjects and not auth.jwt:
            yield (*where, "subjects"), "have no effect without auth.jwt"
        if entry.certificates and (settings.listener.tls is None or settings.listener.tls.client_ca is None):
            yield (*where, "certificates"), "have no effect without listener.tls.client_ca, except in attach mode"
    yield from _issuer_doubts(settings)


def _issuer_doubts(settings: Settings) -> Iterator[Found]:
    for index, issuer in enumerate(settings.auth.jwt):
        where = ("auth", "jwt", index)
        if issuer.jwks_uri is not None:
            url = urlsplit(issuer.jwks_uri)
            if url.scheme == "http" and not is_loopback(url.hostname or ""):
                yield (
                    (*where, "jwks_uri"),
                    "http:// is not encrypted: an attacker on the network can replace the issuer's keys",
                )
        elif issuer.jwks is not None and not has_file(issuer.jwks.removeprefix("file:")):
            yield (*where, "jwks"), "this file does not exist here: Envoy does not start without it"
        for field, known in (("team", settings.teams), ("groups", settings.groups)):
            if getattr(issuer, field) is not None and not known:
                yield (*where, field), "the settings define none: tokens of this issuer may use no model"

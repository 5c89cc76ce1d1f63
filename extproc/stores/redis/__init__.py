"""Counters in a Redis (or Valkey) that a fleet of gateways shares: `redis://host:port/db`, `rediss://` over TLS.

    redis://[user@]host[:port][,host[:port]…][/db][?password=env:NAME|file:/path][&ca=/path][&prefix=name]
    [&sentinel=name][&sentinel_password=env:NAME|file:/path]

Several hosts are nodes of one cluster, or with `sentinel` the Sentinels that know the primary of that name.
This file reads the address and imports no client; the client is an extra, imported only when the store is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from extproc.words.values import Secret, has_package, is_private, secret

if TYPE_CHECKING:
    from extproc.stores import Counters, Waits

FORM = "redis://user@host:6379/0?password=env:NAME (rediss:// for TLS)"
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPTIONS = {"password", "ca", "prefix", "sentinel", "sentinel_password"}
_MOST_HOSTS = 32
_PORT, _SENTINEL_PORT = 6379, 26379


@dataclass(slots=True, frozen=True)
class RedisURL:
    """The address of the store. `prefix` keeps gateways that share a Redis apart, and is the hash tag of every key.

    `others` are further hosts, with ports. `sentinel` is the primary's name at Sentinels, which the hosts then are.
    """

    host: str
    port: int = 6379
    db: int = 0
    tls: bool = False
    user: str | None = None
    password: Secret | None = None
    ca: str | None = None
    prefix: str = "extproc"
    others: Sequence[tuple[str, int]] = ()
    sentinel: str = ""
    sentinel_password: Secret | None = None

    @property
    def places(self) -> Sequence[tuple[str, int]]:
        """Every host with its port."""
        return ((self.host, self.port), *self.others)


def parse(url: str) -> RedisURL:
    """Read a URL. The messages of its ValueErrors repeat nothing that could be a secret."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"redis: cannot be read; expected {FORM}") from None
    options = dict(query)
    places = _places(parts, _SENTINEL_PORT if "sentinel" in options else _PORT)
    if parts.password is not None:
        raise ValueError(
            "redis: the password is a reference, ?password=env:NAME or file:/path, never the secret itself"
        )
    if parts.fragment or len(options) < len(query) or not options.keys() <= _OPTIONS:
        raise ValueError(f"redis: expected {FORM}, with each of {', '.join(sorted(_OPTIONS))} at most once")
    db = parts.path.removeprefix("/") or "0"
    if not (db.isascii() and db.isdecimal() and len(db) <= 4):
        raise ValueError(f"redis: the database must be a number; expected {FORM}")
    password = secret(options["password"]) if "password" in options else None
    user = unquote(parts.username) if parts.username else None
    if user is not None and password is None:
        raise ValueError("redis: a user needs a password, ?password=env:NAME or file:/path")
    tls = parts.scheme == "rediss"
    if "ca" in options and not tls:
        raise ValueError("redis: ca needs rediss://")
    prefix = options.get("prefix", "extproc")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("redis: a prefix has 1 to 64 letters, digits, dots, dashes or underscores")
    name = options.get("sentinel", "")
    if "sentinel" in options and not _PREFIX.fullmatch(name):
        raise ValueError("redis: sentinel is the primary's name: 1 to 64 letters, digits, dots, dashes or underscores")
    if "sentinel_password" in options and not name:
        raise ValueError("redis: sentinel_password needs sentinel")
    own = secret(options["sentinel_password"]) if "sentinel_password" in options else None
    (host, port), *others = places
    return RedisURL(host, port, int(db), tls, user, password, options.get("ca"), prefix, tuple(others), name, own)


def _places(parts: SplitResult, port: int) -> Sequence[tuple[str, int]]:
    """The hosts of a URL with their ports; `port` is the usual one. Raises ValueError."""
    found = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{text}")
            found.append((one.hostname or "", one.port or port))
        except ValueError:
            raise ValueError(f"redis: a host cannot be read; expected {FORM}") from None
    if len(found) > _MOST_HOSTS or not all(host for host, _ in found):
        raise ValueError(f"redis: expected {FORM}, with 1 to {_MOST_HOSTS} hosts")
    return found


def check(url: str) -> None:
    """Raise ValueError for an invalid `url`, or if the client is not installed."""
    parse(url)
    if not has_package("redis"):
        raise ValueError("redis: needs a client: pip install 'llm-extproc[redis]'")


def doubts(url: str) -> Iterator[str]:
    """Lints of the URL."""
    parsed = parse(url)
    for password in (parsed.password, parsed.sentinel_password):
        if password is not None and password.read() is None:
            yield f"{password} is not set: the store cannot be reached"
    if not parsed.tls and not all(is_private(host) for host, _ in parsed.places):
        yield "the connection is not encrypted: use rediss://"


def from_url(url: str, waits: Waits) -> Counters:
    check(url)
    from extproc.stores.redis.counters import RedisCounters  # noqa: PLC0415 - an extra

    return RedisCounters(parse(url), timeout=waits.timeout, patience=waits.patience)

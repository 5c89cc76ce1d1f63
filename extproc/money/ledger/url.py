"""The address of a ledger: its URL, read and checked without opening anything."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from extproc.words.values import Secret, secret

FORM = "postgresql://user@host:5432/database?password=env:NAME&sslmode=verify-full"
_OPTIONS = {"password", "sslmode", "sslrootcert", "host"}
_SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


@dataclass(slots=True, frozen=True)
class PostgresServer:
    """A PostgreSQL. A `host` that begins with a slash is the folder of its unix socket."""

    host: str
    port: int
    database: str
    user: str
    password: Secret | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None

    @property
    def is_local(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_encrypted(self) -> bool:
        """True when an unencrypted connection would be refused."""
        return self.sslmode in ("require", "verify-ca", "verify-full")


@dataclass(slots=True, frozen=True)
class LedgerURL:
    """A file, a server, or, with neither, this process's memory."""

    path: str | None = None
    server: PostgresServer | None = None


def parse(url: str) -> LedgerURL:
    """Read a URL. The messages of its ValueErrors repeat nothing that could be a secret."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory" and not rest:
        return LedgerURL()
    if colon and scheme == "sqlite":
        if not rest or "\0" in rest:
            raise ValueError("sqlite: needs a path, for example sqlite:data/ledger.db")
        return LedgerURL(path=rest)
    if colon and scheme == "postgresql":
        return LedgerURL(server=_server(url))
    raise ValueError("the ledger must be one of memory:, postgresql:, sqlite:")


def _server(url: str) -> PostgresServer:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"postgresql: cannot be read; expected {FORM}") from None
    options = dict(query)
    if parts.password is not None:
        raise ValueError(
            "postgresql: the password is a reference, ?password=env:NAME or file:/path, never the secret itself"
        )
    if "host" in options:
        if host or not options["host"].startswith("/"):
            raise ValueError(
                "postgresql: host is the folder of a unix socket, in the place of the host before the path"
            )
        host = options["host"]
    database = unquote(parts.path.removeprefix("/"))
    if not (host and parts.username and database) or parts.fragment or "/" in database or "\0" in unquote(url):
        raise ValueError(f"postgresql: needs a user, a host and a database; expected {FORM}")
    if len(options) < len(query) or not options.keys() <= _OPTIONS:
        raise ValueError("postgresql: takes password, sslmode, sslrootcert and host, each at most once")
    sslmode = options.get("sslmode", "prefer")
    if sslmode not in _SSL_MODES:
        raise ValueError(f"postgresql: sslmode must be one of {', '.join(_SSL_MODES)}")
    return PostgresServer(
        host,
        port or 5432,
        database,
        unquote(parts.username),
        secret(options["password"]) if "password" in options else None,
        sslmode,
        options.get("sslrootcert"),
    )

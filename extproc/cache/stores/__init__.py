"""Stores of kept answers: memory, SQLite, Redis, a file each. They hold only bytes under digests.

memory:                    one process
sqlite:PATH                one machine; survives restarts
redis://host:6379/0        a fleet; see `stores.redis` for the whole address
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from extproc.stores.redis import check as check_redis
from extproc.stores.redis import doubts as doubt_redis
from extproc.stores.redis import parse as parse_redis

OVERHEAD = 480
"""Bytes of memory that an entry takes beside its value: digests, dictionaries, rows."""


class CacheError(Exception):
    """A store does not answer. Its text holds no secret."""


class Store(Protocol):
    """A store of bytes under keys of 32 bytes, for a time. `owner` is a digest, too. All methods raise CacheError."""

    async def get(self, key: bytes) -> bytes | None: ...

    async def put(self, key: bytes, value: bytes, owner: bytes, ttl: float) -> None: ...

    async def forget(self, owner: bytes) -> int:
        """Delete the entries of an owner. Returns their number."""
        ...

    async def clear(self) -> int:
        """Delete all entries. Returns their number."""
        ...

    async def stats(self) -> Mapping[str, int]:
        """The store's `entries`, `bytes` and `limit` (bytes; 0: the store sets its own limit)."""
        ...

    async def close(self) -> None: ...


MEMORY = "memory:"


def is_memory(url: str) -> bool:
    return url == MEMORY


def check(url: str) -> None:
    """Raise ValueError for a `url` that `open_store` would refuse. Opens nothing; the error repeats no secret."""
    scheme, _, rest = url.partition(":")
    if scheme in ("redis", "rediss"):
        check_redis(url)
        found = parse_redis(url)
        if found.others or found.sentinel:
            raise ValueError("redis: the cache takes one host, without sentinel")
    elif scheme == "sqlite" and not rest:
        raise ValueError("sqlite: needs a path, for example sqlite:data/cache.db")
    elif url != "memory:" and scheme != "sqlite":
        raise ValueError("the cache must be memory:, sqlite:PATH or redis://host:port/db")


def doubts(url: str) -> Iterator[str]:
    """Lints of a URL that `check` accepted."""
    if url.startswith("redis"):
        yield from doubt_redis(url)


def open_store(url: str, *, memory: int, disk: int, name: str = "") -> Store:
    """Open a store at a URL that `check` accepts, with a limit in bytes. `name` is the name of a store beside that of
    answers. Raises CacheError.
    """
    if url.startswith("redis"):
        from extproc.cache.stores.redis import RedisStore  # noqa: PLC0415 - an extra

        return RedisStore(url, name or "cache")
    if url.startswith("sqlite:"):
        from extproc.cache.stores.sqlite import SqliteStore  # noqa: PLC0415 - most do without

        path = Path(url.removeprefix("sqlite:"))
        return SqliteStore(str(path.with_stem(f"{path.stem}-{name}") if name else path), disk)
    from extproc.cache.stores.memory import MemoryStore  # noqa: PLC0415

    return MemoryStore(memory)

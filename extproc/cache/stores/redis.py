"""Kept answers in a Redis (or Valkey) that a fleet shares. It bounds its own memory: set `maxmemory` and an
`allkeys-lru` policy, and give budgets a Redis of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.connection import BlockingConnectionPool, Connection
from redis.exceptions import RedisError

from extproc.cache.stores import CacheError
from extproc.stores.redis import parse
from extproc.stores.redis.link import connection_options

T = TypeVar("T")
_TIMEOUT = 0.25  # seconds to wait for Redis; then a provider is asked
_CONNECTIONS = 16
_BATCH = 500  # most keys of one call


class RedisStore:
    """Keys are `{prefix}:a:DIGEST`; `{prefix}:o:DIGEST` is the set of an owner's keys."""

    def __init__(self, url: str, name: str = "cache") -> None:
        found = parse(url)
        pool = BlockingConnectionPool(
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT,
            connection_class=SSLConnection if found.tls else Connection,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            **connection_options(found),
        )
        self._redis: Any = Redis(connection_pool=pool)
        self._prefix = f"{{{found.prefix}-{name}}}:".encode()

    async def _ask(self, answer: Awaitable[T]) -> T:
        """The answer of a call. It runs in a task: the client's timeouts need one, and the first step of an exchange's
        call has none.
        """
        try:
            return await asyncio.ensure_future(answer)
        except (RedisError, OSError, TimeoutError) as error:
            raise CacheError(type(error).__name__) from None

    async def get(self, key: bytes) -> bytes | None:
        return await self._ask(self._redis.get(self._prefix + b"a:" + key))

    async def put(self, key: bytes, value: bytes, owner: bytes, ttl: float) -> None:
        name, whose = self._prefix + b"a:" + key, self._prefix + b"o:" + owner
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(name, value, px=max(1, int(ttl * 1000)))
        pipe.sadd(whose, key)
        pipe.expire(whose, int(ttl) + 60, gt=True)  # the set lives as long as its youngest key
        pipe.expire(whose, int(ttl) + 60, nx=True)
        await self._ask(pipe.execute())

    async def forget(self, owner: bytes) -> int:
        whose = self._prefix + b"o:" + owner
        keys = [self._prefix + b"a:" + key for key in await self._ask(self._redis.smembers(whose))]
        count = await self._delete(keys)
        await self._ask(self._redis.unlink(whose))
        return count

    async def clear(self) -> int:
        keys = await self._keys(b"a:")
        count = await self._delete(keys)
        await self._delete(await self._keys(b"o:"))
        return count

    async def _keys(self, kind: bytes) -> list[bytes]:
        async def scan() -> list[bytes]:
            return [key async for key in self._redis.scan_iter(self._prefix + kind + b"*", count=_BATCH)]

        return await self._ask(scan())

    async def _delete(self, keys: list[bytes]) -> int:
        count = 0
        for at in range(0, len(keys), _BATCH):
            count += await self._ask(self._redis.unlink(*keys[at : at + _BATCH]))
        return count

    async def stats(self) -> Mapping[str, int]:
        """See `Store.stats`; the bytes are those of the whole Redis."""
        entries = len(await self._keys(b"a:"))
        memory = await self._ask(self._redis.info("memory"))
        return {"entries": entries, "bytes": int(memory["used_memory"]), "limit": int(memory.get("maxmemory", 0))}

    async def close(self) -> None:
        await self._ask(self._redis.aclose(close_connection_pool=True))

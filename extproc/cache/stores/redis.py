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
from extproc.stores.redis.link import Credentials

T = TypeVar("T")
_TIMEOUT = 0.25  # seconds of an answer: a provider is asked instead
_LONGEST_CONNECT = 1.0  # seconds
_CONNECTIONS = 16
_BATCH = 500  # keys of one call


def connect(url: str, *, connections: int, timeout: float) -> Any:
    """A client with so many connections at most. It opens them when they are needed, and raises where there is no
    answer within `timeout` seconds.
    """
    found = parse(url)
    options: dict[str, Any] = {"host": found.host, "port": found.port, "db": found.db, "protocol": 2}
    options |= {"socket_timeout": timeout, "socket_connect_timeout": min(timeout, _LONGEST_CONNECT), "timeout": timeout}
    if found.password is not None:
        options["credential_provider"] = Credentials(found.user, found.password)
    if found.tls:
        options |= {"connection_class": SSLConnection, "ssl_check_hostname": True, "ssl_ca_certs": found.ca}
    else:
        options["connection_class"] = Connection
    return Redis(connection_pool=BlockingConnectionPool(max_connections=connections, **options))


class RedisStore:
    """Keys are `{prefix}:a:DIGEST`; `{prefix}:o:DIGEST` is the set of an owner's keys."""

    def __init__(self, url: str, name: str = "cache") -> None:
        self._redis = connect(url, connections=_CONNECTIONS, timeout=_TIMEOUT)
        self._prefix = f"{{{parse(url).prefix}-{name}}}:".encode()

    async def _ask(self, answer: Awaitable[T]) -> T:
        """The answer. The client has timeouts that only a task can have, and the first step of a call runs outside."""
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
        """The bytes are those of the whole Redis."""
        entries = len(await self._keys(b"a:"))
        memory = await self._ask(self._redis.info("memory"))
        return {"entries": entries, "bytes": int(memory["used_memory"]), "limit": int(memory.get("maxmemory", 0))}

    async def close(self) -> None:
        await self._ask(self._redis.aclose(close_connection_pool=True))

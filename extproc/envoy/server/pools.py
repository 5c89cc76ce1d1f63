"""Keeps pools up to date: looks up their endpoints, reads the endpoints' metrics, and gives the endpoints to Envoy.

Every worker keeps pools of its own, and the first one gives them to Envoy. A source that does not answer, or that names
no endpoint, changes nothing until it names some again: the endpoints that are known may well serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from extproc.envoy.server.discovery import ENDPOINTS, Discovery
from extproc.exchange.services import Services
from extproc.routing.pools import servers
from extproc.routing.pools.endpoint import Endpoint, Report
from extproc.routing.pools.pool import Pool
from extproc.settings.config import Settings
from extproc.settings.limits import LimitsSettings
from extproc.upstream.providers import ProviderSettings
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.urls import host_port, port_of

if TYPE_CHECKING:
    from extproc.wire.outbound.pool import ConnectionPool

log = logging.getLogger(__name__)

_AT_ONCE = 16  # pages of metrics read at the same time
_READ = 2.0  # seconds for a page
_AGAIN = 2.0  # seconds between attempts to follow a Service


class PoolKeeper:
    """Keeps the pools of one process. `publishes`: it gives Envoy their endpoints."""

    def __init__(self, discovery: Discovery, services: Services, *, publishes: bool) -> None:
        self.pools = services.pools
        services.telemetry.pool_endpoints.read = self._count_endpoints
        services.telemetry.pool_waiting.read = self._count_waiting
        self._discovery = discovery
        self._publishes = publishes
        self._providers: dict[str, ProviderSettings] = {}
        self._limits = LimitsSettings()
        self._served: dict[str, asyncio.Task[None]] = {}
        self._sources: dict[str, asyncio.Task[None]] = {}
        self._readers: dict[Endpoint, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._running = False

    def apply_settings(self, settings: Settings) -> None:
        """Keep the pools of these settings. A pool whose source stays keeps its endpoints."""
        self._limits = settings.limits
        wanted = {name: provider for name, provider in settings.providers.items() if provider.pool is not None}
        for name in [name for name in self.pools if name not in wanted]:
            self._end(name)
        for name, provider in wanted.items():
            before = self._providers.get(name)
            if before is not None and _source(before) == _source(provider):
                self.pools[name].apply(provider)
            else:
                self._end(name)
                self.pools[name] = Pool(name, provider)
            self._providers[name] = provider
        if self._running:
            self._start()

    async def run(self) -> None:
        """Follow the sources of all pools until cancelled."""
        self._running = True
        self._start()
        try:
            await asyncio.Event().wait()
        finally:
            for name in [*self.pools]:
                self._end(name)

    def _start(self) -> None:
        for name, pool in self.pools.items():
            if name not in self._sources:
                self._sources[name] = asyncio.create_task(self._follow(pool), name=f"pool {name}")
                if pool.settings.serve is not None and self._publishes:
                    from extproc.envoy.server.picking import serve  # noqa: PLC0415 - grpc takes 8 MB

                    self._served[name] = asyncio.create_task(serve(pool, lambda: self._limits), name=f"picker {name}")

    def _end(self, name: str) -> None:
        self._providers.pop(name, None)
        if (pool := self.pools.pop(name, None)) is not None:
            for endpoint in pool.endpoints.values():
                self._stop_reading(endpoint)
        for task in (self._sources.pop(name, None), self._served.pop(name, None)):
            if task is not None:
                task.cancel()

    def _stop_reading(self, endpoint: Endpoint) -> None:
        if (task := self._readers.pop(endpoint, None)) is not None:
            task.cancel()

    # --- sources

    async def _follow(self, pool: Pool) -> None:
        """Follow a pool's source until cancelled."""
        from extproc.envoy.server.slices import NotInClusterError, follow_slices  # noqa: PLC0415 - with the first pool
        from extproc.wire.outbound.pool import AnswerError  # noqa: PLC0415

        told = ""
        while True:
            provider = self._providers[pool.name]
            assert provider.pool is not None, "its pool is followed"
            problem = ""
            try:
                if provider.pool.service is not None:
                    await follow_slices(
                        provider.pool.service, port_of(provider.url), lambda found: self._update(pool, found)
                    )
                elif found := await _look_up(_places(provider)):
                    self._update(pool, found)
                else:
                    problem = "no name has an address"
            except (OSError, TimeoutError, AnswerError, NotInClusterError, ValueError) as error:
                problem = str(error) or type(error).__name__
            if problem != told:
                log.warning("endpoints of the pool %s: %s", pool.name, problem or "they are known again")
                told = problem
            pause = _AGAIN if provider.pool.service is not None else provider.pool.resolve
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    def _update(self, pool: Pool, found: Mapping[str, str]) -> None:
        """Take the endpoints that a source names, by address."""
        first = not pool.known
        joined, left = pool.update(found)
        for endpoint in left:
            self._stop_reading(endpoint)
        if pool.metrics != "none":
            for endpoint in joined:
                reader = asyncio.create_task(self._read(pool, endpoint), name=f"metrics {endpoint.address}")
                self._readers[endpoint] = reader
        if joined or left or first:
            log.info("pool %s: %d endpoints, %d joined, %d left", pool.name, len(found), len(joined), len(left))
            self._publish()

    def _publish(self) -> None:
        if self._publishes:
            known = {contract.pool_name(name): pool for name, pool in self.pools.items() if pool.known}
            self._discovery.set(ENDPOINTS, {name: assignment(name, [*pool.endpoints]) for name, pool in known.items()})

    def _count_endpoints(self) -> Mapping[tuple[str, ...], float]:
        return {(name, state): count for name, pool in [*self.pools.items()] for state, count in pool.states().items()}

    def _count_waiting(self) -> Mapping[tuple[str, ...], float]:
        return {(name,): len(pool.queue) for name, pool in [*self.pools.items()]}

    # --- the endpoints' own metrics

    async def _read(self, pool: Pool, endpoint: Endpoint) -> None:
        """Read an endpoint's metrics, again and again, until cancelled."""
        from extproc.wire.outbound.pool import ConnectionPool  # noqa: PLC0415 - with the first pool

        provider = self._providers[pool.name]
        host, _, port = endpoint.address.rpartition(":")
        if pool.settings.metrics_port is not None:
            port = str(pool.settings.metrics_port)
        # The certificate has the name of the Service, not the address. No credential is sent.
        client = ConnectionPool(f"{provider.url.scheme}://{host}:{port}", verify=False, most=servers.MOST_PAGE)
        try:
            while True:
                pool.report(endpoint, await self._page(client, pool.metrics))
                await asyncio.sleep(pool.settings.scrape * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        finally:
            client.close()

    async def _page(self, client: ConnectionPool, table: str) -> Report | None:
        """The load of an endpoint; None when its page cannot be read."""
        from extproc.wire.outbound.pool import AnswerError  # noqa: PLC0415 - with the first pool

        try:
            async with self._room, asyncio.timeout(_READ):
                status, _, page = await client.ask("/metrics", None, {"accept": "text/plain"}, "GET")
        except (OSError, TimeoutError, ValueError, AnswerError):
            return None
        return servers.read(page, table) if status == 200 else None


def _source(provider: ProviderSettings) -> object:
    """Settings whose change makes a new pool: its endpoints, the reading of their metrics, the address it serves."""
    pool = provider.pool
    assert pool is not None, "the provider has a pool"
    metrics = pool.metrics_of(provider.kind), pool.metrics_port
    return provider.base_url, pool.endpoints, pool.service, metrics, pool.serve, pool.serve_tls


def _places(provider: ProviderSettings) -> Sequence[tuple[str, int]]:
    """Host and port of each name of a pool's endpoints."""
    assert provider.pool is not None, "the provider has a pool"
    if not provider.pool.endpoints:
        return [(provider.url.hostname or "", port_of(provider.url))]
    parts = (entry.rpartition(":") for entry in provider.pool.endpoints)
    return [(host.strip("[]"), int(port)) for host, _, port in parts]


async def _look_up(places: Sequence[tuple[str, int]]) -> Mapping[str, str]:
    """All addresses of the places, `ip:port`, each with its name. Names without an address are left out."""
    loop, found = asyncio.get_running_loop(), dict[str, str]()
    for host, port in places:
        with contextlib.suppress(OSError):  # gaierror: one name of several may be gone
            for *_, address in await loop.getaddrinfo(host, port):  # an address comes for each type of socket
                found[host_port(str(address[0]), port)] = host
    return found


def assignment(name: str, addresses: Sequence[str]) -> bytes:
    """Envoy's message with the endpoints of a pool."""
    found = []
    for each in addresses:
        host, _, port = each.rpartition(":")
        address = pb.Address(socket_address=pb.SocketAddress(address=host.strip("[]"), port_value=int(port)))
        found.append(pb.LbEndpoint(endpoint=pb.Endpoint(address=address)))
    return pb.ClusterLoadAssignment(
        cluster_name=name, endpoints=[pb.LocalityLbEndpoints(lb_endpoints=found)]
    ).SerializeToString()

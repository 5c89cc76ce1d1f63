"""Discovery: Envoy asks this process for clusters, listeners, routes and certificates, and accepts or refuses them.

Each kind of resource has its own gRPC stream. Envoy's first message asks for resources; every later one accepts or
refuses the last ones. An answer waits until the stream's resources change. Envoy compares resources by content, so each
answer has all resources of a kind and only differences take effect.

Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol ("state of the world").

With watched files, only Envoy's admin interface would show whether Envoy accepted them. A stream gets Envoy's answer,
with the reason. With one stream for each kind an answer can wait for changes, and this process decides the order.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence

from extproc.envoy.server.wire import parsed
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Calls, GrpcCall

CLUSTERS, LISTENERS, ROUTES, SECRETS, ENDPOINTS = "clusters", "listeners", "routes", "secrets", "endpoints"
_SERVICES = {
    CLUSTERS: ("envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters", "envoy.config.cluster.v3.Cluster"),
    LISTENERS: (
        "envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
        "envoy.config.listener.v3.Listener",
    ),
    ROUTES: (
        "envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        "envoy.config.route.v3.RouteConfiguration",
    ),
    SECRETS: (
        "envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
    ),
    ENDPOINTS: (
        "envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
    ),
}
KINDS = CLUSTERS, LISTENERS, ROUTES, SECRETS
"""Kinds of resources that follow the settings. Endpoints follow the pools."""
_MOST_REASON = 300  # characters of Envoy's reason for a refusal

Resources = Mapping[str, bytes]
"""Envoy's messages of one kind, by name."""


class EnvoyRefusedError(Exception):
    """Envoy refused the resources. The message is its reason."""


class EnvoyAwayError(Exception):
    """No Envoy is connected, or none answered in time."""


class Discovery:
    """Resources that Envoy should have. A kind is sent only after its first offer."""

    def __init__(self) -> None:
        self._kinds = {name: _Kind(f"type.googleapis.com/{message}") for name, (_, message) in _SERVICES.items()}
        self.asked = asyncio.Event()
        """Set when an Envoy has connected."""

    def calls(self) -> Calls:
        """Methods of gRPC, by path."""
        return {f"/{path}": self._opener(self._kinds[name]) for name, (path, _) in _SERVICES.items()}

    def _opener(self, kind: _Kind) -> Callable[[Mapping[str, str]], _Stream]:
        """A factory for the calls of one method."""

        def open_stream(_metadata: Mapping[str, str]) -> _Stream:
            self.asked.set()
            return _Stream(kind)

        return open_stream

    @property
    def connected(self) -> bool:
        """True while an Envoy gets its clusters from this process."""
        return bool(self._kinds[CLUSTERS].streams)

    async def offer(self, kind: str, resources: Resources, within: float) -> None:
        """Replace the resources of a kind, and wait up to `within` seconds until every connected Envoy has accepted
        them. Raises EnvoyRefusedError, EnvoyAwayError.
        """
        self.set(kind, resources)
        found = self._kinds[kind]
        try:
            async with asyncio.timeout(within):
                while not found.settled:
                    await found.news()
        except TimeoutError:
            raise EnvoyAwayError from None

    def set(self, kind: str, resources: Resources) -> None:
        """Replace the resources of a kind without waiting."""
        self._kinds[kind].take(resources)

    def leave(self) -> None:
        """End the streams when this process stops. Envoy keeps its resources."""
        for kind in self._kinds.values():
            kind.leave()


class _Kind:
    """Resources of one kind, and the streams that receive them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.version = ""  # version of the resources; empty before the first ones
        self.leaving = False
        self.refusal: str | None = None  # the reason why Envoy refused this version
        self.streams: set[_Stream] = set()
        self._resources: Resources = {}
        self._waiting: list[asyncio.Future[None]] = []

    def take(self, resources: Resources) -> None:
        digest = hashlib.blake2b(digest_size=6)
        for name, message in sorted(resources.items()):
            digest.update(b"%s %d " % (name.encode(), len(message)) + message)
        if digest.hexdigest() != self.version:
            self.version, self._resources, self.refusal = digest.hexdigest(), resources, None
            self.ring()

    def find(self, names: Collection[str]) -> Sequence[bytes]:
        """All resources, or those of `names`."""
        return [value for name, value in self._resources.items() if not names or name in names]

    def message(self, nonce: str, found: Sequence[bytes]) -> bytes:
        resources = [pb.Any(type_url=self._url, value=value) for value in found]
        answer = pb.DiscoveryResponse(version_info=self.version, resources=resources, type_url=self._url, nonce=nonce)
        return answer.SerializeToString()

    @property
    def settled(self) -> bool:
        """True when every stream has accepted this version. Raises EnvoyRefusedError."""
        if self.refusal is not None:
            raise EnvoyRefusedError(self.refusal)
        return bool(self.streams or not self._resources) and all(
            stream.accepted == self.version for stream in self.streams
        )

    def leave(self) -> None:
        self.leaving = True
        self.ring()

    def ring(self) -> None:
        """Wake all waiters for news."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def news(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future


class _Stream(GrpcCall):
    """One stream of one kind."""

    done = False

    def __init__(self, kind: _Kind) -> None:
        self._kind = kind
        self._sent = ""  # version sent last
        self._nonce = 0
        self.accepted = ""  # version accepted last
        kind.streams.add(self)

    async def on_message(self, data: bytes | memoryview) -> Sequence[bytes]:
        request, kind = parsed(pb.DiscoveryRequest, data), self._kind
        if self._nonce:
            if request.response_nonce != str(self._nonce):  # a response to an earlier message
                return ()
            if not request.HasField("error_detail"):
                self.accepted = self._sent
            elif self._sent == kind.version:
                text = "".join(letter if letter.isprintable() else " " for letter in request.error_detail.message)
                kind.refusal = text[:_MOST_REASON]
            kind.ring()
        while True:
            while kind.version == self._sent and not kind.leaving:
                await kind.news()
            if kind.leaving:
                self.done = True
                return ()
            self._sent = kind.version
            if found := kind.find(request.resource_names):
                self._nonce += 1
                return (kind.message(str(self._nonce), found),)
            self.accepted = self._sent  # no message: Envoy would refuse an empty one for a named resource
            kind.ring()

    async def on_end(self) -> None:
        self._kind.streams.discard(self)
        self._kind.ring()

"""A private listener for the processor's own requests: lists and handshakes of MCP servers, and guardrail questions to
clouds whose requests Envoy signs.

A server's hop is built like a provider's, see `tries` and `upstream`. The route of profiles is in `public`. A
guardrail's question goes directly to its provider's cluster, which signs it: there are no client headers for a hop to
remove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.listener import v3 as listenerv3
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3

from extproc.envoy.envoy_config.tries import host_header, provider_cluster
from extproc.envoy.envoy_config.typed import buffer_bytes, http_chain, http_filter, seconds
from extproc.settings.config import Settings
from extproc.tools.mcp.settings import HOP
from extproc.wire.transport import workers
from extproc.wire.transport.workers import SIGNED

LISTENER = "private"
"""Name of the private listener."""
_LONGEST = 10.0  # seconds of the longest request; guardrails wait at most 9


def listener(settings: Settings, socket: str | None, places: Mapping[str, str]) -> Sequence[listenerv3.Listener]:
    """The private listener: `/<server>` leads to an MCP server's hop, `/signed/<provider>/` to a provider. Its unix
    socket has mode 0600.
    """
    servers = {} if settings.mcp is None else settings.mcp.servers
    routes = [
        *(_server(settings, name, places[HOP + name]) for name in servers),
        *(_signed(settings, name, places[name]) for name in settings.asked_through_envoy),
    ]
    if not routes:
        return []
    path = workers.private_socket(socket or settings.processor.path)
    manager = hcmv3.HttpConnectionManager(
        stat_prefix=LISTENER,
        generate_request_id=False,
        skip_xff_append=True,
        stream_idle_timeout=seconds(max([server.timeout for server in servers.values()], default=_LONGEST) + 30),
        http_filters=[http_filter("router", Router(suppress_envoy_headers=True))],
        route_config=routev3.RouteConfiguration(
            name=LISTENER, virtual_hosts=[routev3.VirtualHost(name=LISTENER, domains=["*"], routes=routes)]
        ),
    )
    return [
        listenerv3.Listener(
            name=LISTENER,
            address=corev3.Address(pipe=corev3.Pipe(path=path, mode=0o600)),
            per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
            filter_chains=http_chain(manager),
        )
    ]


def _server(settings: Settings, name: str, place: str) -> routev3.Route:
    assert settings.mcp is not None
    idle = settings.mcp.servers[name].timeout + 30
    return routev3.Route(
        name=name,
        match=routev3.RouteMatch(path=f"/{name}"),
        route=routev3.RouteAction(cluster=place, timeout=seconds(0), idle_timeout=seconds(idle)),
        request_body_buffer_limit=buffer_bytes(settings.limits.request_body),
    )


def _signed(settings: Settings, name: str, place: str) -> routev3.Route:
    url = settings.providers[name].url
    return routev3.Route(
        name=f"signed-{name}",
        match=routev3.RouteMatch(prefix=f"{SIGNED}{name}/"),
        route=routev3.RouteAction(
            cluster=provider_cluster(place),
            host_rewrite_literal=host_header(url),
            prefix_rewrite=url.path.rstrip("/") + "/",
            timeout=seconds(_LONGEST),
        ),
        request_body_buffer_limit=buffer_bytes(settings.limits.request_body),
    )

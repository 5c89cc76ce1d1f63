"""A private listener through which the processor itself asks MCP servers for their lists and handshakes.

The hop of a server is that of a provider, see `tries` and `upstream`; the route of profiles is in `public`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envoy_data_plane.envoy.config.core.v3 import Address, Pipe
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager

from extproc.envoy_config.typed import buffer_bytes, http_filter, pack, seconds
from extproc.mcp.settings import HOP
from extproc.settings.config import Settings
from extproc.words import workers

LISTENER = "mcp-servers"
"""The private listener."""


def listener(settings: Settings, socket: str | None, places: Mapping[str, str]) -> Sequence[Listener]:
    """The private listener: `/<server>` leads into the hop of that server. Its unix socket has the mode 0600."""
    if settings.mcp is None:
        return []
    path = workers.servers_socket(socket or settings.processor.path)
    routes = [
        Route(
            name=name,
            match=RouteMatch(path=f"/{name}"),
            route=RouteAction(
                cluster=places[HOP + name], timeout=seconds(0), idle_timeout=seconds(server.timeout + 30)
            ),
            request_body_buffer_limit=buffer_bytes(settings),
        )
        for name, server in settings.mcp.servers.items()
    ]
    manager = HttpConnectionManager(
        stat_prefix=LISTENER,
        generate_request_id=False,
        skip_xff_append=True,
        stream_idle_timeout=seconds(max(server.timeout for server in settings.mcp.servers.values()) + 30),
        http_filters=[http_filter("router", Router(suppress_envoy_headers=True))],
        route_config=RouteConfiguration(
            name=LISTENER, virtual_hosts=[VirtualHost(name=LISTENER, domains=["*"], routes=routes)]
        ),
    )
    filters = [Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))]
    return [
        Listener(
            name=LISTENER,
            address=Address(pipe=Pipe(path=path, mode=0o600)),
            per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
            filter_chains=[FilterChain(filters=filters)],
        )
    ]

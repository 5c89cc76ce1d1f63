"""The public listener: the edge, the gateway attachment, and the route whose retries are the failover.

The virtual host enables the gateway filter, not the listener. So a request that Envoy refuses before routing (too many
headers, a bad length) gets an answer in the gateway's shape, not a closed connection. Every route has a virtual host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import betterproto2
from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutationv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.listener import v3 as listenerv3
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.compression.gzip.decompressor.v3 import Gzip
from envoy_data_plane.envoy.extensions.compression.zstd.decompressor.v3 import Zstd
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import Cors, CorsPolicy
from envoy_data_plane.envoy.extensions.filters.http.decompressor import v3 as decompressorv3
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as extprocv3
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as headermutationv3
from envoy_data_plane.envoy.extensions.filters.http.lua import v3 as luav3
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher import v3 as matcherv3
from envoy_data_plane.google.protobuf import Any as Packed

from extproc.dialects import path_regex, served
from extproc.envoy.envoy_config import identity, pages, processor, replies, traces, typed
from extproc.envoy.envoy_config.typed import pack, seconds
from extproc.settings.config import Settings
from extproc.settings.listener import CORSSettings
from extproc.words import contract
from extproc.words.errors import UNSUPPORTED_ENCODING

NO_ORDER = "no-order"
"""A cluster without endpoints, for requests without an order from the processor. Envoy answers them with 503."""

ENVOY_PREFIX = "x-envoy-"

_MCP_HEADERS = (
    *("content-type", "accept", "authorization", "x-api-key", "last-event-id"),
    *("mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name"),
)
"""Request headers of web pages that call MCP profiles."""
ROUTES = "public"


def listener(settings: Settings, *, dynamic: bool = False) -> listenerv3.Listener:
    door = settings.listener
    made = _manager(settings)
    if dynamic:
        made.rds = hcmv3.Rds(config_source=processor.discovered(settings), route_config_name=ROUTES)
    else:
        made.route_config = routes(settings)
    tls = None
    if door.tls is not None:
        source = processor.discovered(settings) if dynamic else None
        context = pack(identity.tls_context(door.tls, source))
        tls = corev3.TransportSocket(name="envoy.transport_sockets.tls", typed_config=context)
    return listenerv3.Listener(
        name="public",
        address=typed.socket_address(door.address, door.port),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        # Keepalive: firewalls and address translators drop silent connections, some after four minutes. Models may
        # think longer before their first byte.
        tcp_keepalive=corev3.TcpKeepalive(keepalive_probes=4, keepalive_time=60, keepalive_interval=15),
        filter_chains=typed.http_chain(made, tls),
    )


def no_order() -> clusterv3.Cluster:
    return clusterv3.Cluster(name=NO_ORDER, type=clusterv3.ClusterDiscoveryType.STATIC, connect_timeout=seconds(1))


def _manager(settings: Settings) -> hcmv3.HttpConnectionManager:
    return hcmv3.HttpConnectionManager(
        stat_prefix="public",
        # The client's address is its connection's, not the one in x-forwarded-for.
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        # Official SDKs encode the slash of a model id. The processor refuses %2F except in /v1/models/{id}.
        path_with_escaped_slashes_action=hcmv3.HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
        common_http_protocol_options=corev3.HttpProtocolOptions(
            idle_timeout=seconds(900),
            max_stream_duration=seconds(settings.limits.stream_duration),
            # Rejects x_ai_team, which some servers read as x-ai-team.
            headers_with_underscores_action=corev3.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
        ),
        # nginx forwards requests as HTTP/1.0 by default, and may omit the host.
        http_protocol_options=corev3.Http1ProtocolOptions(accept_http_10=True, default_host_for_http_10="gateway"),
        http2_protocol_options=corev3.Http2ProtocolOptions(
            max_concurrent_streams=100,
            initial_stream_window_size=1 << 20,
            initial_connection_window_size=4 << 20,
            connection_keepalive=corev3.KeepaliveSettings(interval=seconds(60), timeout=seconds(20)),
        ),
        request_headers_timeout=seconds(10),
        request_timeout=seconds(settings.limits.body_timeout),  # limit for the arrival of the whole body
        stream_idle_timeout=seconds(settings.limits.stream_idle),
        # Limit for a client that reads the rest of its answer.
        stream_flush_timeout=seconds(settings.limits.stream_idle),
        server_header_transformation=hcmv3.HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        always_set_request_id_in_response=True,
        early_header_mutation_extensions=[_forged_headers()],
        local_reply_config=replies.public(settings.limits.request_body, mcp=settings.mcp is not None),
        access_log=processor.end_logs(settings),
        tracing=traces.of_requests(settings),
        http_filters=[
            _internal_headers(),
            _lua(),
            # answers preflight requests
            *(
                [typed.http_filter("cors", Cors())]
                if settings.listener.cors or (settings.mcp is not None and settings.mcp.origins)
                else []
            ),
            *_compressed_bodies(),
            _body_limit(settings),
            *identity.jwt_filters(settings),
            _gateway(settings),
            typed.http_filter("router", Router()),
        ],
    )


def _forged() -> list[mutationv3.HeaderMutation]:
    """Removes the gateway's internal headers."""
    return [typed.remove(typed.begins(prefix)) for prefix in (contract.PREFIX, ENVOY_PREFIX)]


def _forged_headers() -> corev3.TypedExtensionConfig:
    """Strips forged headers before routing and before every filter, also from requests that Envoy refuses."""
    config = EarlyHeaderMutation(mutations=_forged())
    return typed.extension("envoy.http.early_header_mutation.header_mutation", config)


def _internal_headers() -> hcmv3.HttpFilter:
    """The first filter sees answers last: it removes internal headers before they reach the client."""
    mutations = headermutationv3.Mutations(
        response_mutations=[typed.remove(typed.begins(contract.PREFIX)), typed.remove(typed.begins(ENVOY_PREFIX))]
    )
    return typed.http_filter("header_mutation", headermutationv3.HeaderMutation(mutations=mutations))


def _lua() -> hcmv3.HttpFilter:
    """The Lua filter, disabled except on the route of `_no_grpc`."""
    return hcmv3.HttpFilter(name="envoy.filters.http.lua", typed_config=pack(luav3.Lua()), disabled=True)


def _no_grpc() -> routev3.Route:
    """Refuses gRPC on every path. Envoy answers a refused gRPC request with 200 and `grpc-status`, so a script writes
    the status and body of other clients' refusals.
    """
    kind = UNSUPPORTED_ENCODING
    message = "gRPC is not served: send content-type: application/json."
    script = "\n".join(
        (
            "function envoy_on_response(handle)",
            "  local headers = handle:headers()",
            f'  headers:replace(":status", "{kind.status}")',
            '  headers:replace("content-type", "application/json")',
            f'  headers:replace("{replies.ORIGIN}", "gateway")',
            '  headers:remove("grpc-status")',
            '  headers:remove("grpc-message")',
            f"  handle:body(true):setBytes([==[{json.dumps(replies.error(kind, message))}]==])",
            "end",
        )
    )
    asked = routev3.HeaderMatcher(name="content-type", string_match=typed.begins("application/grpc"))
    rewritten = luav3.LuaPerRoute(source_code=corev3.DataSource(inline_string=script))
    return routev3.Route(
        name="grpc",
        match=routev3.RouteMatch(prefix="/", headers=[asked]),
        direct_response=routev3.DirectResponseAction(status=kind.status),
        typed_per_filter_config={
            "envoy.filters.http.ext_proc": pack(routev3.FilterConfig(disabled=True)),
            "envoy.filters.http.lua": pack(routev3.FilterConfig(config=pack(rewritten))),
        },
    )


def _compressed_bodies() -> Sequence[hcmv3.HttpFilter]:
    """Decompresses gzip and zstd request bodies for the other filters; answers pass unchanged."""
    off = decompressorv3.DecompressorCommonDirectionConfig(enabled=corev3.RuntimeFeatureFlag(default_value=False))
    libraries: Sequence[tuple[str, betterproto2.Message]] = (("gzip", Gzip()), ("zstd", Zstd()))
    return [
        typed.http_filter(
            f"decompressor.{name}",
            decompressorv3.Decompressor(
                decompressor_library=typed.extension(f"envoy.compression.{name}.decompressor", library),
                request_direction_config=decompressorv3.DecompressorRequestDirectionConfig(
                    advertise_accept_encoding=False
                ),
                response_direction_config=decompressorv3.DecompressorResponseDirectionConfig(common_config=off),
            ),
        )
        for name, library in libraries
    ]


def _cors(cors: CORSSettings) -> CorsPolicy:
    return CorsPolicy(
        allow_origin_string_match=[_origin(origin) for origin in cors.origins],
        allow_methods="GET, POST, DELETE",
        allow_headers=", ".join(cors.headers),
        expose_headers="*",
        max_age=str(int(cors.max_age)),
        forward_not_matching_preflights=False,
    )


def _preflights(name: str = "preflights", path: str = "/", cors: Mapping[str, Packed] | None = None) -> routev3.Route:
    """Route of preflight requests. The filter for cross-origin requests answers them, and finds its settings only on a
    route to a cluster.
    """
    asked = routev3.HeaderMatcher(name="access-control-request-method", present_match=True)
    return routev3.Route(
        name=name,
        match=routev3.RouteMatch(prefix=path, headers=[_asked("OPTIONS"), asked]),
        route=routev3.RouteAction(cluster=NO_ORDER),
        typed_per_filter_config=dict(cors or {}),
    )


def _origin(pattern: str) -> matcherv3.StringMatcher:
    """Matches an origin: any, one, or one with a star for subdomains."""
    if pattern == "*":
        return typed.matches(".*")
    if "*" not in pattern:
        return typed.exact(pattern)
    return typed.matches(re.escape(pattern).replace(r"\*", r"[A-Za-z0-9.-]+"))


def _body_limit(settings: Settings) -> hcmv3.HttpFilter:
    """The limit that answers 413. A buffer limit alone would answer later, and would disable retries."""
    limit = {"max_request_bytes": settings.limits.request_body}
    kind = "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit"
    return typed.http_filter("body_size_limit", typed.untyped(kind, limit))


def _gateway(settings: Settings) -> hcmv3.HttpFilter:
    config = processor.gateway_filter(settings, contract.GATEWAY)
    # Each request sets its number of tries and its retry conditions in x-envoy-* headers.
    config.mutation_rules = mutationv3.HeaderMutationRules(allow_envoy=True)
    config.request_attributes = identity.attributes(settings)
    config.metadata_options = identity.metadata(settings, receiving=[contract.ORDER_NAMESPACE])
    # Enabled by every route, disabled without one. A request too malformed for a route (400, 431) gets Envoy's own
    # answer: Envoy would close its connection before the processor could change that answer.
    gateway = typed.http_filter("ext_proc", config)
    gateway.disabled = True
    return gateway


def _everywhere() -> extprocv3.ExtProcPerRoute:
    return extprocv3.ExtProcPerRoute(overrides=extprocv3.ExtProcOverrides())


def routes(settings: Settings) -> routev3.RouteConfiguration:
    elsewhere = routev3.Route(
        match=routev3.RouteMatch(prefix="/"), direct_response=routev3.DirectResponseAction(status=404)
    )
    filters = {"envoy.filters.http.ext_proc": pack(routev3.FilterConfig(config=pack(_everywhere())))}
    preflights, own = [], pages.my_usage() if settings.listener.my_usage else []
    if settings.listener.cors is not None:
        preflights.append(_preflights())
        filters["envoy.filters.http.cors"] = pack(_cors(settings.listener.cors))
    host = routev3.VirtualHost(
        name="ai",
        domains=["*"],
        include_request_attempt_count=True,
        typed_per_filter_config=filters,
        routes=[_no_grpc(), *_profiles(settings), *preflights, *own, *_models(settings), elsewhere],
    )
    most = pages.MOST if own else None
    return routev3.RouteConfiguration(name=ROUTES, virtual_hosts=[host], max_direct_response_body_size_bytes=most)


def _profiles(settings: Settings) -> Sequence[routev3.Route]:
    """Routes of the MCP gateway. The processor answers methods other than POST, without a route."""
    if settings.mcp is None:
        return []
    cors = {}
    if origins := settings.mcp.origins:
        asking = CORSSettings.model_construct(origins=origins, headers=_MCP_HEADERS, max_age=600)
        cors["envoy.filters.http.cors"] = pack(_cors(asking))
    action = routev3.RouteAction(
        inline_cluster_specifier_plugin=_order(),
        timeout=seconds(0),  # no limit: an answer may stream for hours
        idle_timeout=seconds(_client_idle_timeout(settings)),
        # A tool call is repeated only if its connection failed; the processor then raises the number of retries.
        retry_policy=routev3.RetryPolicy(
            num_retries=0,
            retry_back_off=routev3.RetryPolicyRetryBackOff(base_interval=seconds(0.005), max_interval=seconds(0.005)),
        ),
    )
    match = routev3.RouteMatch(prefix=contract.MCP_PATH, headers=[_asked("POST")])
    route = routev3.Route(name="mcp", match=match, route=action, typed_per_filter_config=cors)
    calls = typed.by_size(route, settings.limits.request_body)
    return [*([_preflights("mcp-preflights", contract.MCP_PATH, cors)] if origins else []), *calls]


def _models(settings: Settings) -> Sequence[routev3.Route]:
    """Routes of all paths for clients. They differ only in their method."""
    action = routev3.RouteAction(
        inline_cluster_specifier_plugin=_order(),
        timeout=seconds(0),  # no limit: an answer may stream for hours
        idle_timeout=seconds(_client_idle_timeout(settings)),
        retry_policy=routev3.RetryPolicy(
            num_retries=0,  # the processor raises it for each request
            # Signs of a proxy's answer: HTML, a redirect, or a status above 599. No model API answers so.
            retriable_headers=[
                routev3.HeaderMatcher(name="content-type", string_match=typed.begins("text/html")),
                routev3.HeaderMatcher(
                    name=":status",
                    string_match=typed.matches("[^245].*"),
                ),
            ],
            refresh_cluster_on_retry=True,  # makes a retry use the next target instead of the first
            # Envoy retries at once. Before another try at the same target, the attempt attachment waits.
            retry_back_off=routev3.RetryPolicyRetryBackOff(base_interval=seconds(0.001), max_interval=seconds(0.001)),
        ),
    )
    patterns: dict[str, list[str]] = {}
    for method, path in served():
        patterns.setdefault(method, []).append(path_regex(path))
    routes = []
    for method, paths in patterns.items():
        match = routev3.RouteMatch(safe_regex=matcherv3.RegexMatcher(regex="|".join(paths)), headers=[_asked(method)])
        largest = settings.limits.request_body if method == "POST" else 0
        routes += typed.by_size(routev3.Route(name=method, match=match, route=action), largest)
    return routes


def _asked(method: str) -> routev3.HeaderMatcher:
    return routev3.HeaderMatcher(name=":method", string_match=typed.exact(method))


def _order() -> routev3.ClusterSpecifierPlugin:
    """Order of the tries' clusters: the processor sets it for each request. This default is for requests without an
    order.
    """
    group = {"name": "none", "clusters": [{"cluster_name": NO_ORDER, "weight": 1}]}
    config = {"override_metadata_namespace": contract.ORDER_NAMESPACE, "priority_groups": [group]}
    kind = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
    name = "envoy.router.cluster_specifier_plugin.priority_group"
    return routev3.ClusterSpecifierPlugin(extension=typed.extension(name, typed.untyped(kind, config)))


def _client_idle_timeout(settings: Settings) -> float:
    """Longest silence between the gateway and a client: the time in which all tries of the longest chain must begin.

    Each try has a limit for its provider's silence, and reports it. That limit must be reached before this one.
    """
    slowest = max(provider.timeout for provider in settings.hops.values())
    retries = [virtual.retry for virtual in settings.virtual_models.values()]
    chains = [
        retry.attempts * max(retry.per_try_timeout or slowest, retry.per_try_timeout_stream or slowest)
        for retry in retries
    ]
    return max(settings.limits.stream_idle, slowest, settings.longest_wait, *chains) + 30

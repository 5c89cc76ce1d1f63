"""A try: the internal listener in front of each provider, and the cluster that leads to it.

Every try starts from the request that the gateway attachment forwarded. It sets this provider's host, path and key, and
removes every header that no provider may see. Envoy's own refusals in it (full circuit breaker, ejected host) are
ordinary answers, so the public route fails over.

The access log `try-<provider>` has, for each try: metadata `contract.LOG_NAMESPACE` (id, attempt, targets), response
code and flags, upstream timings, bytes, and the response headers retry-after, content-type, x-request-id and
`contract.HOP`.

A failure inside the hop has its reason in the name of an internal header, because a request's retry conditions match
only header names. The internal listener sends every try through the attempt attachment, or only the later ones: the
gateway attachment has already written the first try. See docs/envoy.md for the reasons for the hop.
"""

from __future__ import annotations

from urllib.parse import SplitResult

from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutationv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.listener import v3 as listenerv3
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as extprocv3
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as headermutationv3
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata import v3 as headertometadatav3
from envoy_data_plane.envoy.extensions.filters.http.lua import v3 as luav3
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.transport_sockets.internal_upstream.v3 import InternalUpstreamTransport
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tlsv3
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreamhttpv3
from envoy_data_plane.envoy.type.matcher import v3 as matcherv3
from envoy_data_plane.google.protobuf import Any as Packed
from envoy_data_plane.google.protobuf import Value

from extproc.access.auth import credential_headers
from extproc.envoy.envoy_config import pools, processor, replies, traces, typed
from extproc.envoy.envoy_config.others import others
from extproc.envoy.envoy_config.public import ENVOY_PREFIX
from extproc.envoy.envoy_config.secrets import secret_file, secret_name
from extproc.envoy.envoy_config.typed import pack, seconds
from extproc.envoy.resources import stem
from extproc.settings.config import Settings
from extproc.tools.mcp.settings import HOP as MCP_HOP
from extproc.upstream.providers import Credential, ProviderSettings
from extproc.words import contract
from extproc.words.urls import USUAL_PORTS, host_port, port_of

# Request headers that every provider gets: those of HTTP and of the body.
_PLAIN_HEADERS = (":*", "host", "content-type", "content-length", "transfer-encoding", "accept")
USER_AGENT = "llm-extproc"  # some providers require one; the client's is not forwarded


def provider_cluster(place: str) -> str:
    """Cluster of the provider, behind the hop."""
    return f"provider-{stem(place)}"


def listener(settings: Settings, name: str, secrets_dir: str, place: str) -> listenerv3.Listener:
    """The internal listener named `place`, in front of the provider `name`."""
    provider = settings.hops[name]
    return listenerv3.Listener(
        name=place,
        internal_listener=listenerv3.ListenerInternalListenerConfig(),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        filter_chains=typed.http_chain(_manager(settings, name, provider, secrets_dir, place)),
    )


def hop_cluster(settings: Settings, hop: str) -> clusterv3.Cluster:
    # HTTP/1, because in an HTTP/2 connection one slow client blocks all others by its window.
    http1 = upstreamhttpv3.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=corev3.Http1ProtocolOptions())
    options = upstreamhttpv3.HttpProtocolOptions(
        common_http_protocol_options=corev3.HttpProtocolOptions(idle_timeout=seconds(60)),
        explicit_http_config=http1,
    )
    raw = corev3.TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=pack(RawBuffer()))
    return clusterv3.Cluster(
        name=hop,
        type=clusterv3.ClusterDiscoveryType.STATIC,
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        circuit_breakers=typed.breakers(),
        load_assignment=typed.endpoints(
            hop, corev3.Address(envoy_internal_address=corev3.EnvoyInternalAddress(server_listener_name=hop))
        ),
        transport_socket=corev3.TransportSocket(
            name="envoy.transport_sockets.internal_upstream",
            typed_config=pack(InternalUpstreamTransport(transport_socket=raw)),
        ),
        typed_extension_protocol_options=typed.protocol_options(options),
    )


def host_header(url: SplitResult) -> str:
    """Value of the host header: `host`, or `host:port` for a port other than the scheme's default."""
    return host_port(url.hostname or "", port_of(url)).removesuffix(f":{USUAL_PORTS[url.scheme]}")


def _manager(
    settings: Settings, name: str, provider: ProviderSettings, secrets_dir: str, place: str
) -> hcmv3.HttpConnectionManager:
    hop = contract.try_cluster(name)
    server = settings.mcp.servers.get(name.removeprefix(MCP_HOP)) if settings.mcp and name.startswith(MCP_HOP) else None
    for_users = server is not None and server.auth is not None
    filters = [
        _log_metadata(pool=provider.pool is not None),
        *([_bound()] if name.startswith(MCP_HOP) else []),
        *([] if provider.pool is None or provider.pool.picker is not None else [pools.destination()]),
        _attempt(settings),
        *([] if provider.pool is None or provider.pool.picker is None else pools.external_picker(provider.pool, place)),
        _provider_headers(settings, provider, for_users=for_users),
    ]
    if provider.credential is not None:
        filters.append(_credential(stem(place), provider.credential, secrets_dir, overwrite=not for_users))
    filters.append(typed.http_filter("router", Router(suppress_envoy_headers=True)))
    return hcmv3.HttpConnectionManager(
        stat_prefix=hop,
        max_request_headers_kb=96,  # the public listener's 60, plus the gateway attachment's headers
        generate_request_id=False,
        skip_xff_append=True,
        # On HTTP/2 :scheme is the provider's, not the plain connection's between the listeners.
        scheme_header_transformation=corev3.SchemeHeaderTransformation(match_upstream=True),
        server_header_transformation=hcmv3.HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        stream_idle_timeout=seconds(_answer_idle_timeout(settings, provider)),
        # Limit for a provider that does not read a large request: the route's timeout begins only after the whole
        # request.
        request_timeout=seconds(provider.timeout),
        # Short, because Envoy delays a provider's reset for the client by this time, one second by default.
        delayed_close_timeout=seconds(0.001),
        local_reply_config=replies.hop(
            name,
            provider.max_requests,
            tokens=provider.credentials is not None,
            picker=provider.pool is not None and provider.pool.picker is not None,
        ),
        access_log=processor.try_logs(
            settings, hop, response=["retry-after", "content-type", "x-request-id", contract.HOP]
        ),
        tracing=traces.of_tries(settings, name),
        http_filters=filters,
        route_config=_routes(settings, name, provider, place),
    )


def _bound() -> hcmv3.HttpFilter:
    """Bounds events of MCP servers' results that pass unread, see `tools/mcp/bound.lua`."""
    from extproc.tools.mcp.forward import bound_script  # noqa: PLC0415 - most gateways serve models alone

    lua = luav3.Lua(default_source_code=corev3.DataSource(inline_string=bound_script()))
    return hcmv3.HttpFilter(name="envoy.filters.http.lua.bound", typed_config=pack(lua))


def _answer_idle_timeout(settings: Settings, provider: ProviderSettings) -> float:
    """Longest silence in the middle of an answer. Before the answer begins, only the provider's `timeout` counts."""
    return max(settings.limits.stream_idle, provider.timeout + 10)


def _log_metadata(*, pool: bool) -> hcmv3.HttpFilter:
    """Facts of a try for its access log entry. The headers with them are removed before Envoy logs."""

    def rule(
        header: str, key: str, kind: headertometadatav3.ConfigValueType = headertometadatav3.ConfigValueType.STRING
    ) -> headertometadatav3.ConfigRule:
        pair = headertometadatav3.ConfigKeyValuePair(metadata_namespace=contract.LOG_NAMESPACE, key=key, type=kind)
        return headertometadatav3.ConfigRule(header=header, on_header_present=pair)

    rules = [
        rule(contract.ID, contract.LOG_ID),
        rule(contract.ATTEMPT_COUNT, "attempt", headertometadatav3.ConfigValueType.NUMBER),
        rule(contract.TARGETS, "targets"),
        rule(contract.TIMEOUT, "timeout", headertometadatav3.ConfigValueType.NUMBER),
        *([rule(contract.ENDPOINTS, "endpoints")] if pool else []),
    ]
    return typed.http_filter("header_to_metadata", headertometadatav3.Config(request_rules=rules))


def _attempt(settings: Settings) -> hcmv3.HttpFilter:
    """The attempt attachment. It is disabled on the last route, for tries without changes."""
    config = extprocv3.ExternalProcessor(
        grpc_service=processor.service(settings, contract.ATTEMPT),
        failure_mode_allow=False,
        message_timeout=processor.MESSAGE_TIMEOUT,
        processing_mode=processor.processing_mode(response_headers=False),
        allow_mode_override=True,
        mutation_rules=mutationv3.HeaderMutationRules(allow_all_routing=True),
        forward_rules=processor.attempt_headers(),
    )
    return typed.http_filter("ext_proc", config)


def _provider_headers(settings: Settings, provider: ProviderSettings, *, for_users: bool = False) -> hcmv3.HttpFilter:
    """Removes every header outside the lists of the provider's kind and settings. Headers of the gateway and Envoy must
    be removed before this hop's router reads them, because it would retry, too.
    """
    labels, credentials = settings.attribution.prefix, credential_headers(settings.auth)
    kept = () if settings.attribution.strip else (f"{labels}*",)
    allowed = {*_PLAIN_HEADERS, *provider.passed, *kept} - {*credentials}
    mutations = []
    if for_users:
        allowed |= {"authorization"}
        user = typed.copy_header(contract.BEHALF, "authorization")
        mutations += [mutationv3.HeaderMutation(remove="authorization"), mutationv3.HeaderMutation(append=user)]
        credentials = [name for name in credentials if name != "authorization"]
    mutations += [typed.remove(typed.matches(others(sorted(allowed))))]
    if any(name.endswith("*") for name in provider.passed):  # such a pattern may match names of secret headers
        secret = (contract.PREFIX, ENVOY_PREFIX, "x-forwarded-", *([labels] if settings.attribution.strip else []))
        mutations += [typed.remove(typed.begins(prefix)) for prefix in dict.fromkeys(secret)]
        mutations += [mutationv3.HeaderMutation(remove=name) for name in credentials]
    # The gateway reads answers, so they must not be compressed.
    added = {"accept-encoding": "identity", "user-agent": USER_AGENT}
    added |= {**provider.provider.headers, **provider.headers}
    if "user-agent" in allowed and "user-agent" not in provider.headers:
        del added["user-agent"]
    mutations += [mutationv3.HeaderMutation(append=typed.set_header(name, value)) for name, value in added.items()]
    parameters = [_set_parameter(name, value) for name, value in provider.query.items()]
    # Removes other providers' parameters: the gateway attachment keeps those of every target of the request.
    known = {name for entry in settings.providers.values() for name in entry.provider.client_query}
    others_query = sorted(known - {*provider.provider.client_query, *provider.query})
    parameters += [corev3.KeyValueMutation(remove=name) for name in others_query]
    found = headermutationv3.Mutations(request_mutations=mutations, query_parameter_mutations=parameters)
    return typed.http_filter("header_mutation", headermutationv3.HeaderMutation(mutations=found))


def _set_parameter(name: str, value: str) -> corev3.KeyValueMutation:
    """Sets a query parameter, replacing the client's."""
    action = corev3.KeyValueAppendKeyValueAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    pair = corev3.KeyValuePair(key=name, value=Value(string_value=value))
    return corev3.KeyValueMutation(append=corev3.KeyValueAppend(record=pair, action=action))


def _credential(stem: str, credential: Credential, secrets_dir: str, *, overwrite: bool) -> hcmv3.HttpFilter:
    """The provider's secret, from a file that Envoy watches. Without a secret the hop answers itself and forwards no
    request.
    """
    watched = corev3.PathConfigSource(
        path=secret_file(secrets_dir, stem), watched_directory=corev3.WatchedDirectory(path=secrets_dir)
    )
    source = corev3.ConfigSource(path_config_source=watched, resource_api_version=corev3.ApiVersion.V3)
    generic = Generic(
        credential=tlsv3.SdsSecretConfig(name=secret_name(stem), sds_config=source),
        header=credential.header,
        header_value_prefix=credential.prefix,
    )
    config = CredentialInjector(
        overwrite=overwrite,  # false keeps the user's credential; a client's own header is removed before
        credential=typed.extension("envoy.http.injected_credentials.generic", generic),
    )
    return typed.http_filter("credential_injector", config)


def _routes(settings: Settings, name: str, provider: ProviderSettings, place: str) -> routev3.RouteConfiguration:
    def attends(which: str) -> routev3.HeaderMatcher:
        return routev3.HeaderMatcher(name=contract.ATTEND, string_match=typed.exact(which))

    first = typed.exact("1")
    later = routev3.HeaderMatcher(name=contract.ATTEMPT_COUNT, string_match=first, invert_match=True)
    off = {"envoy.filters.http.ext_proc": pack(extprocv3.ExtProcPerRoute(disabled=True))}
    kinds: dict[str, tuple[list[routev3.HeaderMatcher], dict[str, Packed]]] = {
        "every-try": ([attends(contract.ATTEND_ALL)], {}),
        "later-tries": ([attends(contract.ATTEND_LATER), later], {}),
        "plain": ([], off),
    }
    if provider.pool is not None and provider.pool.picker_failure == "open":
        # Envoy cannot go on after a failed picker, because the picker has the body: the next try goes without it.
        alone = {pools.PICKER: pack(extprocv3.ExtProcPerRoute(disabled=True))}
        unpicked = {f"{name}-unpicked": ([*when, later], {**to, **alone}) for name, (when, to) in kinds.items()}
        kinds = {**unpicked, **kinds}
    routes = [
        routev3.Route(
            name=which,
            match=routev3.RouteMatch(prefix="/", headers=headers),
            route=_action(settings, provider, place),
            request_body_buffer_limit=typed.buffer_bytes(settings.limits.request_body),
            typed_per_filter_config=filters,
        )
        for which, (headers, filters) in kinds.items()
    ]
    told = [] if provider.pool is None else [typed.set_command(contract.ENDPOINT, "%UPSTREAM_REMOTE_ADDRESS%")]
    return routev3.RouteConfiguration(
        name=place,
        virtual_hosts=[routev3.VirtualHost(name=name, domains=["*"], routes=routes, response_headers_to_add=told)],
    )


def _action(settings: Settings, provider: ProviderSettings, place: str) -> routev3.RouteAction:
    path = provider.url.path.rstrip("/")
    substitution = path.replace("\\", "\\\\")
    rewrite = (
        matcherv3.RegexMatchAndSubstitute(
            pattern=matcherv3.RegexMatcher(regex="^/.*$"), substitution=substitution or "/"
        )
        if provider.one_path
        else matcherv3.RegexMatchAndSubstitute(
            pattern=matcherv3.RegexMatcher(regex="^/v1/"), substitution=substitution + "/"
        )
    )
    return routev3.RouteAction(
        cluster=provider_cluster(place),
        host_rewrite_literal=host_header(provider.url),
        regex_rewrite=None if path == "/v1" and not provider.one_path else rewrite,
        timeout=seconds(0),
        idle_timeout=seconds(_answer_idle_timeout(settings, provider)),
        # No retries in the hop, only a time limit for the beginning of an answer.
        retry_policy=routev3.RetryPolicy(num_retries=0, per_try_timeout=seconds(provider.timeout)),
    )

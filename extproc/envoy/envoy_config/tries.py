"""A try: the internal listener in front of each provider, and the cluster that leads into it.

Every try starts clean: it sees the request as the gateway attachment left it, gives it this provider's host, path and
key, and removes everything that no provider may see. Envoy's own refusals (full circuit breaker, ejected host) come out
of it as ordinary answers that the public route fails over.

The access log `try-<provider>` has, for each try: metadata `contract.LOG_NAMESPACE` (id, attempt, targets), response
code and flags, upstream timings, bytes, and the response headers retry-after, content-type, x-request-id and
`contract.HOP`.

A failure inside the hop carries its reason in the name of an internal header, because retry conditions of a request
match only names. The internal listener sends every try through the attempt attachment, or only the later ones: the
gateway attachment has already written the first try. See docs/envoy.md for the reasons for the hop.
"""

from __future__ import annotations

from urllib.parse import SplitResult

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
    HeaderMutationRules,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    ConfigSource,
    DataSource,
    EnvoyInternalAddress,
    Http1ProtocolOptions,
    HttpProtocolOptions,
    KeyValueAppend,
    KeyValueAppendKeyValueAppendAction,
    KeyValueMutation,
    KeyValuePair,
    PathConfigSource,
    SchemeHeaderTransformation,
    TransportSocket,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener, ListenerInternalListenerConfig
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ExternalProcessor, ExtProcPerRoute
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import (
    Config as HeaderToMetadata,
)
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import (
    ConfigKeyValuePair,
    ConfigRule,
    ConfigValueType,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua, LuaPerRoute
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerHcmAccessLogOptions,
    HttpConnectionManagerServerHeaderTransformation,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.transport_sockets.internal_upstream.v3 import InternalUpstreamTransport
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import SdsSecretConfig
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as UpstreamProtocolOptions
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptionsExplicitHttpConfig
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any as Packed
from envoy_data_plane.google.protobuf import Value

from extproc.access.auth import credential_headers
from extproc.envoy.envoy_config import processor, replies, traces
from extproc.envoy.envoy_config.others import others
from extproc.envoy.envoy_config.public import ENVOY_PREFIX, remove
from extproc.envoy.envoy_config.secrets import secret_file, secret_name
from extproc.envoy.envoy_config.typed import (
    breakers,
    buffer_bytes,
    endpoints,
    extension,
    http_filter,
    pack,
    seconds,
    set_header,
)
from extproc.envoy.resources import stem
from extproc.exchange import unread
from extproc.settings.config import Settings
from extproc.tools.mcp.settings import HOP as MCP_HOP
from extproc.upstream.providers import Credential, ProviderSettings
from extproc.words import contract

# Headers of a request that every provider gets: those of HTTP itself, and of the body.
_PLAIN_HEADERS = (":*", "host", "content-type", "content-length", "transfer-encoding", "accept")
USER_AGENT = "llm-extproc"  # some providers refuse requests without one; the client's stays here


def provider_cluster(place: str) -> str:
    """The cluster of the provider itself, behind the hop."""
    return f"provider-{stem(place)}"


def listener(settings: Settings, name: str, secrets_dir: str, place: str) -> Listener:
    """The internal listener named `place`, in front of the provider `name`."""
    provider = settings.hops[name]
    manager = pack(_manager(settings, name, provider, secrets_dir, place))
    filters = [Filter(name="envoy.filters.network.http_connection_manager", typed_config=manager)]
    return Listener(
        name=place,
        internal_listener=ListenerInternalListenerConfig(),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        filter_chains=[FilterChain(filters=filters)],
    )


def hop_cluster(settings: Settings, hop: str) -> Cluster:
    # HTTP/1: with HTTP/2 one client that reads slowly holds up all others in the same connection's window.
    http1 = HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
    options = UpstreamProtocolOptions(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=seconds(60)), explicit_http_config=http1
    )
    raw = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=pack(RawBuffer()))
    return Cluster(
        name=hop,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        circuit_breakers=breakers(),
        load_assignment=endpoints(hop, Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=hop))),
        transport_socket=TransportSocket(
            name="envoy.transport_sockets.internal_upstream",
            typed_config=pack(InternalUpstreamTransport(transport_socket=raw)),
        ),
        typed_extension_protocol_options={processor.PROTOCOL_OPTIONS: pack(options)},
    )


def host_header(url: SplitResult) -> str:
    """`host`, or `host:port` where the port is not the scheme's own."""
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = url.port is None or url.port == {"http": 80, "https": 443}[url.scheme]
    return host if usual else f"{host}:{url.port}"


def _manager(
    settings: Settings, name: str, provider: ProviderSettings, secrets_dir: str, place: str
) -> HttpConnectionManager:
    hop = contract.try_cluster(name)
    filters = [
        _log_metadata(settings),
        *([_follow()] if _follows(settings) else []),
        *([_bound()] if name.startswith(MCP_HOP) else []),
        _attempt(settings),
        _provider_headers(settings, provider),
    ]
    if provider.credential is not None:
        filters.append(_credential(stem(place), provider.credential, secrets_dir))
    filters.append(http_filter("router", Router(suppress_envoy_headers=True)))
    return HttpConnectionManager(
        stat_prefix=hop,
        max_request_headers_kb=96,  # the public listener's 60, and the additions of the gateway attachment
        generate_request_id=False,
        skip_xff_append=True,
        # The :scheme on HTTP/2 is the provider's, not the one of the plain connection between the listeners.
        scheme_header_transformation=SchemeHeaderTransformation(match_upstream=True),
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        stream_idle_timeout=seconds(_answer_idle_timeout(settings, provider)),
        # A provider that does not read a large request: the route's timeout begins when all of it was passed on.
        request_timeout=seconds(provider.timeout),
        delayed_close_timeout=seconds(0.001),  # short, or a provider's reset reaches the client a second late
        local_reply_config=replies.hop(name, provider.max_requests, tokens=provider.credentials is not None),
        access_log=processor.try_logs(
            settings, hop, response=["retry-after", "content-type", "x-request-id", contract.HOP]
        ),
        access_log_options=_heartbeat(settings) if _follows(settings) else None,
        tracing=traces.of_tries(settings, name),
        http_filters=filters,
        route_config=_routes(settings, name, provider, place),
    )


def _bound() -> HttpFilter:
    """Bounds the results of MCP servers that pass unread, see `tools/mcp/bound.lua`."""
    from extproc.tools.mcp.forward import bound_script  # noqa: PLC0415 - most gateways serve models alone

    lua = Lua(default_source_code=DataSource(inline_string=bound_script()))
    return HttpFilter(name="envoy.filters.http.lua.bound", typed_config=pack(lua))


def _heartbeat(settings: Settings) -> HttpConnectionManagerHcmAccessLogOptions:
    """Entries of tries under way, too: so the gateway knows that an unread answer goes on."""
    return HttpConnectionManagerHcmAccessLogOptions(access_log_flush_interval=seconds(settings.usage.log_interval))


def _answer_idle_timeout(settings: Settings, provider: ProviderSettings) -> float:
    """Longest silence in the middle of an answer. Before it begins, `timeout` of the provider decides alone."""
    return max(settings.limits.stream_idle, provider.timeout + 10)


def _follows(settings: Settings) -> bool:
    return settings.usage.mode == "log"


def _follow() -> HttpFilter:
    """Follows answers that pass unread, see `unread`. It stands before the attempt attachment: it sees what leaves."""
    return http_filter("lua", Lua(default_source_code=DataSource(inline_string=unread.script())))


def _log_metadata(settings: Settings) -> HttpFilter:
    """Facts of a try for its access log entry: the headers themselves are removed before they could be logged."""

    def rule(header: str, key: str, kind: ConfigValueType = ConfigValueType.STRING) -> ConfigRule:
        pair = ConfigKeyValuePair(metadata_namespace=contract.LOG_NAMESPACE, key=key, type=kind)
        return ConfigRule(header=header, on_header_present=pair)

    rules = [
        rule(contract.ID, contract.LOG_ID),
        rule(contract.ATTEMPT_COUNT, "attempt", ConfigValueType.NUMBER),
        rule(contract.TARGETS, "targets"),
        rule(contract.TIMEOUT, "timeout", ConfigValueType.NUMBER),
        *([rule(contract.WATCH, "watch")] if _follows(settings) else []),
    ]
    return http_filter("header_to_metadata", HeaderToMetadata(request_rules=rules))


def _attempt(settings: Settings) -> HttpFilter:
    """The attempt attachment. It is off on the last route, for tries without changes."""
    config = ExternalProcessor(
        grpc_service=processor.service(settings, contract.ATTEMPT),
        failure_mode_allow=False,
        message_timeout=processor.MESSAGE_TIMEOUT,
        processing_mode=processor.processing_mode(response_headers=False),
        allow_mode_override=True,
        mutation_rules=HeaderMutationRules(allow_all_routing=True),
        forward_rules=processor.attempt_headers(),
    )
    return http_filter("ext_proc", config)


def _provider_headers(settings: Settings, provider: ProviderSettings) -> HttpFilter:
    """Removes every header that is not on the list of the provider's kind or of its settings. The headers of the
    gateway and of Envoy must go before the router of this hop reads them: it would retry as well.
    """
    labels, credentials = settings.attribution.prefix, credential_headers(settings.auth)
    kept = () if settings.attribution.strip else (f"{labels}*",)
    allowed = {*_PLAIN_HEADERS, *provider.passed, *kept} - {*credentials}
    foreign = [_every(RegexMatcher(regex=others(sorted(allowed))))]
    if any(
        name.endswith("*") for name in provider.passed
    ):  # a beginning may stand for some that are never for providers
        secret = (contract.PREFIX, ENVOY_PREFIX, "x-forwarded-", *([labels] if settings.attribution.strip else []))
        foreign += [*map(remove, dict.fromkeys(secret)), *(HeaderMutation(remove=name) for name in credentials)]
    # Answers that the gateway reads must not be compressed.
    added = {
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
        **provider.provider.headers,
        **provider.headers,
    }
    if "user-agent" in allowed and "user-agent" not in provider.headers:
        del added["user-agent"]
    mutations = [
        *foreign,
        *(HeaderMutation(append=set_header(name, value)) for name, value in added.items()),
    ]
    # Replaces a header of the client's.
    overwrite = KeyValueAppendKeyValueAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    parameters = [
        KeyValueMutation(
            append=KeyValueAppend(record=KeyValuePair(key=key, value=Value(string_value=value)), action=overwrite)
        )
        for key, value in provider.query.items()
    ]
    # The gateway attachment leaves the parameters that any target of the request may get.
    known = {name for entry in settings.providers.values() for name in entry.provider.client_query}
    others_query = sorted(known - {*provider.provider.client_query, *provider.query})
    parameters += [KeyValueMutation(remove=name) for name in others_query]
    found = Mutations(request_mutations=mutations, query_parameter_mutations=parameters)
    return http_filter("header_mutation", HeaderMutationFilter(mutations=found))


def _every(names: RegexMatcher) -> HeaderMutation:
    """Removes every header whose whole name matches."""
    return HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(safe_regex=names)))


def _credential(stem: str, credential: Credential, secrets_dir: str) -> HttpFilter:
    """The provider's secret, from a file that Envoy watches. Without it the hop answers itself and sends nothing on."""
    watched = PathConfigSource(
        path=secret_file(secrets_dir, stem), watched_directory=WatchedDirectory(path=secrets_dir)
    )
    source = ConfigSource(path_config_source=watched, resource_api_version=ApiVersion.V3)
    generic = Generic(
        credential=SdsSecretConfig(name=secret_name(stem), sds_config=source),
        header=credential.header,
        header_value_prefix=credential.prefix,
    )
    config = CredentialInjector(
        overwrite=True,  # false would let a client's own header through
        credential=extension("envoy.http.injected_credentials.generic", generic),
    )
    return http_filter("credential_injector", config)


def _routes(settings: Settings, name: str, provider: ProviderSettings, place: str) -> RouteConfiguration:
    def attends(which: str) -> HeaderMatcher:
        return HeaderMatcher(name=contract.ATTEND, string_match=StringMatcher(exact=which))

    first = StringMatcher(exact="1")
    later = HeaderMatcher(name=contract.ATTEMPT_COUNT, string_match=first, invert_match=True)
    off = {"envoy.filters.http.ext_proc": pack(ExtProcPerRoute(disabled=True))}
    kinds: dict[str, tuple[list[HeaderMatcher], dict[str, Packed]]] = {
        "every-try": ([attends(contract.ATTEND_ALL)], {}),
        "later-tries": ([attends(contract.ATTEND_LATER), later], {}),
        "plain": ([], off),
    }
    if _follows(settings):
        watched = HeaderMatcher(name=contract.WATCH, present_match=True)
        unwatched = {**off, "envoy.filters.http.lua": pack(LuaPerRoute(disabled=True))}
        kinds |= {"plain": ([watched], off), "unwatched": ([], unwatched)}
    routes = [
        Route(
            name=which,
            match=RouteMatch(prefix="/", headers=headers),
            route=_action(settings, provider, place),
            request_body_buffer_limit=buffer_bytes(settings.limits.request_body),
            typed_per_filter_config=filters,
        )
        for which, (headers, filters) in kinds.items()
    ]
    return RouteConfiguration(name=place, virtual_hosts=[VirtualHost(name=name, domains=["*"], routes=routes)])


def _action(settings: Settings, provider: ProviderSettings, place: str) -> RouteAction:
    path = provider.url.path.rstrip("/")
    substitution = path.replace("\\", "\\\\")
    rewrite = (
        RegexMatchAndSubstitute(pattern=RegexMatcher(regex="^/.*$"), substitution=substitution or "/")
        if provider.one_path
        else RegexMatchAndSubstitute(pattern=RegexMatcher(regex="^/v1/"), substitution=substitution + "/")
    )
    return RouteAction(
        cluster=provider_cluster(place),
        host_rewrite_literal=host_header(provider.url),
        regex_rewrite=None if path == "/v1" and not provider.one_path else rewrite,
        timeout=seconds(0),
        idle_timeout=seconds(_answer_idle_timeout(settings, provider)),
        # No retries here: only the time until an answer begins.
        retry_policy=RetryPolicy(num_retries=0, per_try_timeout=seconds(provider.timeout)),
    )

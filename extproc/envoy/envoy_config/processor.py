"""The processor in Envoy's configuration: its cluster, the ext_proc filter, the gRPC access log."""

from __future__ import annotations

from collections.abc import Sequence

from envoy_data_plane.envoy.config.accesslog import v3 as accesslogv3
from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as extprocv3
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type import v3 as typev3
from envoy_data_plane.envoy.type.matcher import v3 as matcherv3

from extproc.access.auth import credential_headers
from extproc.access.kept import uploads
from extproc.dialects import client_apis, rates
from extproc.envoy.envoy_config import replies, typed
from extproc.envoy.envoy_config.typed import pack, seconds
from extproc.settings.config import Settings
from extproc.upstream.providers import kinds
from extproc.wire.transport import workers
from extproc.words import contract

CLUSTER = "extproc"
CERTIFICATE = "/run/extproc-tls/tls.crt", "/run/extproc-tls/tls.key"
"""Files of the certificate that an Envoy of another team shows to the processor."""
CA = "/run/extproc-tls/ca.crt"
"""File of the authorities of the processor's certificate, in that Envoy."""

MESSAGE_TIMEOUT = seconds(contract.ANSWER_SECONDS)
"""Time limit for an answer of the processor. A guardrail may take longer than Envoy's default of 200 ms."""

_REQUEST_HEADERS = (
    ":method",
    ":path",
    "content-type",
    "content-encoding",
    "content-length",
    "x-request-id",
    "traceparent",
)
# Response headers that the gateway reads, in addition to `request` ones.
_RESPONSE_HEADERS = (":status", "retry-after", "x-should-retry")


def cluster(settings: Settings, socket: str | None = None) -> clusterv3.Cluster:
    """Cluster of the processor: a unix socket for each worker, unless the settings have host:port. `socket` replaces
    the settings' socket.
    """
    tls = settings.processor.tls
    addresses = [_pipe(path) for path in settings.processor.sockets(socket)]
    kind = clusterv3.ClusterDiscoveryType.STATIC
    if socket is None and settings.processor.address is not None:
        host, _, port = settings.processor.address.rpartition(":")
        host = host.strip("[]") if tls is None else tls.host
        addresses, kind = [typed.socket_address(host, int(port))], typed.discovery(host)
    found = _cluster(settings, CLUSTER, kind, *addresses)
    if tls is not None:
        found.transport_socket = typed.tls_to(tls.host, CA, own=CERTIFICATE)
        found.dns_lookup_family = clusterv3.ClusterDnsLookupFamily.V4_PREFERRED
    if len(addresses) > 1:
        found.lb_policy = clusterv3.ClusterLbPolicy.LEAST_REQUEST
        found.health_checks = [_health_check()]
        # Without a healthy worker Envoy tries all of them: they may be busy, not gone.
        found.common_lb_config = clusterv3.ClusterCommonLbConfig(healthy_panic_threshold=typev3.Percent(value=1))
    return found


def worker_clusters(settings: Settings, socket: str | None = None) -> list[clusterv3.Cluster]:
    """Clusters, one for each of several workers, for the access logs of its exchanges."""
    return [
        _cluster(settings, name, clusterv3.ClusterDiscoveryType.STATIC, _pipe(path))
        for name, path in zip(_worker_names(settings), settings.processor.sockets(socket), strict=False)
    ]


def _worker_names(settings: Settings) -> list[str]:
    count = settings.processor.workers
    return [f"{CLUSTER}-{number}" for number in range(count)] if count > 1 else []


def _cluster(
    settings: Settings, name: str, kind: clusterv3.ClusterDiscoveryType, *addresses: corev3.Address
) -> clusterv3.Cluster:
    # An answer takes this much memory when its client reads slowly; Envoy's default is 16 MiB.
    windows = corev3.Http2ProtocolOptions(initial_stream_window_size=settings.limits.answer_buffer)
    return clusterv3.Cluster(
        name=name,
        type=kind,
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        circuit_breakers=typed.breakers(),
        load_assignment=typed.endpoints(name, *addresses),
        typed_extension_protocol_options=typed.http2(windows),
    )


def _pipe(path: str) -> corev3.Address:
    return corev3.Address(pipe=corev3.Pipe(path=path))


def _health_check() -> corev3.HealthCheck:
    """Health check that detects a draining, hanging or missing worker within two seconds."""
    return corev3.HealthCheck(
        timeout=seconds(1),
        interval=seconds(1),
        no_traffic_interval=seconds(1),
        unhealthy_interval=seconds(0.25),
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=corev3.HealthCheckGrpcHealthCheck(),
    )


def discovered(settings: Settings, within: float = 0.0) -> corev3.ConfigSource:
    """Source of resources: the processor. The first of several workers serves them. Envoy waits `within` seconds for
    the first ones; 0: for ever, because without them it has nothing to serve.
    """
    # Envoy's default wait is up to 30 s before it asks a processor again after a failure.
    again = corev3.RetryPolicy(
        retry_back_off=corev3.BackoffStrategy(base_interval=seconds(0.1), max_interval=seconds(1))
    )
    service = _service(f"{CLUSTER}-0" if settings.processor.workers > 1 else CLUSTER, again)
    source = corev3.ApiConfigSource(
        api_type=corev3.ApiConfigSourceApiType.GRPC,
        transport_api_version=corev3.ApiVersion.V3,
        grpc_services=[service],
        set_node_on_first_message_only=True,
    )
    return corev3.ConfigSource(
        api_config_source=source, resource_api_version=corev3.ApiVersion.V3, initial_fetch_timeout=seconds(within)
    )


def service(settings: Settings, attachment: str) -> corev3.GrpcService:
    """The processor as an attachment's gRPC service. If a worker ends, Envoy moves its unanswered streams to another
    worker: nothing is reserved before the first answer.
    """
    found = _service(CLUSTER)
    found.initial_metadata = [corev3.HeaderValue(key=contract.ATTACHMENT, value=attachment)]
    if settings.processor.workers > 1:
        others = corev3.RetryPolicyRetryHostPredicate(
            name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(PreviousHostsPredicate())
        )
        found.retry_policy = corev3.RetryPolicy(
            num_retries=2,
            retry_on="connect-failure,refused-stream,reset",
            retry_host_predicate=[others],
            # A missing worker has the fewest requests, so Envoy picks it in three of four choices between two workers.
            host_selection_retry_max_attempts=50,
        )
    return found


def _service(cluster: str, again: corev3.RetryPolicy | None = None) -> corev3.GrpcService:
    return corev3.GrpcService(envoy_grpc=corev3.GrpcServiceEnvoyGrpc(cluster_name=cluster, retry_policy=again))


def processing_mode(*, response_headers: bool) -> extprocv3.ProcessingMode:
    """Phases to process: the whole request before routing, and at most the answer's headers until the processor asks
    for more. Other request modes lose or duplicate bodies together with retries.
    """
    send, skip = extprocv3.ProcessingModeHeaderSendMode.SEND, extprocv3.ProcessingModeHeaderSendMode.SKIP
    return extprocv3.ProcessingMode(
        request_header_mode=send,
        request_body_mode=extprocv3.ProcessingModeBodySendMode.BUFFERED,
        request_trailer_mode=skip,
        response_header_mode=send if response_headers else skip,
        response_body_mode=extprocv3.ProcessingModeBodySendMode.NONE,
        response_trailer_mode=skip,
    )


def gateway_filter(settings: Settings, attachment: str) -> extprocv3.ExternalProcessor:
    """Settings of the gateway's filter in both modes."""
    return extprocv3.ExternalProcessor(
        grpc_service=service(settings, attachment),
        failure_mode_allow=False,
        message_timeout=MESSAGE_TIMEOUT,
        # The time of a request that waits for an operator, which the processor asks for.
        max_message_timeout=seconds(contract.ANSWER_SECONDS + longest) if (longest := settings.longest_wait) else None,
        processing_mode=processing_mode(response_headers=True),
        allow_mode_override=True,
        response_attributes=list(contract.RESPONSE_ATTRIBUTES),
        forward_rules=gateway_headers(settings),
    )


def gateway_headers(settings: Settings) -> extprocv3.HeaderForwardingRules:
    """Headers that the gateway attachment reads. Each header in a message costs time, so there are no others."""
    prefixes = dict.fromkeys((settings.attribution.prefix, contract.PREFIX, "x-ai-"))
    if settings.budgets:  # the gateway's rates replace the provider's
        prefixes |= dict.fromkeys(rates())
    own = [
        name
        for dialect in client_apis().values()
        for name in (dialect.endpoints.version, dialect.replies.request_id)
        if name
    ]
    for upload in uploads.served(settings.providers.values()):
        own += [upload.header, *upload.reads, *uploads.READS]
    own += settings.attribution.session
    if settings.mcp is not None:
        own += [":authority", "origin"]
        own += ["cookie", "www-authenticate"] if settings.mcp.signs_in else []
        prefixes["mcp-"] = None
    if settings.cache.rules:  # client headers sent to a provider are part of a cached answer's key
        own.append("cache-control")
        for name in (name for provider in settings.providers.values() for name in provider.passed):
            if name.endswith("*"):
                prefixes[name.removesuffix("*")] = None
            else:
                own.append(name)
    names = (*_REQUEST_HEADERS, *credential_headers(settings.auth), *_RESPONSE_HEADERS, *own)
    return _only(tuple(dict.fromkeys(names)), tuple(prefixes))


def attempt_headers() -> extprocv3.HeaderForwardingRules:
    """Headers that the attempt attachment reads."""
    names = (":path", "content-type", "content-encoding", contract.ATTEMPT_COUNT, ":status", "retry-after")
    in_body = [name for provider in kinds().values() for name in provider.in_body]
    return _only((*names, *dict.fromkeys(in_body)), (contract.PREFIX,))


def _only(names: Sequence[str], prefixes: Sequence[str]) -> extprocv3.HeaderForwardingRules:
    patterns = [*map(typed.exact, names), *map(typed.begins, prefixes)]
    return extprocv3.HeaderForwardingRules(allowed_headers=matcherv3.ListStringMatcher(patterns=patterns))


def access_log(
    name: str,
    *,
    request: Sequence[str] = (),
    response: Sequence[str] = (),
    only: accesslogv3.AccessLogFilter | None = None,
    cluster: str = CLUSTER,
    buffer: int = 16384,
) -> accesslogv3.AccessLog:
    """An access log with an entry for each request that `only` accepts. Entries are sent within a tenth of a second of
    a request's end, or when `buffer` bytes wait.
    """
    config = HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name=name,
            grpc_service=_service(cluster),
            transport_api_version=corev3.ApiVersion.V3,
            buffer_flush_interval=seconds(0.1),
            buffer_size_bytes=buffer,
        ),
        additional_request_headers_to_log=list(request),
        additional_response_headers_to_log=list(response),
    )
    return accesslogv3.AccessLog(name="envoy.access_loggers.http_grpc", filter=only, typed_config=pack(config))


_COLD = 1 << 20
"""Bytes of entries that wait for a tenth of a second to pass, where a worker's log may have no connection yet. Envoy
drops messages to a stream that is still opening once 64 KiB wait, and its first message, which describes Envoy, is
larger. With the usual buffer, busy traffic would send a second one at once. One worker alone needs none of this: the
requests have opened its connection.
"""


def try_logs(settings: Settings, name: str, *, response: Sequence[str]) -> list[accesslogv3.AccessLog]:
    """Access logs with an entry for each try, sent to the worker that has the exchange."""
    clusters = _worker_names(settings)
    if not clusters:
        return [access_log(name, response=response)]
    return [
        access_log(name, response=response, only=_of_worker(number), cluster=cluster, buffer=_COLD)
        for number, cluster in enumerate(clusters)
    ]


def end_logs(settings: Settings) -> list[accesslogv3.AccessLog]:
    """Access logs of requests whose end the gateway attachment does not see, sent to the exchange's worker."""
    unseen, clusters = _unseen_ends(), _worker_names(settings)
    if not clusters:
        return [_end_log(unseen)]
    return [
        _end_log(
            accesslogv3.AccessLogFilter(and_filter=accesslogv3.AndFilter(filters=[unseen, _with_id_of(number)])),
            cluster,
            _COLD,
        )
        for number, cluster in enumerate(clusters)
    ]


def _end_log(only: accesslogv3.AccessLogFilter, cluster: str = CLUSTER, buffer: int = 16384) -> accesslogv3.AccessLog:
    request, response = [contract.ID, contract.TARGETS], ["retry-after", replies.ORIGIN]
    return access_log(
        contract.GATEWAY_LOG, request=request, response=response, only=only, cluster=cluster, buffer=buffer
    )


def _with_id_of(number: int) -> accesslogv3.AccessLogFilter:
    """Matches requests whose id begins with the worker's mark. The first worker also gets requests without an id."""
    mark = routev3.HeaderMatcher(name=contract.ID, string_match=typed.begins(workers.mark(number)))
    own = accesslogv3.AccessLogFilter(header_filter=accesslogv3.HeaderFilter(header=mark))
    if number:
        return own
    none = routev3.HeaderMatcher(name=contract.ID, present_match=True, invert_match=True)
    return accesslogv3.AccessLogFilter(
        or_filter=accesslogv3.OrFilter(
            filters=[own, accesslogv3.AccessLogFilter(header_filter=accesslogv3.HeaderFilter(header=none))]
        )
    )


def _of_worker(number: int) -> accesslogv3.AccessLogFilter:
    """Matches tries whose exchange id begins with the worker's mark. The first worker also gets tries without an id."""
    value = matcherv3.ValueMatcher(string_match=typed.begins(workers.mark(number)))
    matcher = matcherv3.MetadataMatcher(
        filter=contract.LOG_NAMESPACE, path=[matcherv3.MetadataMatcherPathSegment(key=contract.LOG_ID)], value=value
    )
    return accesslogv3.AccessLogFilter(
        metadata_filter=accesslogv3.MetadataFilter(matcher=matcher, match_if_key_not_found=number == 0)
    )


def _unseen_ends() -> accesslogv3.AccessLogFilter:
    """Matches requests whose end the gateway attachment does not see. Entries of other requests would cost Envoy and
    the processor about 50 µs each, without new information.
    """
    left = typed.with_flags("DC", "DR")
    page = "response.code_details == 'direct_response' && response.code == 200"  # see `pages`
    seen = f"response.code_details == 'via_upstream' || response.code_details.startsWith('extproc_') || {page}"
    return accesslogv3.AccessLogFilter(or_filter=accesslogv3.OrFilter(filters=[left, typed.cel(f"!({seen})")]))

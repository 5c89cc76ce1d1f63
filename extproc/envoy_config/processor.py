"""The processor in Envoy's configuration: its cluster, the ext_proc filter, the gRPC access log."""

from __future__ import annotations

from collections.abc import Sequence

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, OrFilter
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import Address as EnvoyAddress
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    Http2ProtocolOptions,
    Pipe,
)
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    HeaderForwardingRules,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, StringMatcher

from extproc.auth import credential_headers
from extproc.dialects import dialects, rates
from extproc.envoy_config.typed import (
    breakers,
    buffer_bytes,
    cel,
    discovery,
    endpoints,
    pack,
    seconds,
    socket_address,
    with_flags,
)
from extproc.providers import kinds
from extproc.settings.config import Settings
from extproc.words import contract

CLUSTER = "extproc"
PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

MESSAGE_TIMEOUT = seconds(10)
"""Time limit for one answer of the processor; Envoy's default of 200 ms is less than a guardrail may take."""

_REQUEST_HEADERS = (":method", ":path", "content-type", "content-encoding", "content-length", "x-request-id")
# response headers that the gateway reads, beside those that requests have too
_RESPONSE_HEADERS = (":status", "retry-after", "x-should-retry")


def cluster(settings: Settings, socket: str | None = None) -> Cluster:
    """The processor. A pipe unless the settings say host:port."""
    address, kind = EnvoyAddress(pipe=Pipe(path=socket or settings.processor.path)), ClusterDiscoveryType.STATIC
    if socket is None and settings.processor.address is not None:
        host, _, port = settings.processor.address.rpartition(":")
        host = host.strip("[]")
        address, kind = socket_address(host, int(port)), discovery(host)
    http2 = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
    return Cluster(
        name=CLUSTER,
        type=kind,
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=buffer_bytes(settings),
        circuit_breakers=breakers(),
        load_assignment=endpoints(CLUSTER, address),
        typed_extension_protocol_options={PROTOCOL_OPTIONS: pack(http2)},
    )


def service(attachment: str | None = None) -> GrpcService:
    metadata = [HeaderValue(key=contract.ATTACHMENT, value=attachment)] if attachment else []
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=CLUSTER), initial_metadata=metadata)


def processing_mode(*, response_headers: bool) -> ProcessingMode:
    """The whole request before it is routed; of the answer at most the headers, until the processor asks for more. Any
    other request mode loses or doubles bodies together with retries.
    """
    send, skip = ProcessingModeHeaderSendMode.SEND, ProcessingModeHeaderSendMode.SKIP
    return ProcessingMode(
        request_header_mode=send,
        request_body_mode=ProcessingModeBodySendMode.BUFFERED,
        request_trailer_mode=skip,
        response_header_mode=send if response_headers else skip,
        response_body_mode=ProcessingModeBodySendMode.NONE,
        response_trailer_mode=skip,
    )


def gateway_filter(settings: Settings, attachment: str) -> ExternalProcessor:
    """The settings of the gateway's filter that both modes share."""
    return ExternalProcessor(
        grpc_service=service(attachment),
        failure_mode_allow=False,
        message_timeout=MESSAGE_TIMEOUT,
        processing_mode=processing_mode(response_headers=True),
        allow_mode_override=True,
        response_attributes=list(contract.RESPONSE_ATTRIBUTES),
        forward_rules=gateway_headers(settings),
    )


def gateway_headers(settings: Settings) -> HeaderForwardingRules:
    """Headers that the gateway attachment reads: the fewer headers a message has, the less it costs."""
    prefixes = dict.fromkeys((settings.attribution.prefix, contract.PREFIX, "x-ai-"))
    if settings.budgets:  # their rates take the place of the provider's
        prefixes |= dict.fromkeys(rates())
    own = [name for dialect in dialects().values() for name in (dialect.version, dialect.request_id) if name]
    own += settings.attribution.session
    names = (*_REQUEST_HEADERS, *credential_headers(settings.auth), *_RESPONSE_HEADERS, *own)
    return _only(tuple(dict.fromkeys(names)), tuple(prefixes))


def attempt_headers() -> HeaderForwardingRules:
    """Headers that the attempt attachment reads."""
    names = (":path", "content-type", "content-encoding", contract.ATTEMPT_COUNT, ":status", "retry-after")
    in_body = [name for provider in kinds().values() for name in provider.in_body]
    return _only((*names, *dict.fromkeys(in_body)), (contract.PREFIX,))


def _only(names: Sequence[str], prefixes: Sequence[str]) -> HeaderForwardingRules:
    patterns = [StringMatcher(exact=name) for name in names] + [StringMatcher(prefix=prefix) for prefix in prefixes]
    return HeaderForwardingRules(allowed_headers=ListStringMatcher(patterns=patterns))


def access_log(
    name: str, *, request: Sequence[str] = (), response: Sequence[str] = (), only: AccessLogFilter | None = None
) -> AccessLog:
    """An entry for each request (that `only` lets pass), sent within a tenth of a second of its end."""
    config = HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name=name,
            grpc_service=service(),
            transport_api_version=ApiVersion.V3,
            buffer_flush_interval=seconds(0.1),
            buffer_size_bytes=16384,
        ),
        additional_request_headers_to_log=list(request),
        additional_response_headers_to_log=list(response),
    )
    return AccessLog(name="envoy.access_loggers.http_grpc", filter=only, typed_config=pack(config))


def unseen_ends() -> AccessLogFilter:
    """Requests whose end the gateway attachment does not see by itself. Entries of other requests cost Envoy and the
    processor about 50 µs each, and hold nothing new.
    """
    left = with_flags("DC", "DR")
    seen = "response.code_details == 'via_upstream' || response.code_details.startsWith('extproc_')"
    return AccessLogFilter(or_filter=OrFilter(filters=[left, cel(f"!({seen})")]))

"""Traces: spans of requests and of tries, which Envoy sends to an OpenTelemetry collector.

Envoy takes part in W3C trace context: it reads `traceparent` of clients, and providers get it. The attributes of a
request's span are dynamic metadata of the processor, `telemetry.traces.ATTRIBUTES`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDnsLookupFamily
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManagerTracing
from envoy_data_plane.envoy.extensions.tracers.opentelemetry.samplers.v3 import (
    ParentBasedSamplerConfig,
    TraceIdRatioBasedSamplerConfig,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.metadata.v3 import (
    MetadataKey,
    MetadataKeyPathSegment,
    MetadataKind,
    MetadataKindRequest,
)
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag, CustomTagLiteral, CustomTagMetadata
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType, Percent

from extproc.envoy.envoy_config import processor
from extproc.envoy.envoy_config.typed import discovery, endpoints, pack, seconds, socket_address, tls_to
from extproc.operate.telemetry.traces import ATTRIBUTES
from extproc.settings.config import Settings
from extproc.words import contract

_CLUSTER = "otlp"


def of_requests(settings: Settings) -> HttpConnectionManagerTracing | None:
    """Spans of the public listener."""
    return _tracing(settings, [_attribute(name) for name in ATTRIBUTES])


def of_tries(settings: Settings, provider: str) -> HttpConnectionManagerTracing | None:
    """Spans of the tries at a provider, below those of their requests."""
    literal = CustomTagLiteral(value=provider)
    return _tracing(settings, [CustomTag(tag="extproc.provider", literal=literal)])


def clusters(settings: Settings, ca_file: str) -> list[Cluster]:
    """The collector."""
    traces = settings.telemetry.traces
    if traces is None:
        return []
    url = urlsplit(traces.otlp)
    host = url.hostname or ""
    http2 = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
    collector = Cluster(
        name=_CLUSTER,
        type=discovery(host),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(1),
        load_assignment=endpoints(_CLUSTER, socket_address(host, url.port or 4317), hostname=host),
        transport_socket=tls_to(host, ca_file) if url.scheme == "https" else None,
        typed_extension_protocol_options={processor.PROTOCOL_OPTIONS: pack(http2)},
    )
    return [collector]


def _tracing(settings: Settings, tags: list[CustomTag]) -> HttpConnectionManagerTracing | None:
    traces = settings.telemetry.traces
    if traces is None:
        return None
    service = GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=_CLUSTER), timeout=seconds(1))
    exporter = OpenTelemetryConfig(
        grpc_service=service, service_name="llm-extproc", sampler=_sampler(round(1_000_000 * traces.sample))
    )
    return HttpConnectionManagerTracing(
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=pack(exporter)),
        random_sampling=Percent(value=100),  # a lower one would also drop traces that their callers record
        client_sampling=Percent(value=0),  # only traceparent decides, not x-client-trace-id
        custom_tags=tags,
    )


def _sampler(parts: int) -> TypedExtensionConfig:
    """The decision of the caller, or so many parts of a million of the traces that begin here."""
    share = FractionalPercent(numerator=parts, denominator=FractionalPercentDenominatorType.MILLION)
    ours = TypedExtensionConfig(
        name="envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        typed_config=pack(TraceIdRatioBasedSamplerConfig(sampling_percentage=share)),
    )
    return TypedExtensionConfig(
        name="envoy.tracers.opentelemetry.samplers.parent_based",
        typed_config=pack(ParentBasedSamplerConfig(wrapped_sampler=ours)),
    )


def _attribute(name: str) -> CustomTag:
    key = MetadataKey(key=contract.TRACE_NAMESPACE, path=[MetadataKeyPathSegment(key=name)])
    kind = MetadataKind(request=MetadataKindRequest())
    # Envoy's own http.url has the query, where some clients send their key.
    default = "-" if name == "http.url" else ""
    return CustomTag(tag=name, metadata=CustomTagMetadata(kind=kind, metadata_key=key, default_value=default))

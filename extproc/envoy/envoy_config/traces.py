"""Traces: spans of requests and of tries, which Envoy sends to an OpenTelemetry collector.

Envoy takes part in W3C trace context: it reads `traceparent` of clients, and providers get it. Attributes of the model
are in a span of the processor, `operate/telemetry/spans.py`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.trace import v3 as tracev3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.tracers.opentelemetry.samplers.v3 import (
    ParentBasedSamplerConfig,
    TraceIdRatioBasedSamplerConfig,
)
from envoy_data_plane.envoy.type import v3 as typev3
from envoy_data_plane.envoy.type.tracing import v3 as tracingv3

from extproc.envoy.envoy_config.typed import cluster_at, http2, pack, seconds
from extproc.settings.config import Settings

_CLUSTER = "otlp"


def of_requests(settings: Settings) -> hcmv3.HttpConnectionManagerTracing | None:
    """Spans of the public listener."""
    # Envoy's http.url is left out: it has the query, in which some clients send their key.
    return _tracing(settings, [tracingv3.CustomTag(tag="http.url", value="%PATH(NQ:PATH)%")])


def of_tries(settings: Settings, provider: str) -> hcmv3.HttpConnectionManagerTracing | None:
    """Spans of the tries at a provider, below their requests' spans."""
    literal = tracingv3.CustomTagLiteral(value=provider)
    return _tracing(settings, [tracingv3.CustomTag(tag="extproc.provider", literal=literal)])


def clusters(settings: Settings, ca_file: str) -> list[clusterv3.Cluster]:
    """Cluster of the collector."""
    traces = settings.telemetry.traces
    if traces is None:
        return []
    collector = cluster_at(_CLUSTER, urlsplit(traces.otlp), ca_file, timeout=1, port=4317)
    collector.typed_extension_protocol_options = http2(corev3.Http2ProtocolOptions())
    return [collector]


def _tracing(settings: Settings, tags: list[tracingv3.CustomTag]) -> hcmv3.HttpConnectionManagerTracing | None:
    traces = settings.telemetry.traces
    if traces is None:
        return None
    service = corev3.GrpcService(envoy_grpc=corev3.GrpcServiceEnvoyGrpc(cluster_name=_CLUSTER), timeout=seconds(1))
    exporter = tracev3.OpenTelemetryConfig(
        grpc_service=service, service_name="llm-extproc", sampler=_sampler(round(1_000_000 * traces.sample))
    )
    return hcmv3.HttpConnectionManagerTracing(
        provider=tracev3.TracingHttp(name="envoy.tracers.opentelemetry", typed_config=pack(exporter)),
        random_sampling=typev3.Percent(value=100),  # a lower value would also drop traces that their callers record
        client_sampling=typev3.Percent(value=0),  # only traceparent decides, not x-client-trace-id
        custom_tags=tags,
    )


def _sampler(parts: int) -> corev3.TypedExtensionConfig:
    """Sampler: the caller's decision, or a share of the traces that begin here, in parts per million."""
    share = typev3.FractionalPercent(numerator=parts, denominator=typev3.FractionalPercentDenominatorType.MILLION)
    ours = corev3.TypedExtensionConfig(
        name="envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        typed_config=pack(TraceIdRatioBasedSamplerConfig(sampling_percentage=share)),
    )
    return corev3.TypedExtensionConfig(
        name="envoy.tracers.opentelemetry.samplers.parent_based",
        typed_config=pack(ParentBasedSamplerConfig(wrapped_sampler=ours)),
    )

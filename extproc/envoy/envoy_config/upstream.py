"""The provider's cluster: address, TLS, limits and outlier detection.

A filter of the cluster strips forged response headers. The internal listener cannot strip them: local replies of the
hop have their headers before its filters run, and would lose their reason.

Outlier detection counts failed connections alone and never ejects a last host: a provider is one host, so one failing
model or one consumer's requests would disable it for all consumers. `routing.streaks` counts health by model.
"""

from __future__ import annotations

from dataclasses import replace

from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutationv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.extensions.filters.http.aws_request_signing.v3 import AwsRequestSigning
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as headermutationv3
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreamhttpv3
from envoy_data_plane.envoy.type import v3 as typev3

from extproc.envoy.envoy_config import pools
from extproc.envoy.envoy_config.public import ENVOY_PREFIX
from extproc.envoy.envoy_config.tries import provider_cluster
from extproc.envoy.envoy_config.typed import (
    begins,
    breakers,
    cluster_at,
    http_filter,
    protocol_options,
    remove,
    seconds,
)
from extproc.settings.config import Settings
from extproc.upstream.providers import ProviderSettings
from extproc.words import contract

_STREAMS = 100
"""Most concurrent requests in an HTTP/2 connection to a provider."""


def cluster(settings: Settings, name: str, ca_file: str, place: str) -> clusterv3.Cluster:
    """Cluster of the provider `name`, behind the try `place`."""
    provider = settings.hops[name]
    url, authorities = provider.url, provider.tls_ca or ca_file
    protocol = _protocol(provider, settings.limits.answer_buffer, secure=url.scheme == "https")
    found = replace(
        cluster_at(provider_cluster(place), url, authorities, timeout=provider.connect_timeout),
        per_connection_buffer_limit_bytes=settings.limits.answer_buffer,
        circuit_breakers=breakers(provider.max_requests, provider.max_connections),
        outlier_detection=_outliers(provider),
        # No panic threshold, which would bring back ejected hosts.
        common_lb_config=clusterv3.ClusterCommonLbConfig(healthy_panic_threshold=typev3.Percent(value=0.0)),
        # TCP keepalive detects a vanished peer: long silences are normal on these connections.
        upstream_connection_options=clusterv3.UpstreamConnectionOptions(
            tcp_keepalive=corev3.TcpKeepalive(keepalive_probes=3, keepalive_time=30, keepalive_interval=10)
        ),
        typed_extension_protocol_options=protocol_options(protocol),
    )
    return found if provider.pool is None else pools.with_endpoints(settings, name, found)


def _outliers(provider: ProviderSettings) -> clusterv3.OutlierDetection:
    """Ejects a host that does not accept connections, but never a name's last host. A failed answer is a fault of a
    model or a request, not of a host: `routing.streaks` judges it.
    """
    detection = provider.outlier_detection
    return clusterv3.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=detection.consecutive_5xx,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=seconds(detection.interval),
        base_ejection_time=seconds(detection.base_ejection_time),
        max_ejection_percent=99,
    )


def _protocol(provider: ProviderSettings, window: int, *, secure: bool) -> upstreamhttpv3.HttpProtocolOptions:
    # Windows of answers to slow clients stay full. This connection window leaves room for other answers.
    http2 = corev3.Http2ProtocolOptions(
        max_concurrent_streams=_STREAMS,
        initial_stream_window_size=window,
        initial_connection_window_size=_STREAMS * window,
        connection_keepalive=corev3.KeepaliveSettings(interval=seconds(30), timeout=seconds(10)),
    )
    plain = upstreamhttpv3.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=corev3.Http1ProtocolOptions())
    return upstreamhttpv3.HttpProtocolOptions(
        common_http_protocol_options=corev3.HttpProtocolOptions(idle_timeout=seconds(60)),
        explicit_http_config=None if secure else plain,
        # HTTP/2 if the provider offers it, otherwise HTTP/1.
        auto_config=upstreamhttpv3.HttpProtocolOptionsAutoHttpConfig(http2_protocol_options=http2) if secure else None,
        http_filters=[_forged_headers(), *_signature(provider), http_filter("upstream_codec", UpstreamCodec())],
    )


def _signature(provider: ProviderSettings) -> list[hcmv3.HttpFilter]:
    """Signs AWS requests. A filter of the cluster, not of the internal listener: body, path and host are final only
    here.
    """
    service = provider.provider.signed_for
    if service is None or provider.credential is not None:
        return []
    # Headers that Envoy adds later are excluded from the signature.
    unsigned = [begins(prefix) for prefix in ("x-envoy-", "x-forwarded-", "x-request-id")]
    signing = AwsRequestSigning(service_name=service, region=provider.region or "", match_excluded_headers=unsigned)
    return [http_filter("aws_request_signing", signing)]


def _forged_headers() -> hcmv3.HttpFilter:
    """Removes headers that only the gateway may send. In the internal listener this filter would also remove them from
    Envoy's own answers. A provider's x-envoy-* headers could prevent retries.
    """
    # These headers concern the provider's host. A client that followed a redirect would send its key there.
    names = ("alt-svc", "set-cookie", "location", "content-location", "refresh")
    mutations = [
        *(remove(begins(prefix)) for prefix in (contract.PREFIX, "x-ai-", ENVOY_PREFIX)),
        *(mutationv3.HeaderMutation(remove=name) for name in names),
    ]
    return http_filter(
        "header_mutation",
        headermutationv3.HeaderMutation(mutations=headermutationv3.Mutations(response_mutations=mutations)),
    )

"""Pools in Envoy: a cluster whose endpoints the processor gives, and the choice of an endpoint for each try.

The gateway attachment names an endpoint for each try in one header. A script in the hop puts that of the current try
into dynamic metadata, where the cluster's policy finds it. Metadata never reach a provider, and no client can set them.
An endpoint that has just left is unknown to Envoy, and so is one that the gateway attachment did not name: then Envoy
chooses by least request.

With `pool.picker` an ext_proc filter asks that picker in place of the script. Its answer is the same metadata.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as extprocv3
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata import v3 as headertometadatav3
from envoy_data_plane.envoy.extensions.filters.http.lua import v3 as luav3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host import v3 as overridehostv3
from envoy_data_plane.envoy.type.metadata import v3 as metadatav3

from extproc.envoy.envoy_config import processor, typed
from extproc.envoy.envoy_config.typed import pack, seconds
from extproc.envoy.resources import stem
from extproc.settings.config import Settings
from extproc.upstream.providers._pool import PoolSettings
from extproc.words import contract

PICKER = "envoy.filters.http.ext_proc.picker"
"""Name of the filter that asks an external picker."""

_FIRST = 2.0
"""Seconds for which Envoy waits for a pool's first endpoints, before it listens without them."""

_SCRIPT = """\
function envoy_on_request(handle)
  local named = handle:headers():get("%(ENDPOINTS)s")
  if named == nil then return end
  local left = tonumber(handle:headers():get("%(ATTEMPT_COUNT)s") or "1")
  for endpoint in string.gmatch(named .. ",", "([^,]*),") do
    left = left - 1
    if left == 0 then
      if endpoint ~= "" then
        handle:streamInfo():dynamicMetadata():set("%(LB_NAMESPACE)s", "%(DESTINATION)s", endpoint)
      end
      return
    end
  end
end
"""


def picker_cluster(settings: Settings, name: str, authorities: str, place: str) -> list[clusterv3.Cluster]:
    """The cluster of the external picker of the provider `name`, if it has one."""
    provider = settings.hops[name]
    if provider.pool is None or provider.pool.picker is None:
        return []
    url = urlsplit(provider.pool.picker.replace("grpc", "http", 1))
    found = typed.cluster_at(_picker_name(place), url, provider.tls_ca or authorities, timeout=provider.connect_timeout)
    options = typed.http2(corev3.Http2ProtocolOptions(initial_stream_window_size=settings.limits.answer_buffer))
    return [replace(found, circuit_breakers=typed.breakers(), typed_extension_protocol_options=options)]


def _picker_name(place: str) -> str:
    return f"picker-{stem(place)}"


def external_picker(pool: PoolSettings, place: str) -> list[hcmv3.HttpFilter]:
    """The filters that ask an external picker, and tell it the endpoint that answered."""
    send = extprocv3.ProcessingModeHeaderSendMode.SEND
    duplex = extprocv3.ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED
    options = extprocv3.MetadataOptionsMetadataNamespaces(untyped=[contract.LB_NAMESPACE])
    asks = extprocv3.ExternalProcessor(
        grpc_service=corev3.GrpcService(
            envoy_grpc=corev3.GrpcServiceEnvoyGrpc(cluster_name=_picker_name(place)), timeout=seconds(0)
        ),
        failure_mode_allow=False,  # see the routes of `tries`
        message_timeout=seconds(pool.picker_timeout),
        processing_mode=extprocv3.ProcessingMode(
            request_header_mode=send,
            request_body_mode=duplex,
            request_trailer_mode=send,
            response_header_mode=send,
            response_body_mode=duplex,
            response_trailer_mode=send,
        ),
        metadata_options=extprocv3.MetadataOptions(forwarding_namespaces=options, receiving_namespaces=options),
    )
    pair = headertometadatav3.ConfigKeyValuePair(
        metadata_namespace=contract.LB_NAMESPACE,
        key=contract.SERVED,
        type=headertometadatav3.ConfigValueType.STRING,
    )
    rule = headertometadatav3.ConfigRule(header=contract.ENDPOINT, on_header_present=pair)
    served = headertometadatav3.Config(response_rules=[rule])
    return [
        hcmv3.HttpFilter(name=PICKER, typed_config=pack(asks)),
        hcmv3.HttpFilter(name="envoy.filters.http.header_to_metadata.served", typed_config=pack(served)),
    ]


def destination() -> hcmv3.HttpFilter:
    """The script of the hop that takes the current try's endpoint from the header with all of them."""
    lua = luav3.Lua(default_source_code=corev3.DataSource(inline_string=_SCRIPT % vars(contract)))
    return hcmv3.HttpFilter(name="envoy.filters.http.lua.destination", typed_config=pack(lua))


def with_endpoints(settings: Settings, name: str, cluster: clusterv3.Cluster) -> clusterv3.Cluster:
    """The cluster of the provider `name`, with the endpoints of its pool in place of the address."""
    path = [metadatav3.MetadataKeyPathSegment(key=contract.DESTINATION)]
    source = overridehostv3.OverrideHostOverrideHostSource(
        metadata=metadatav3.MetadataKey(key=contract.LB_NAMESPACE, path=path)
    )
    fallback = _policy(typed.extension("envoy.load_balancing_policies.least_request", LeastRequest()))
    override = overridehostv3.OverrideHost(override_host_sources=[source], fallback_policy=fallback)
    return replace(
        cluster,
        type=clusterv3.ClusterDiscoveryType.EDS,
        load_assignment=None,
        eds_cluster_config=clusterv3.ClusterEdsClusterConfig(
            eds_config=processor.discovered(settings, _FIRST), service_name=contract.pool_name(name)
        ),
        load_balancing_policy=_policy(typed.extension("envoy.load_balancing_policies.override_host", override)),
    )


def _policy(extension: corev3.TypedExtensionConfig) -> clusterv3.LoadBalancingPolicy:
    return clusterv3.LoadBalancingPolicy(
        policies=[clusterv3.LoadBalancingPolicyPolicy(typed_extension_config=extension)]
    )

"""Envoy's messages as values: extensions packed into Any, durations, addresses, buffers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any as Json
from urllib.parse import SplitResult

import betterproto2
import yaml
from envoy_data_plane.envoy.config.accesslog import v3 as accesslogv3
from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutationv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.endpoint import v3 as endpointv3
from envoy_data_plane.envoy.config.listener import v3 as listenerv3
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tlsv3
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreamhttpv3
from envoy_data_plane.envoy.type import v3 as typev3
from envoy_data_plane.envoy.type.matcher import v3 as matcherv3
from envoy_data_plane.google.protobuf import Any, Struct
from envoy_data_plane.message_pool import default_message_pool

CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""File of the system's certificate authorities, on Debian and related systems."""

UNLIMITED = 1_000_000
"""Limit of circuit breakers that must never refuse; Envoy's default is 1,024."""

_SIZES = (64 << 10, 1 << 20)
"""Bytes of small and of medium requests."""
_NOT_COMPRESSED = routev3.HeaderMatcher(name="content-encoding", present_match=True, invert_match=True)


@dataclass(eq=False, repr=False)
class TypedStruct(betterproto2.Message):
    """xds.type.v3.TypedStruct: an extension by name, for extensions missing in envoy_data_plane."""

    type_url: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    value: Struct | None = betterproto2.field(2, betterproto2.TYPE_MESSAGE, optional=True)  # noqa: RUF009


# A cache, because resolving a class's annotations for each message took half of `to_json`'s time.
_hints: Json = cache(vars(betterproto2.Message)["_type_hints"].__func__)
setattr(betterproto2.Message, "_type_hints", classmethod(_hints))  # noqa: B010

default_message_pool.register_message("xds.type.v3", "TypedStruct", TypedStruct)


class _Packed(Any):
    """A message in Any without its bytes. Writing the bytes, and reading them again for JSON, took half of `to_json`'s
    time.
    """

    def hold(self, message: betterproto2.Message) -> None:
        self.__dict__["_held"] = message  # an attribute, not a field of Any

    def __bytes__(self) -> bytes:
        return bytes(Any(type_url=self.type_url, value=bytes(self.__dict__["_held"])))

    def to_dict(self, **options: Json) -> dict[str, Json]:
        return {"@type": self.type_url, **self.__dict__["_held"].to_dict(**options)}


def pack(message: betterproto2.Message) -> Any:
    """`message` in Any, for `to_json` and for the bytes of an outer message."""
    packed = _Packed(type_url=default_message_pool.type_to_url[type(message)])
    packed.hold(message)
    return packed


def extension(name: str, message: betterproto2.Message) -> corev3.TypedExtensionConfig:
    return corev3.TypedExtensionConfig(name=name, typed_config=pack(message))


def http_filter(name: str, message: betterproto2.Message) -> hcmv3.HttpFilter:
    return hcmv3.HttpFilter(name=f"envoy.filters.http.{name}", typed_config=pack(message))


def untyped(kind: str, value: Mapping[str, Json]) -> TypedStruct:
    """The message `kind` of Envoy, for types missing in envoy_data_plane."""
    return TypedStruct(type_url=f"type.googleapis.com/{kind}", value=Struct.from_dict(dict(value)))


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def file(path: str) -> corev3.DataSource:
    return corev3.DataSource(filename=path)


def set_header(name: str, value: str) -> corev3.HeaderValueOption:
    """A header that replaces earlier values. `%` is escaped, because it begins a format command of Envoy."""
    return set_command(name, value.replace("%", "%%"))


def set_command(name: str, command: str) -> corev3.HeaderValueOption:
    """A header that replaces earlier values, with format commands of Envoy."""
    header = corev3.HeaderValue(key=name, value=command)
    action = corev3.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return corev3.HeaderValueOption(header=header, append_action=action)


def copy_header(source: str, name: str) -> corev3.HeaderValueOption:
    """The header `name` with the value of the request's header `source`. Without that header Envoy adds none."""
    return set_command(name, f"%REQ({source})%")


def exact(text: str) -> matcherv3.StringMatcher:
    """Matches exactly one text."""
    return matcherv3.StringMatcher(exact=text)


def begins(text: str) -> matcherv3.StringMatcher:
    """Matches every text with this beginning."""
    return matcherv3.StringMatcher(prefix=text)


def matches(regex: str) -> matcherv3.StringMatcher:
    """Matches every text that an RE2 expression matches in full."""
    return matcherv3.StringMatcher(safe_regex=matcherv3.RegexMatcher(regex=regex))


def remove(names: matcherv3.StringMatcher) -> mutationv3.HeaderMutation:
    """Removes every header whose name matches."""
    return mutationv3.HeaderMutation(remove_on_match=mutationv3.HeaderMutationRemoveOnMatch(key_matcher=names))


def socket_address(host: str, port: int) -> corev3.Address:
    return corev3.Address(socket_address=corev3.SocketAddress(address=host, port_value=port))


def endpoints(cluster: str, *addresses: corev3.Address, hostname: str = "") -> endpointv3.ClusterLoadAssignment:
    """Endpoints of a cluster, with equal weights."""
    found = [
        endpointv3.LbEndpoint(endpoint=endpointv3.Endpoint(address=address, hostname=hostname)) for address in addresses
    ]
    return endpointv3.ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[endpointv3.LocalityLbEndpoints(lb_endpoints=found)]
    )


def discovery(host: str) -> clusterv3.ClusterDiscoveryType:
    return clusterv3.ClusterDiscoveryType.STATIC if is_ip(host) else clusterv3.ClusterDiscoveryType.STRICT_DNS


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def http_chain(
    manager: hcmv3.HttpConnectionManager, transport_socket: corev3.TransportSocket | None = None
) -> list[listenerv3.FilterChain]:
    """Filters of an HTTP listener."""
    http = listenerv3.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))
    return [listenerv3.FilterChain(filters=[http], transport_socket=transport_socket)]


def http2(options: corev3.Http2ProtocolOptions) -> dict[str, Any]:
    """Options of a cluster with HTTP/2 without TLS."""
    config = upstreamhttpv3.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=options)
    return protocol_options(upstreamhttpv3.HttpProtocolOptions(explicit_http_config=config))


def protocol_options(options: upstreamhttpv3.HttpProtocolOptions) -> dict[str, Any]:
    """`typed_extension_protocol_options` of a cluster."""
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(options)}


def cluster_at(
    name: str, url: SplitResult, ca_file: str, *, timeout: float, port: int | None = None
) -> clusterv3.Cluster:
    """A cluster of the host of `url`, with TLS for https. `timeout` is for connecting, in seconds. `port` is for a URL
    without a port; None: the scheme's default.
    """
    host, secure = url.hostname or "", url.scheme == "https"
    address = socket_address(host, url.port or port or (443 if secure else 80))
    return clusterv3.Cluster(
        name=name,
        type=discovery(host),
        # IPv4 first: AUTO would prefer IPv6 even without a route for it.
        dns_lookup_family=clusterv3.ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(timeout),
        load_assignment=endpoints(name, address, hostname=host),
        transport_socket=tls_to(host, ca_file) if secure else None,
    )


def tls_to(host: str, ca_file: str, own: tuple[str, str] | None = None) -> corev3.TransportSocket:
    """TLS to `host`. Its certificate must have that name, from an authority in `ca_file`. Envoy shows a certificate of
    its `own`: the files of certificate and key.
    """
    validation = tlsv3.CertificateValidationContext(trusted_ca=file(ca_file))
    if is_ip(host):  # SNI allows names, not addresses
        address = tlsv3.SubjectAltNameMatcher(
            san_type=tlsv3.SubjectAltNameMatcherSanType.IP_ADDRESS, matcher=exact(host)
        )
        validation.match_typed_subject_alt_names.append(address)
    common = tlsv3.CommonTlsContext(validation_context=validation)
    if own is not None:
        common.tls_certificates = [tlsv3.TlsCertificate(certificate_chain=file(own[0]), private_key=file(own[1]))]
    context = tlsv3.UpstreamTlsContext(
        sni="" if is_ip(host) else host,
        auto_sni_san_validation=not is_ip(host),
        common_tls_context=common,
    )
    return corev3.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def breakers(requests: int = UNLIMITED, connections: int = UNLIMITED) -> clusterv3.CircuitBreakers:
    thresholds = clusterv3.CircuitBreakersThresholds(
        max_connections=connections, max_pending_requests=requests, max_requests=requests, max_retries=UNLIMITED
    )
    return clusterv3.CircuitBreakers(thresholds=[thresholds])


def buffer_bytes(body: int) -> int:
    """Buffer limit of a request that Envoy holds for the processor and for retries: its body, and additions of
    guardrails and translation. By default Envoy refuses bodies above a connection's limit, and cannot retry them.
    """
    return 2 * body + (1 << 20)


def by_size(route: routev3.Route, most: int) -> list[routev3.Route]:
    """Routes for requests of up to `most` bytes: first those for smaller requests, with smaller buffers.

    Envoy has one limit for a request's body and for an answer held until the processor has seen its headers. With the
    limit of the largest requests, a fast answer took 42 MB of Envoy's memory while the processor was busy.
    """
    assert route.match is not None
    routes = []
    for size in (size for size in _SIZES if size < most):
        length = routev3.HeaderMatcher(name="content-length", range_match=typev3.Int64Range(start=0, end=size + 1))
        match = replace(route.match, headers=[*route.match.headers, length, _NOT_COMPRESSED])
        name, limit = f"{route.name} {size >> 10} KiB", buffer_bytes(size)
        routes.append(replace(route, name=name, match=match, request_body_buffer_limit=limit))
    return [*routes, replace(route, request_body_buffer_limit=buffer_bytes(most))]


class _Dumper(yaml.SafeDumper):
    """A YAML writer that quotes y and n. Envoy reads them as booleans, and PyYAML writes them without quotes."""

    def ignore_aliases(self, _data: Json) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else '"' if value.lower() in ("y", "n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_json(message: betterproto2.Message) -> dict[str, Json]:
    """JSON with the field names of Envoy's documentation; betterproto2's casing would write consecutive_5_xx."""
    tree: dict[str, Json] = _integers(message.to_dict(casing=str))  # type: ignore[arg-type]
    return tree


def _integers(value: Json) -> Json:
    """Whole numbers of a Struct, which are doubles, as integers: people write 1, not 1.0."""
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_yaml(tree: Json) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=120)


def cel(expression: str) -> accesslogv3.AccessLogFilter:
    """Matches requests by a CEL expression over Envoy's attributes."""
    name = "envoy.access_loggers.extension_filters.cel"
    typed = pack(ExpressionFilter(expression=expression))
    return accesslogv3.AccessLogFilter(extension_filter=accesslogv3.ExtensionFilter(name=name, typed_config=typed))


def with_flags(*names: str) -> accesslogv3.AccessLogFilter:
    """Matches requests that ended with one of these response flags."""
    return accesslogv3.AccessLogFilter(response_flag_filter=accesslogv3.ResponseFlagFilter(flags=list[str](names)))

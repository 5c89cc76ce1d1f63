"""Envoy's messages as values: packing an extension into Any, durations, addresses, buffers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any as Json

import betterproto2
import yaml
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLogFilter, ExtensionFilter, ResponseFlagFilter
from envoy_data_plane.envoy.config.cluster.v3 import CircuitBreakers, CircuitBreakersThresholds, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    SocketAddress,
    TransportSocket,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher, Route
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.v3 import Int64Range
from envoy_data_plane.google.protobuf import Any, Struct
from envoy_data_plane.message_pool import default_message_pool

CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""The system's certificate authorities, at their path on Debian and its relatives."""

UNLIMITED = 1_000_000
"""A limit for circuit breakers that must never refuse: Envoy's default is 1,024."""

_SIZES = (64 << 10, 1 << 20)
"""Bytes of small and of middle requests."""
_NOT_COMPRESSED = HeaderMatcher(name="content-encoding", present_match=True, invert_match=True)


@dataclass(eq=False, repr=False)
class TypedStruct(betterproto2.Message):
    """xds.type.v3.TypedStruct: an extension by name, for those that envoy_data_plane does not have."""

    type_url: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    value: Struct | None = betterproto2.field(2, betterproto2.TYPE_MESSAGE, optional=True)  # noqa: RUF009


# Resolving a class's annotations anew for each of its messages took half of the time of `to_json`.
_hints: Json = cache(vars(betterproto2.Message)["_type_hints"].__func__)
setattr(betterproto2.Message, "_type_hints", classmethod(_hints))  # noqa: B010

default_message_pool.register_message("xds.type.v3", "TypedStruct", TypedStruct)


class _Packed(Any):
    """A message in Any without its bytes. To write them, and to read them for JSON again, took half of `to_json`."""

    def hold(self, message: betterproto2.Message) -> None:
        self.__dict__["_held"] = message  # not a field of Any

    def __bytes__(self) -> bytes:
        return bytes(Any(type_url=self.type_url, value=bytes(self.__dict__["_held"])))

    def to_dict(self, **options: Json) -> dict[str, Json]:
        return {"@type": self.type_url, **self.__dict__["_held"].to_dict(**options)}


def pack(message: betterproto2.Message) -> Any:
    """`message` in Any, for `to_json` and for bytes of a whole message."""
    packed = _Packed(type_url=default_message_pool.type_to_url[type(message)])
    packed.hold(message)
    return packed


def extension(name: str, message: betterproto2.Message) -> TypedExtensionConfig:
    return TypedExtensionConfig(name=name, typed_config=pack(message))


def http_filter(name: str, message: betterproto2.Message) -> HttpFilter:
    return HttpFilter(name=f"envoy.filters.http.{name}", typed_config=pack(message))


def untyped(kind: str, value: Mapping[str, Json]) -> TypedStruct:
    """The message `kind` of Envoy, which envoy_data_plane does not know."""
    return TypedStruct(type_url=f"type.googleapis.com/{kind}", value=Struct.from_dict(dict(value)))


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def file(path: str) -> DataSource:
    return DataSource(filename=path)


def set_header(name: str, value: str) -> HeaderValueOption:
    """A header that replaces any earlier one. `%` would begin one of Envoy's format commands."""
    header = HeaderValue(key=name, value=value.replace("%", "%%"))
    action = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return HeaderValueOption(header=header, append_action=action)


def socket_address(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def endpoints(cluster: str, *addresses: Address, hostname: str = "") -> ClusterLoadAssignment:
    """A cluster's endpoints, all alike."""
    found = [LbEndpoint(endpoint=Endpoint(address=address, hostname=hostname)) for address in addresses]
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=found)])


def discovery(host: str) -> ClusterDiscoveryType:
    return ClusterDiscoveryType.STATIC if is_ip(host) else ClusterDiscoveryType.STRICT_DNS


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def tls_to(host: str, ca_file: str) -> TransportSocket:
    """TLS to `host`, which must show a certificate for that name of one of the authorities in `ca_file`."""
    validation = CertificateValidationContext(trusted_ca=file(ca_file))
    if is_ip(host):  # SNI takes names, not addresses
        address = SubjectAltNameMatcher(
            san_type=SubjectAltNameMatcherSanType.IP_ADDRESS, matcher=StringMatcher(exact=host)
        )
        validation.match_typed_subject_alt_names.append(address)
    context = UpstreamTlsContext(
        sni="" if is_ip(host) else host,
        auto_sni_san_validation=not is_ip(host),
        common_tls_context=CommonTlsContext(validation_context=validation),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))


def breakers(requests: int = UNLIMITED, connections: int = UNLIMITED) -> CircuitBreakers:
    thresholds = CircuitBreakersThresholds(
        max_connections=connections, max_pending_requests=requests, max_requests=requests, max_retries=UNLIMITED
    )
    return CircuitBreakers(thresholds=[thresholds])


def buffer_bytes(body: int) -> int:
    """Buffer limit of a request that Envoy holds for the processor and for retries: a body, and the additions of guards
    and translation. By default it refuses bodies above a connection's limit, and forgets how to retry them.
    """
    return 2 * body + (1 << 20)


def by_size(route: Route, most: int) -> list[Route]:
    """The route for requests of up to `most` bytes, behind ones for smaller requests, with smaller buffers.

    Envoy has one limit for the body of a request and for what it holds of an answer whose headers the processor has not
    seen yet. With the limit of the largest requests, a fast answer took 42 MB of Envoy while the processor was busy.
    """
    assert route.match is not None
    routes = []
    for size in (size for size in _SIZES if size < most):
        length = HeaderMatcher(name="content-length", range_match=Int64Range(start=0, end=size + 1))
        match = replace(route.match, headers=[*route.match.headers, length, _NOT_COMPRESSED])
        name, limit = f"{route.name} {size >> 10} KiB", buffer_bytes(size)
        routes.append(replace(route, name=name, match=match, request_body_buffer_limit=limit))
    return [*routes, replace(route, request_body_buffer_limit=buffer_bytes(most))]


class _Dumper(yaml.SafeDumper):
    """A YAML writer that quotes y and n: Envoy reads them as booleans, PyYAML writes them without quotes."""

    def ignore_aliases(self, _data: Json) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else '"' if value.lower() in ("y", "n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_json(message: betterproto2.Message) -> dict[str, Json]:
    """JSON with the field names of Envoy's documentation; betterproto2's own casing would write consecutive_5_xx."""
    tree: dict[str, Json] = _integers(message.to_dict(casing=str))  # type: ignore[arg-type]
    return tree


def _integers(value: Json) -> Json:
    """Numbers in a Struct are doubles; people write 1 and not 1.0."""
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_yaml(tree: Json) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=120)


def cel(expression: str) -> AccessLogFilter:
    """Requests for which a CEL expression over Envoy's attributes is true."""
    name = "envoy.access_loggers.extension_filters.cel"
    typed = pack(ExpressionFilter(expression=expression))
    return AccessLogFilter(extension_filter=ExtensionFilter(name=name, typed_config=typed))


def with_flags(*names: str) -> AccessLogFilter:
    """Requests that ended with one of these response flags."""
    return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list[str](names)))

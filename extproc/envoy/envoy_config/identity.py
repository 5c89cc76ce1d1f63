"""Credentials that Envoy verifies before the gateway attachment: tokens and client certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDnsLookupFamily
from envoy_data_plane.envoy.config.core.v3 import ConfigSource, HttpUri, WatchedDirectory
from envoy_data_plane.envoy.config.route.v3 import RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
)
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwksAsyncFetch,
    JwtAuthentication,
    JwtHeader,
    JwtProvider,
    JwtRequirement,
    JwtRequirementOrList,
    RemoteJwks,
    RequirementRule,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
)
from envoy_data_plane.google.protobuf import Empty

from extproc.access.auth import JWTSettings
from extproc.envoy.envoy_config.typed import discovery, endpoints, file, http_filter, seconds, socket_address, tls_to
from extproc.settings.config import Settings
from extproc.settings.listener import TLSSettings
from extproc.words import contract

_CERTIFICATE, _CLIENT_CA = "listener", "client-ca"  # names of secrets
_FETCH_TIMEOUT = 5.0  # seconds
_CACHED = 300.0  # seconds that an issuer's keys are kept; after a failure they are fetched again every second


def jwt_filters(settings: Settings) -> Sequence[HttpFilter]:
    """The filter that verifies tokens; none where no issuer is set. It refuses nothing: a gateway key is no token, and
    the reason why a token is not good goes to the processor, which answers in the client's API.
    """
    issuers = settings.auth.jwt
    if not issuers:
        return []
    requirements = [JwtRequirement(provider_name=_name(index)) for index in range(len(issuers))]
    any_of = [*requirements, JwtRequirement(allow_missing_or_failed=Empty())]
    rule = RequirementRule(
        match=RouteMatch(prefix="/"), requires=JwtRequirement(requires_any=JwtRequirementOrList(requirements=any_of))
    )
    providers = {_name(index): _provider(issuer) for index, issuer in enumerate(issuers)}
    return [http_filter("jwt_authn", JwtAuthentication(providers=providers, rules=[rule]))]


def _provider(issuer: JWTSettings) -> JwtProvider:
    bearer = "Bearer " if issuer.header == "authorization" else ""
    provider = JwtProvider(
        issuer=issuer.issuer,
        audiences=list(issuer.audiences),
        require_expiration=True,
        clock_skew_seconds=int(issuer.clock_skew),
        # Headers are named, because otherwise a token in the query would be accepted too, and go on to the provider.
        from_headers=[JwtHeader(name=issuer.header, value_prefix=bearer)],
        forward=False,  # a verified token leaves the request
        payload_in_metadata=contract.claims_key(issuer.mark),
        failed_status_in_metadata=contract.failure_key(issuer.mark),
    )
    if issuer.jwks_uri is None:
        provider.local_jwks = file((issuer.jwks or "").removeprefix("file:"))
    else:
        uri = HttpUri(uri=issuer.jwks_uri, cluster=_cluster_name(issuer), timeout=seconds(_FETCH_TIMEOUT))
        # Keys are fetched in the background, from the start: no request waits for the issuer, and Envoy starts without
        # it.
        fetch = JwksAsyncFetch(fast_listener=True)
        provider.remote_jwks = RemoteJwks(http_uri=uri, cache_duration=seconds(_CACHED), async_fetch=fetch)
    return provider


def jwks_clusters(settings: Settings, ca_file: str) -> Sequence[Cluster]:
    """The clusters from which the keys of issuers are fetched."""
    return [_cluster(issuer, ca_file) for issuer in settings.auth.jwt if issuer.jwks_uri is not None]


def _cluster(issuer: JWTSettings, ca_file: str) -> Cluster:
    url, name = urlsplit(issuer.jwks_uri or ""), _cluster_name(issuer)
    host, secure = url.hostname or "", url.scheme == "https"
    address = socket_address(host, url.port or (443 if secure else 80))
    return Cluster(
        name=name,
        type=discovery(host),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(_FETCH_TIMEOUT),
        load_assignment=endpoints(name, address, hostname=host),
        transport_socket=tls_to(host, issuer.tls_ca or ca_file) if secure else None,
    )


def metadata(settings: Settings, receiving: Sequence[str] = ()) -> MetadataOptions | None:
    """Metadata that the processor receives, and metadata that it may set."""
    sent = MetadataOptionsMetadataNamespaces(untyped=[contract.JWT_NAMESPACE]) if settings.auth.jwt else None
    received = MetadataOptionsMetadataNamespaces(untyped=list(receiving)) if receiving else None
    if sent is None and received is None:
        return None
    return MetadataOptions(forwarding_namespaces=sent, receiving_namespaces=received)


def attributes(settings: Settings, *, attached: bool = False) -> list[str]:
    """Attributes of a connection for the processor: the names in the client's certificate, where there can be one."""
    tls = settings.listener.tls
    wanted = any(consumer.certificates for consumer in settings.consumers)
    verified = wanted if attached else tls is not None and tls.client_ca is not None
    return list(contract.PEER_ATTRIBUTES) if verified else []


def tls_context(tls: TLSSettings, source: ConfigSource | None = None) -> DownstreamTlsContext:
    """The certificate of the listener, and the certificates that clients must show. `source` gives `tls_secrets`."""
    context = CommonTlsContext(alpn_protocols=["h2", "http/1.1"])
    if source is None:
        context.tls_certificates = [_certificate(tls)]
    else:
        context.tls_certificate_sds_secret_configs = [SdsSecretConfig(name=_CERTIFICATE, sds_config=source)]
    if tls.client_ca is None:
        return DownstreamTlsContext(common_tls_context=context)
    if source is None:
        context.validation_context = _authorities(tls.client_ca)
    else:
        context.validation_context_sds_secret_config = SdsSecretConfig(name=_CLIENT_CA, sds_config=source)
    return DownstreamTlsContext(
        common_tls_context=context, require_client_certificate=tls.require_client_certificate or None
    )


def tls_secrets(settings: Settings) -> Sequence[Secret]:
    """The files of the listener's certificate. Envoy reads them again after a rename in their directory, or a swap of
    the symlink through which Kubernetes shows a Secret.
    """
    tls = settings.listener.tls
    if tls is None:
        return []
    certificate = _certificate(tls)
    certificate.watched_directory = _directory(tls.certificate)
    secrets = [Secret(name=_CERTIFICATE, tls_certificate=certificate)]
    if tls.client_ca is not None:
        authorities = _authorities(tls.client_ca)
        authorities.watched_directory = _directory(tls.client_ca)
        secrets.append(Secret(name=_CLIENT_CA, validation_context=authorities))
    return secrets


def _certificate(tls: TLSSettings) -> TlsCertificate:
    return TlsCertificate(certificate_chain=file(_path(tls.certificate)), private_key=file(_path(tls.key)))


def _authorities(client_ca: str) -> CertificateValidationContext:
    return CertificateValidationContext(trusted_ca=file(_path(client_ca)))


def _path(reference: str) -> str:
    return reference.removeprefix("file:")


def _directory(reference: str) -> WatchedDirectory:
    return WatchedDirectory(path=str(PurePath(_path(reference)).parent))


def _name(index: int) -> str:
    return f"issuer-{index}"


def _cluster_name(issuer: JWTSettings) -> str:
    return f"jwks-{issuer.mark}"

"""Credentials that Envoy verifies before the gateway attachment: tokens and client certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as extprocv3
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn import v3 as jwtv3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tlsv3
from envoy_data_plane.google.protobuf import Empty

from extproc.access.auth import JWTSettings
from extproc.envoy.envoy_config.typed import cluster_at, file, http_filter, seconds
from extproc.settings.config import Settings
from extproc.settings.listener import TLSSettings
from extproc.words import contract

_CERTIFICATE, _CLIENT_CA = "listener", "client-ca"  # names of secrets
_FETCH_TIMEOUT = 5.0  # seconds
_CACHED = 300.0  # seconds that an issuer's keys are cached; after a failure they are fetched again every second


def jwt_filters(settings: Settings) -> Sequence[hcmv3.HttpFilter]:
    """The filter that verifies tokens; none without an issuer in the settings. It never refuses a request, because a
    gateway key is not a token. The processor gets the reason why a token is invalid, and answers in the client's API.
    """
    issuers = settings.auth.jwt
    if not issuers:
        return []
    providers = {_name(index): _provider(issuer) for index, issuer in enumerate(issuers)}
    rules = [_rule("/", list(providers))]
    if settings.mcp is not None and settings.mcp.for_users:  # the processor exchanges the tokens of callers
        kept = {f"{_name(index)}-kept": _provider(issuer, keep=True) for index, issuer in enumerate(issuers)}
        providers |= kept
        rules.insert(0, _rule(contract.MCP_PATH, list(kept)))
    return [http_filter("jwt_authn", jwtv3.JwtAuthentication(providers=providers, rules=rules))]


def _rule(prefix: str, names: Sequence[str]) -> jwtv3.RequirementRule:
    any_of = [jwtv3.JwtRequirement(provider_name=name) for name in names]
    any_of.append(jwtv3.JwtRequirement(allow_missing_or_failed=Empty()))
    return jwtv3.RequirementRule(
        match=routev3.RouteMatch(prefix=prefix),
        requires=jwtv3.JwtRequirement(requires_any=jwtv3.JwtRequirementOrList(requirements=any_of)),
    )


def _provider(issuer: JWTSettings, *, keep: bool = False) -> jwtv3.JwtProvider:
    bearer = "Bearer " if issuer.header == "authorization" else ""
    provider = jwtv3.JwtProvider(
        issuer=issuer.issuer,
        audiences=list(issuer.audiences),
        require_expiration=True,
        clock_skew_seconds=int(issuer.clock_skew),
        # Header names are given. By default Envoy also accepts a token in the query, and would forward it to the
        # provider.
        from_headers=[jwtv3.JwtHeader(name=issuer.header, value_prefix=bearer)],
        forward=keep,  # False: Envoy takes a verified token out of the request
        payload_in_metadata=contract.claims_key(issuer.mark),
        failed_status_in_metadata=contract.failure_key(issuer.mark),
    )
    if issuer.jwks_uri is None:
        provider.local_jwks = file((issuer.jwks or "").removeprefix("file:"))
    else:
        uri = corev3.HttpUri(uri=issuer.jwks_uri, cluster=_cluster_name(issuer), timeout=seconds(_FETCH_TIMEOUT))
        # Keys are fetched in the background from the start. No request waits for the issuer, and Envoy starts without
        # it.
        fetch = jwtv3.JwksAsyncFetch(fast_listener=True)
        provider.remote_jwks = jwtv3.RemoteJwks(http_uri=uri, cache_duration=seconds(_CACHED), async_fetch=fetch)
    return provider


def jwks_clusters(settings: Settings, ca_file: str) -> Sequence[clusterv3.Cluster]:
    """Clusters for fetching the issuers' keys."""
    return [
        cluster_at(_cluster_name(issuer), urlsplit(issuer.jwks_uri), issuer.tls_ca or ca_file, timeout=_FETCH_TIMEOUT)
        for issuer in settings.auth.jwt
        if issuer.jwks_uri is not None
    ]


def metadata(settings: Settings, receiving: Sequence[str] = ()) -> extprocv3.MetadataOptions | None:
    """Metadata that the processor receives, and metadata that it may set."""
    sent = extprocv3.MetadataOptionsMetadataNamespaces(untyped=[contract.JWT_NAMESPACE]) if settings.auth.jwt else None
    received = extprocv3.MetadataOptionsMetadataNamespaces(untyped=list(receiving)) if receiving else None
    if sent is None and received is None:
        return None
    return extprocv3.MetadataOptions(forwarding_namespaces=sent, receiving_namespaces=received)


def attributes(settings: Settings, *, attached: bool = False) -> list[str]:
    """Connection attributes for the processor: names in the client's certificate, if client certificates are in use."""
    tls = settings.listener.tls
    wanted = any(consumer.certificates for consumer in settings.consumers)
    verified = wanted if attached else tls is not None and tls.client_ca is not None
    return list(contract.PEER_ATTRIBUTES) if verified else []


def tls_context(tls: TLSSettings, source: corev3.ConfigSource | None = None) -> tlsv3.DownstreamTlsContext:
    """TLS of the listener: its certificate, and the certificates that clients must present. `source` returns
    `tls_secrets`.
    """
    context = tlsv3.CommonTlsContext(alpn_protocols=["h2", "http/1.1"])
    if source is None:
        context.tls_certificates = [_certificate(tls)]
    else:
        context.tls_certificate_sds_secret_configs = [tlsv3.SdsSecretConfig(name=_CERTIFICATE, sds_config=source)]
    if tls.client_ca is None:
        return tlsv3.DownstreamTlsContext(common_tls_context=context)
    if source is None:
        context.validation_context = _authorities(tls.client_ca)
    else:
        context.validation_context_sds_secret_config = tlsv3.SdsSecretConfig(name=_CLIENT_CA, sds_config=source)
    return tlsv3.DownstreamTlsContext(
        common_tls_context=context, require_client_certificate=tls.require_client_certificate or None
    )


def tls_secrets(settings: Settings) -> Sequence[tlsv3.Secret]:
    """Files of the listener's certificate. Envoy reads them again after a rename in their directory, or after the
    symlink swap of a Kubernetes Secret.
    """
    tls = settings.listener.tls
    if tls is None:
        return []
    certificate = _certificate(tls)
    certificate.watched_directory = _directory(tls.certificate)
    secrets = [tlsv3.Secret(name=_CERTIFICATE, tls_certificate=certificate)]
    if tls.client_ca is not None:
        authorities = _authorities(tls.client_ca)
        authorities.watched_directory = _directory(tls.client_ca)
        secrets.append(tlsv3.Secret(name=_CLIENT_CA, validation_context=authorities))
    return secrets


def _certificate(tls: TLSSettings) -> tlsv3.TlsCertificate:
    return tlsv3.TlsCertificate(certificate_chain=file(_path(tls.certificate)), private_key=file(_path(tls.key)))


def _authorities(client_ca: str) -> tlsv3.CertificateValidationContext:
    return tlsv3.CertificateValidationContext(trusted_ca=file(_path(client_ca)))


def _path(reference: str) -> str:
    return reference.removeprefix("file:")


def _directory(reference: str) -> corev3.WatchedDirectory:
    return corev3.WatchedDirectory(path=str(PurePath(_path(reference)).parent))


def _name(index: int) -> str:
    return f"issuer-{index}"


def _cluster_name(issuer: JWTSettings) -> str:
    return f"jwks-{issuer.mark}"

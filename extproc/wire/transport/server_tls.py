"""TLS of the processor's own addresses: for Envoys on other machines, and for proxies that ask an endpoint picker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc

log = logging.getLogger(__name__)

_NAMES = "x509_subject_alternative_name"  # key of the library's authentication context


class ServerTLS:
    """TLS in which the server shows a certificate: paths of `certificate` and `key`, and perhaps of the `client_ca` of
    clients' certificates, all PEM. Changed files are read at the next connection, unless `misfit` says why certificate
    and key do not fit; log lines then name the `setting`.
    """

    def __init__(
        self,
        setting: str,
        certificate: str,
        key: str,
        misfit: Callable[[str, str], str],
        *,
        client_ca: str | None = None,
    ) -> None:
        self.setting = setting
        self._misfit = misfit
        self._client_ca = client_ca
        self._paths = tuple(Path(path) for path in (certificate, key, client_ca) if path is not None)
        self._read_at: tuple[tuple[int, int], ...] = ()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for the library. Raises OSError when the files cannot be read or do not fit."""
        if (first := self._read()) is None:
            raise OSError("its files change")
        mutual = self._client_ca is not None
        return grpc.dynamic_ssl_server_credentials(first, self._changed, require_client_authentication=mutual)

    def admits(self, _peer: Mapping[str, Iterable[bytes]]) -> bool:
        """True for the authentication context of a client that may connect: here every one."""
        return True

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new files for a new connection, or None without a change. Called on a thread of the library."""
        try:
            return self._read() if self._stat() != self._read_at else None
        except OSError as error:
            log.warning("%s: %s; the files read before stay in use", self.setting, error)
            return None

    def _read(self) -> grpc.ServerCertificateConfiguration | None:
        """The files, or None while they are being replaced. Raises OSError."""
        before = self._stat()
        certificate, key, *authorities = (path.read_bytes() for path in self._paths)
        if text := self._misfit(str(self._paths[0]), str(self._paths[1])):
            raise OSError(text)
        if before != self._stat():
            return None
        self._read_at = before
        return grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities)

    def _stat(self) -> tuple[tuple[int, int], ...]:
        return tuple((found.st_ino, found.st_mtime_ns) for found in (path.stat() for path in self._paths))


class MutualTLS(ServerTLS):
    """TLS in which both sides show certificates. One of the right authority is not enough, because in many clusters one
    authority serves every workload: an Envoy's must have one of `names` in its subject alternative names (DNS names, or
    URIs such as SPIFFE ids). `paths` are those of certificate, key and authorities.
    """

    def __init__(
        self, setting: str, paths: tuple[str, str, str], names: Iterable[str], misfit: Callable[[str, str], str]
    ) -> None:
        certificate, key, client_ca = paths
        super().__init__(setting, certificate, key, misfit, client_ca=client_ca)
        self._names = frozenset(names)

    def admits(self, peer: Mapping[str, Iterable[bytes]]) -> bool:
        """True for the authentication context of an Envoy that may connect."""
        return any(name.decode(errors="replace") in self._names for name in peer.get(_NAMES, ()))

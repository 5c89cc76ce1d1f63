"""TLS between the processor and Envoys on other machines, in which both sides show certificates.

A certificate of the right authority is not enough: in many clusters one authority serves every workload. The Envoy's
must have a name of a list, in its subject alternative names (DNS names, or URIs such as SPIFFE ids).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc

log = logging.getLogger(__name__)

_NAMES = "x509_subject_alternative_name"  # key of the library's authentication context


class MutualTLS:
    """The server's side: paths of its `certificate`, its `key` and the `client_ca`, all PEM, and the `names` of Envoys
    that may connect. Changed files are read at the next connection, unless `misfit` says why certificate and key do
    not fit.
    """

    def __init__(
        self, certificate: str, key: str, client_ca: str, names: Iterable[str], misfit: Callable[[str, str], str]
    ) -> None:
        self._misfit = misfit
        self._paths = tuple(map(Path, (certificate, key, client_ca)))
        self._names = frozenset(names)
        self._read_at: tuple[tuple[int, int], ...] = ()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for the library. Raises OSError when the files cannot be read or do not fit."""
        if (first := self._read()) is None:
            raise OSError("its files change")
        return grpc.dynamic_ssl_server_credentials(first, self._changed, require_client_authentication=True)

    def admits(self, peer: Mapping[str, Iterable[bytes]]) -> bool:
        """True for the authentication context of an Envoy that may connect."""
        return any(name.decode(errors="replace") in self._names for name in peer.get(_NAMES, ()))

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new files for a new connection, or None without a change. Called on a thread of the library."""
        try:
            return self._read() if self._stat() != self._read_at else None
        except OSError as error:
            log.warning("processor.tls: %s; the files read before stay in use", error)
            return None

    def _read(self) -> grpc.ServerCertificateConfiguration | None:
        """The files, or None while they are being replaced. Raises OSError."""
        before = self._stat()
        certificate, key, authority = (path.read_bytes() for path in self._paths)
        if text := self._misfit(str(self._paths[0]), str(self._paths[1])):
            raise OSError(text)
        if before != self._stat():
            return None
        self._read_at = before
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def _stat(self) -> tuple[tuple[int, int], ...]:
        return tuple((found.st_ino, found.st_mtime_ns) for found in (path.stat() for path in self._paths))


class ServerTLS:
    """TLS in which the server alone shows a certificate: paths of `certificate` and `key`, PEM. Changed files are read
    at the next connection.
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._paths = Path(key), Path(certificate)
        self._read: tuple[bytes, ...] = ()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for the library. Raises OSError when the files cannot be read."""
        return grpc.dynamic_ssl_server_credentials(self._load(), self._changed)

    def admits(self, _peer: Mapping[str, Iterable[bytes]]) -> bool:
        """True: every peer may connect."""
        return True

    def _load(self) -> grpc.ServerCertificateConfiguration:
        key, certificate = self._read = tuple([path.read_bytes() for path in self._paths])
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        with contextlib.suppress(OSError):
            if tuple([path.read_bytes() for path in self._paths]) != self._read:
                return self._load()
        return None

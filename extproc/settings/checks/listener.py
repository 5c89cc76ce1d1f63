"""Lints of the certificates that Envoy and the processor present. See `checks`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.settings.document import Found, KeyPath
from extproc.wire.outbound.certificate import CertificateError, dates, ending, misfit
from extproc.words.values import has_file

if TYPE_CHECKING:
    from extproc.settings.config import Settings
    from extproc.settings.listener import TLSSettings
    from extproc.settings.processor import ProcessorTLSSettings


def doubts(settings: Settings) -> Iterator[Found]:
    """Certificates that Envoy or clients refuse. Missing files are not reported on another machine than the
    gateway's.
    """
    if settings.listener.tls is not None:
        yield from _doubts(("listener", "tls"), settings.listener.tls, "Envoy")
    if settings.processor.tls is not None:
        yield from _doubts(("processor", "tls"), settings.processor.tls, "the processor")


def _doubts(where: KeyPath, tls: TLSSettings | ProcessorTLSSettings, server: str) -> Iterator[Found]:
    """Lints of the certificate that a `server` presents."""
    certificate, key = tls.files
    for name, value in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        path = Path((value or "").removeprefix("file:"))
        # A volume of Kubernetes may hold the certificate alone, if the key is in Envoy's container.
        if value and not has_file(str(path)) and not (name == "key" and (path.parent / "..data").exists()):
            yield (*where, name), f"{value} does not exist here: {server} does not start without it"
    if not Path(certificate).is_file():
        return
    try:
        found = dates(certificate)
    except CertificateError as error:
        yield (*where, "certificate"), f"{error}: {server} does not start with it"
        return
    if text := ending(found, time.time(), tls.certificate):
        yield (*where, "certificate"), text
    if text := misfit(certificate, key):
        yield (*where, "key"), text

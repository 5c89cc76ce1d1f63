"""Checks of the listener's certificate: its match with the private key, and its dates.

Envoy reads the files itself. It only logs files that it rejects, and does not report an expired certificate.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

_SOON = 7 * 86_400.0  # seconds left of a long-lived certificate when its renewal is overdue
_PART = 5  # part of a short certificate's life: renewed at half, it has a fifth left only if renewal failed
_MOST = 1 << 20  # most bytes read of a file
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0  # DER tags
# OpenSSL reasons; the last is a key of another type.
_MISFITS = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_HTTPS = 443
_VALIDITY = 3  # index of `validity` in a certificate's fields, without the version


class Dates(NamedTuple):
    """Validity of a certificate, in epoch seconds."""

    begins: float
    ends: float


class CertificateError(Exception):
    """A missing file, or one without a certificate. The message names the file."""


def dates(path: str) -> Dates:
    """The dates of the first certificate in a PEM file: the listener's own. Raises CertificateError."""
    return dates_of(encoded(path), path)


def encoded(path: str) -> bytes:
    """The first certificate in a PEM file, as DER. Raises CertificateError."""
    import ssl  # noqa: PLC0415 - 3 MB, for gateways with TLS alone

    found = _PEM.search(_read(path))
    try:
        if found is not None:
            return ssl.PEM_cert_to_DER_cert(found[0].decode("ascii"))
    except ValueError:
        pass
    raise CertificateError(f"file:{path} has no certificate in PEM")


def dates_of(der: bytes, name: str) -> Dates:
    """The dates of a certificate in DER (RFC 5280, 4.1). `name` is the file in errors. Raises CertificateError."""
    try:
        (_, certificate), *_ = _elements(der)
        (_, signed), *_ = _elements(certificate)
        fields = [value for tag, value in _elements(signed) if tag != _VERSION]
        begins, ends = (_seconds(tag, value) for tag, value in _elements(fields[_VALIDITY]))
    except (ValueError, IndexError):
        raise CertificateError(f"file:{name} has a certificate that cannot be read") from None
    return Dates(begins, ends)


def served(url: str, timeout: float) -> bytes:
    """The certificate of a server, as DER, valid or not. Raises OSError, ValueError."""
    import socket  # noqa: PLC0415 - for the command line alone
    import ssl  # noqa: PLC0415 - 3 MB, for the command line alone

    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = parts.hostname or ""
    with (
        socket.create_connection((host, parts.port or _HTTPS), timeout) as connection,
        context.wrap_socket(connection, server_hostname=host) as talk,
    ):
        return talk.getpeercert(binary_form=True) or b""


def misfit(certificate: str, key: str) -> str:
    """The reason why a server cannot use the two files together. Empty when it can, and when a file is missing."""
    import ssl  # noqa: PLC0415 - 3 MB, for gateways with TLS alone

    try:
        if b"ENCRYPTED" in _read(key):
            return f"the private key file:{key} is encrypted: Envoy needs it without a passphrase"
        _read(certificate)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (CertificateError, FileNotFoundError):
        return ""
    except ssl.SSLError as error:
        if error.reason in _MISFITS:
            return f"the certificate file:{certificate} does not fit its private key file:{key}"
        reason = error.reason.lower().replace("_", " ") if error.reason else "no PEM"
        return f"the certificate file:{certificate} and its private key file:{key} cannot be used ({reason})"
    except OSError as error:
        return f"the certificate file:{certificate} and its private key file:{key} cannot be read ({error.strerror})"
    return ""


def ending(found: Dates, now: float, what: str) -> str:
    """A sentence about a certificate that is not valid now, or not for much longer; otherwise empty. `what` is its
    subject.
    """
    if now < found.begins:
        return f"{what} is valid only from {_day(found.begins)}: clients refuse it"
    if now >= found.ends:
        return f"{what} has ended on {_day(found.ends)}: clients refuse it"
    left = found.ends - now
    if left >= min(_SOON, (found.ends - found.begins) / _PART):
        return ""
    text = f"{left / 86_400:.0f} days" if left >= 2 * 86_400 else f"{left / 3600:.0f} hours"
    return f"{what} ends on {_day(found.ends)}, in {text}: renew it"


def _day(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
    except (ValueError, OverflowError):
        return "a day that cannot be shown"


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise CertificateError(f"file:{path} cannot be read ({error.strerror})") from None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of DER elements. Raises IndexError or ValueError for truncated DER."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            more = size & 0x7F
            size, at = int.from_bytes(data[at : at + more], "big"), at + more
        if at + size > len(data):
            raise ValueError("an element is longer than what holds it")
        yield tag, data[at : at + size]
        at += size


def _seconds(tag: int, value: bytes) -> float:
    """A time of RFC 5280, in epoch seconds. A year of two digits is from 1950 to 2049."""
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))

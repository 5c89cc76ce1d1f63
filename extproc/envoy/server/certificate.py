"""State of the listener's certificate files. Envoy reads them itself, and does not report files that it rejects."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from extproc.settings.listener import TLSSettings
from extproc.wire.outbound.certificate import CertificateError, Dates, dates, ending, misfit

log = logging.getLogger(__name__)

_KEEPS = "; Envoy keeps the certificate that it has"
_Signature = tuple[int, int, int, int]  # device, inode, size and modification time of a file


class ListenerCertificate:
    """Follows the files of certificate and key. A change is read when both files were unchanged between two looks,
    because a renewal renames one after the other.

    A missing file is not reported unless it existed before: it may exist only in Envoy's container.
    """

    def __init__(self) -> None:
        self._watch_files(None)

    def _watch_files(self, files: tuple[str, str] | None) -> None:
        self.unfit = ""
        """The reason why Envoy does not use the present files; empty when it does."""
        self.dates: Dates | None = None
        """Dates of the certificate in use; None: unknown."""
        self.file = "" if files is None else files[0]
        self._files = files
        self._found: Sequence[_Signature | None] = ()
        self._before: Sequence[_Signature | None] = ()  # signatures of the files when they were last read
        self._content = b""  # digest of the files that Envoy uses
        self._still = False
        self._told = ""

    def look(self, tls: TLSSettings | None) -> None:
        """Check the files, and read them after a change. Blocks for a moment; called about once a second."""
        files = None if tls is None else tls.files
        found = [_signature(path) for path in files or ()]
        if files != self._files:  # Envoy uses the new files from now on
            self._watch_files(files)
            self._found = found
            if files is not None:
                self._read(*files, found)
        elif files is None:
            return
        elif found != self._found:
            self._found, self._still = found, False
        elif not self._still:
            self._still = True
            if found != self._before:
                self._read(*files, found)

    def remark(self, now: float) -> str:
        """A sentence about a certificate in use that clients refuse now or within days; otherwise empty."""
        if self.dates is None:
            return ""
        text = ending(self.dates, now, f"the listener's certificate file:{self.file}")
        if text and text != self._told:
            log.warning("%s", text)
        self._told = text
        return text

    def _read(self, certificate: str, key: str, found: Sequence[_Signature | None]) -> None:
        before, self._before, was = self._before, found, self.unfit
        gone = [path for path, old, new in zip((certificate, key), before, found, strict=False) if old and not new]
        if gone:
            self.unfit = f"file:{gone[0]} is missing{_KEEPS}"
        elif found[0] is None:
            return
        else:
            self._examine(certificate, key, before, found)
        if self.unfit and self.unfit != was:
            log.error("%s", self.unfit)
        elif was and not self.unfit:
            log.info("the listener's certificate is in use again")

    def _examine(
        self, certificate: str, key: str, before: Sequence[_Signature | None], found: Sequence[_Signature | None]
    ) -> None:
        content = _digest(certificate, key)
        renamed = not before or any(
            old is None or old[:2] != new[:2] for old, new in zip(before, found, strict=True) if new
        )
        try:
            examined = dates(certificate)
        except CertificateError as error:
            self.unfit = f"{error}{_KEEPS}"
            return
        if reason := misfit(certificate, key):
            self.unfit = f"{reason}{_KEEPS}"
        elif renamed or content == self._content:
            self.unfit, self.dates, self._content = "", examined, content
        else:
            self.unfit = (
                f"the certificate file:{certificate} was written in place, which Envoy does not see: rename the new "
                "files into their places"
            )


def _signature(path: str) -> _Signature | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digest(*paths: str) -> bytes:
    found = hashlib.blake2b()
    for path in paths:
        try:
            found.update(Path(path).read_bytes())
        except OSError:
            continue
    return found.digest()

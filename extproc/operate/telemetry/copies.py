"""Copies of the audit trail: a file, a collector, a bucket. `audit` of the settings names them.

The database remembers the last entry of each copy, and the process that writes the copy. A copy that is away gets the
entries later, in their order. A process that dies during a write may cause some entries to be sent twice: a file and a
bucket detect that, and a collector gets the same ids again.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from extproc.money.ledger.trail import AuditEntry, BrokenError, Trail, read_line
from extproc.operate.telemetry.prompts import logs_request
from extproc.settings.audit import AuditBucketSettings, AuditSettings
from extproc.wire.outbound.client import AnswerError, ask
from extproc.wire.outbound.s3 import Bucket
from extproc.wire.outbound.sigv4 import AwsKey

_CLAIM = 120.0  # most seconds of one turn
_BATCH = 500  # most entries that are sent together
_OBJECT = 5000  # most entries of one object
_BATCHES = 20  # most batches of one turn
_OBJECT_EVERY = 60.0  # seconds between two objects
_TELL_EVERY = 60.0  # seconds between two log lines about a copy
_TIMEOUT = 5.0  # seconds for the collector
_LONGEST_LINE = 64 << 10  # bytes at the end of a file that contain its last line
_INFO = 9  # SeverityNumber

log = logging.getLogger(__name__)


class Copy(Protocol):
    """A place for copies. Methods block, and raise OSError."""

    name: str
    batch: int

    def last(self, number: int) -> int:
        """The number of the last entry in the copy: `number`, unless the copy itself shows it."""
        ...

    def write(self, lines: Sequence[str], entries: Sequence[AuditEntry]) -> int:
        """Write entries. Returns the number of the last entry in the copy."""
        ...


class Copies:
    """Brings the copies up to date. Its methods block, and raise LedgerError."""

    def __init__(self, trail: Trail, now: Callable[[], float] = time.time) -> None:
        self._trail = trail
        self._now = now
        self._told = -_TELL_EVERY
        self._bucket_due = 0.0

    def turn(self, settings: AuditSettings) -> None:
        """Send new entries to all copies."""
        copies: list[Copy] = []
        if settings.file is not None:
            copies.append(FileCopy(settings.file))
        if settings.otlp is not None:
            copies.append(CollectorCopy(settings.otlp, None if settings.token is None else settings.token.read()))
        if settings.bucket is not None and self._now() >= self._bucket_due:
            self._bucket_due = self._now() + _OBJECT_EVERY
            copies.append(BucketCopy(settings.bucket))
        for copy in copies:
            try:
                self._send_new(copy)
            except (OSError, AnswerError, BrokenError) as error:
                if time.monotonic() - self._told >= _TELL_EVERY:
                    self._told = time.monotonic()
                    log.error("the copy %s of the audit trail takes nothing: %s", copy.name, error)  # noqa: TRY400

    def _send_new(self, copy: Copy) -> None:
        now = self._now()
        claimed = self._trail.claim(copy.name, now, now + _CLAIM)
        if claimed is None:
            return
        number, previous = claimed
        sent: AuditEntry | None = None
        try:
            there = copy.last(number)
            for _ in range(_BATCHES):
                entries = self._trail.after(number, copy.batch)
                if not entries:
                    return
                lines = []
                for entry in entries:
                    lines.append(entry.line(previous))
                    previous = entry.hash
                new = [index for index, entry in enumerate(entries) if entry.number > there]
                if new:
                    there = copy.write(lines[new[0] :], entries[new[0] :])
                sent = next((entry for entry in reversed(entries) if entry.number <= there), sent)
                if sent is None:
                    return
                number, previous = sent.number, sent.hash
        finally:
            self._trail.sent(copy.name, sent)


class FileCopy:
    """A copy in a file of mode 0600, a line for each entry."""

    batch = _BATCH

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.name = f"file:{platform.node()}:{self._path}"

    def last(self, number: int) -> int:
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE))
                *_, line, rest = [b"", *file.read().split(b"\n")]
        except FileNotFoundError:
            return number
        if rest:  # a process died while it wrote this line
            os.truncate(self._path, self._path.stat().st_size - len(rest))
        return max(number, read_line(line.decode())[0].number) if line else number

    def write(self, lines: Sequence[str], entries: Sequence[AuditEntry]) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        return entries[-1].number


class CollectorCopy:
    """A copy at a collector, as log records by OTLP over HTTP in JSON. The body of a record is the entry's line."""

    batch = 100

    def __init__(self, address: str, token: str | None) -> None:
        self.name = f"otlp:{address}"
        self._address = address
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"

    def last(self, number: int) -> int:
        return number

    def write(self, lines: Sequence[str], entries: Sequence[AuditEntry]) -> int:
        body = logs_request([_record(line, entry) for line, entry in zip(lines, entries, strict=True)])
        status, _ = ask(f"{self._address}/v1/logs", body, self._headers, timeout=_TIMEOUT, most=_LONGEST_LINE)
        if status != 200:
            raise OSError(f"status {status}")
        return entries[-1].number


class BucketCopy:
    """A copy in a bucket. Objects are named by the number of their first entry, and never changed."""

    batch = _OBJECT

    def __init__(self, settings: AuditBucketSettings) -> None:
        self.name = f"bucket:{settings.endpoint or settings.region}:{settings.name}:{settings.prefix}"
        self._prefix = settings.prefix
        key = AwsKey(settings.access_key_id.read() or "", settings.secret_access_key.read() or "")
        self._bucket = Bucket(settings.name, settings.region, key, settings.endpoint or "")

    def last(self, number: int) -> int:
        return number

    def write(self, lines: Sequence[str], entries: Sequence[AuditEntry]) -> int:
        name = f"{self._prefix}{entries[0].number:012d}.jsonl"
        if self._bucket.create(name, "".join(f"{line}\n" for line in lines).encode()):
            return entries[-1].number
        known = (self._bucket.read(name) or b"").decode().splitlines()  # its writer died before noting it
        return read_line(known[-1])[0].number if known else entries[0].number - 1


def _record(line: str, entry: AuditEntry) -> bytes:
    now = str(time.time_ns())
    number = {"key": "extproc.audit.number", "value": {"intValue": str(entry.number)}}
    return json.dumps(
        {
            "timeUnixNano": now,
            "observedTimeUnixNano": now,
            "severityNumber": _INFO,
            "eventName": "extproc.audit",
            "body": {"stringValue": line},
            "attributes": [number],
        }
    ).encode()

"""`extproc usage --format focus`: days of usage as files of FOCUS rows, to standard output, a folder or a bucket.

A day's files stand in a folder of their run, and its manifest names them. The manifest is created last, and only if the
day has none, so a day is exported exactly once, by any process, even if a run is aborted:

    2026-11-01/8f1c…/part-0001.csv
    2026-11-01/manifest.json

Files that no manifest names come from an aborted run, or from one that another run overtook.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from extproc.cli._admin import AdminClient
from extproc.money.ledger.focus import COLUMNS, GROUPS, VERSION, csv_text, row_of
from extproc.wire.outbound.s3 import Bucket, check_name
from extproc.wire.outbound.sigv4 import AwsKey
from extproc.words.values import has_package

PART = 20_000
"""Most rows of a file, which is in memory while it is written."""
CATCH_UP = 7
"""Number of days before today that are exported without a given start."""
HOUR = 3600.0  # with --daily, seconds between two checks for passed days
RETRY = 300.0  # with --daily, seconds to the next try after a failure
_ACCOUNT = re.compile(r"[\w .:/-]{1,128}")

Row = Mapping[str, Any]


class ExportPlace(Protocol):
    """A place for files. Raises OSError if a file cannot be written or read."""

    def create(self, name: str, data: bytes, /) -> bool:
        """Write a whole file; False when the file exists already."""
        ...

    def read(self, name: str, /) -> bytes | None: ...


class Folder(NamedTuple):
    """A folder of this machine."""

    path: Path

    def create(self, name: str, data: bytes) -> bool:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        try:
            with own.open("xb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            file.hardlink_to(own)  # fails if the file exists; a rename would replace it
        except FileExistsError:
            return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self.path / name).read_bytes()
        return None


class Below(NamedTuple):
    """Objects of a bucket whose names begin with `prefix`."""

    bucket: Bucket
    prefix: str

    def create(self, name: str, data: bytes) -> bool:
        return self.bucket.create(f"{self.prefix}{name}", data)

    def read(self, name: str) -> bytes | None:
        return self.bucket.read(f"{self.prefix}{name}")


def place_of(target: str, region: str, endpoint: str) -> ExportPlace:
    """The place of `--to`: a folder, or `s3://bucket/prefix` with the key in AWS's environment variables. Raises
    ValueError.
    """
    if not target.startswith("s3://"):
        return Folder(Path(target))
    parts = urlsplit(target)
    check_name(parts.netloc)
    if endpoint and not re.fullmatch(r"https?://[\w.:\[\]-]+", endpoint):
        raise ValueError("--endpoint is the address of the store: https://minio.internal:9000")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    key = AwsKey(*(os.environ.get(name, "") for name in names))
    if not (key.id and key.secret):
        raise ValueError("a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    prefix = parts.path.strip("/")
    return Below(Bucket(parts.netloc, region, key, endpoint), f"{prefix}/" if prefix else "")


# --- rows


class Asked(NamedTuple):
    """The selection of each day's rows: further `fields` become tags; `filters` are those of `--only`."""

    gateway: AdminClient
    account: str
    fields: Sequence[str] = ()
    filters: Sequence[tuple[str, str]] = ()

    def rows(self, day: date) -> Iterator[Row]:
        """The FOCUS rows of a day. Raises OSError and ValueError as `AdminClient` does."""
        found = (row_of(row, self.account) for row in self._usage(day, (), 0))
        return (row for row in found if row is not None)

    def _usage(self, day: date, within: Sequence[tuple[str, str]], depth: int) -> Iterator[Row]:
        """All rows of a usage report. A truncated report is requested in parts, by the values of a field."""
        fields = [*GROUPS, *(name for name in self.fields if name not in GROUPS)]
        report = self._report(day, fields, within)
        if not report["truncated"]:
            yield from report["data"]
            return
        if depth == len(fields):
            raise ValueError(f"the usage of {day} cannot be told apart: group by other fields")
        field = fields[depth]
        values = self._report(day, [field], within)
        if values["truncated"]:
            raise ValueError(f"{day} has more than 10,000 values of {field}: leave it out of --group-by")
        for value in values["data"]:
            yield from self._usage(day, [*within, (field, value["group"][field])], depth + 1)

    def _report(self, day: date, fields: Sequence[str], within: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        chosen = {name for name, _ in within}
        return self.gateway.json(
            "/usage",
            [
                *(("start", str(day)), ("end", str(day + timedelta(days=1))), ("resolution", "day")),
                ("group_by", ",".join(fields)),
                *((name, value) for name, value in self.filters if name not in chosen),
                *within,
            ],
        )


def check_account(name: str) -> None:
    """Raise ValueError for a text that cannot name a billing account."""
    if not _ACCOUNT.fullmatch(name):
        raise ValueError("--account has up to 128 letters, digits, spaces and . : / - _")


# --- files


def as_csv(rows: Iterable[Row], *, head: bool = True) -> bytes:
    """A CSV file of FOCUS rows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if head:
        writer.writerow(COLUMNS)
    writer.writerows([csv_text(row.get(name)) for name in COLUMNS] for row in rows)
    return out.getvalue().encode(errors="backslashreplace")


def as_parquet(rows: Iterable[Row]) -> bytes:
    """A Parquet file of FOCUS rows: numbers are decimals, times are in UTC."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    # Parquet's decimals have at most 38 digits. A unit price may have more decimals than fit.
    types = {"text": arrow.string(), "number": arrow.decimal128(38, 18), "count": arrow.int64()}
    types["time"] = arrow.timestamp("us", tz="UTC")
    listed, least, exact = list(rows), Decimal("1e-18"), Context(prec=38)

    def column(name: str) -> list[Any]:
        found = [row.get(name) for row in listed]
        return [value.quantize(least, context=exact) if isinstance(value, Decimal) else value for value in found]

    columns = {name: arrow.array(column(name), types[type]) for name, type in COLUMNS.items()}
    out = io.BytesIO()
    parquet.write_table(arrow.table(columns), out)
    return out.getvalue()


class Format(NamedTuple):
    suffix: str
    write: Callable[[Iterable[Row]], bytes]


FORMATS: Mapping[str, Format] = {"focus": Format("csv", as_csv), "focus-parquet": Format("parquet", as_parquet)}


def check_format(name: str) -> None:
    """Raise OSError for a format whose extra is not installed."""
    if name == "focus-parquet" and not has_package("pyarrow"):
        raise OSError("--format focus-parquet needs the extra 'parquet': pip install 'llm-extproc[parquet]'")


# --- days


def export(asked: Asked, day: date, format: str, place: ExportPlace) -> Mapping[str, Any] | None:
    """Export a day. Returns its manifest, or None if the day was exported before. Raises OSError and ValueError."""
    name = f"{day}/manifest.json"
    if place.read(name) is not None:
        return None
    run = uuid.uuid4().hex
    files = list(_write_parts(asked.rows(day), f"{day}/{run}", FORMATS[format], place))
    manifest = {
        "specification": f"FOCUS {VERSION}",
        "format": FORMATS[format].suffix,
        "day": str(day),
        "billing_account": asked.account,
        "run": run,
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "rows": sum(file["rows"] for file in files),
        "billed_cost": f"{sum((Decimal(file['billed_cost']) for file in files), Decimal(0)):f}",
        "files": files,
    }
    if not place.create(name, json.dumps(manifest, indent=1).encode()):
        return None
    return manifest


def _write_parts(rows: Iterator[Row], folder: str, format: Format, place: ExportPlace) -> Iterator[Mapping[str, Any]]:
    for number in itertools.count(1):
        part = list(itertools.islice(rows, PART))
        if not part:
            return
        name, data = f"{folder}/part-{number:04}.{format.suffix}", format.write(part)
        if not place.create(name, data):
            raise OSError(f"{name} exists already")
        yield {
            "path": name,
            "rows": len(part),
            "billed_cost": f"{sum((row['BilledCost'] for row in part), Decimal(0)):f}",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }


def due(start: date | None, end: date | None, delay: float, now: datetime) -> Sequence[date]:
    """The days from `start` to `end`, exclusive, that ended at least `delay` hours before `now`."""
    last = (now - timedelta(hours=delay)).date()
    end = min(end or last, last)
    start = start or now.date() - timedelta(days=CATCH_UP)
    return [start + timedelta(days=number) for number in range((end - start).days)]


def daily(work: Callable[[datetime], None], say: Callable[[str], None]) -> None:
    """Run `work` now and each hour, forever; after a failure again in `RETRY` seconds."""
    while True:
        try:
            work(datetime.now(UTC))
            time.sleep(HOUR)
        except (OSError, ValueError) as error:
            say(f"{error}; tried again in {RETRY:.0f} s")
            time.sleep(RETRY)

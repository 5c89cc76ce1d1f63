"""Rows of a bill's files: CSV, JSON and Parquet, one at a time, compressed with gzip or not."""

from __future__ import annotations

import csv
import gzip
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from extproc.money.reconcile import BillError
from extproc.words.values import has_package

MAX_LINE = 16 << 20
"""Most bytes of one line of JSON, which is one row, or one page of an API."""
MAX_CELL = 1 << 20
"""Most characters of one field of a CSV file."""
_BATCH = 5_000  # rows of a Parquet file in memory

Row = Mapping[str, Any]
_decode = msgspec.json.Decoder(float_hook=str).decode


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its suffix: `.csv`, `.parquet`, or JSON with an object on each line or one array; each may
    end in `.gz`. For a folder, the rows of all its files. Raises OSError, and BillError for a row that cannot be read.
    """
    if path.is_dir():
        for file in sorted(each for each in path.iterdir() if _format(each)):
            yield from rows(file)
        return
    try:
        yield from _READERS[_format(path)](path)
    except KeyError:
        raise BillError(f"{path}: a bill is a .csv, .json, .jsonl or .parquet file, or one of these with .gz") from None
    except (csv.Error, UnicodeDecodeError, msgspec.DecodeError, EOFError, gzip.BadGzipFile) as error:
        raise BillError(f"{path}: {error}") from None


def _format(path: Path) -> str:
    found = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    return found if found in _READERS else ""


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise BillError(f"{path}: a line is longer than {MAX_LINE >> 20} MiB; JSON may have an object on each line")
        yield line


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL)
    with _open(path) as file:
        text = (line.decode("utf-8-sig") for line in _lines(file, path))
        for row in csv.DictReader(text):
            yield {name.lower(): value for name, value in row.items() if name}


def _json(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            whole = line
            if number == 1 and not line.strip().endswith((b"}", b"]")):  # the file is one document over many lines
                whole += file.read(MAX_LINE)
                if file.read(1):
                    raise BillError(f"{path}: a document of more than {MAX_LINE >> 20} MiB; write an object a line")
            if not whole.strip():
                continue
            found = _decode(whole)
            for row in found if isinstance(found, list) else [found]:
                if not isinstance(row, dict):
                    raise BillError(f"{path}: line {number} is no JSON object")
                yield row


def _parquet(path: Path) -> Iterator[Row]:
    if not has_package("pyarrow"):
        raise OSError(f"{path} needs the extra 'parquet': pip install 'llm-extproc[parquet]'")
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    yield {name.lower(): value for name, value in row.items()}
    except arrow.ArrowInvalid as error:
        raise BillError(f"{path}: {error}") from None


_READERS = {"csv": _csv, "json": _json, "jsonl": _json, "ndjson": _json, "parquet": _parquet}

"""`extproc audit`: whether the audit trail, or a copy of it, is whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from extproc.cli._options import add_config
from extproc.cli._tables import safe
from extproc.money.ledger import LedgerError, open_ledger
from extproc.money.ledger.trail import BEGIN, AuditEntry, BrokenError, hash_of, read_line, verify
from extproc.settings import config

EXAMPLES = """\
  extproc audit verify                                       the trail in the ledger's database
  extproc audit verify audit.jsonl.1 audit.jsonl             a copy of it, the oldest file first
  extproc audit verify --holds 4711:9f86d081884c7d65…        an entry that was noted before is still there
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["verify"], help="what to do")
    parser.add_argument("files", nargs="*", metavar="FILE", help="files of a copy, in order (default: the database)")
    parser.add_argument(
        "--holds", action="append", default=[], metavar="NUMBER:HASH", help="entry that must be there; may be repeated"
    )
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """0 where the trail is whole, 1 where it is broken. Raises OSError when it cannot be read."""
    wanted = dict(_noted(text) for text in options.holds)
    try:
        if options.files:
            return _report(_of_files(options.files), wanted)
        ledger = open_ledger(config.load(options.config).stores.ledger)
        try:
            return _report(ledger.trail.all(), wanted)
        finally:
            ledger.close()
    except LedgerError as error:
        raise OSError(str(error)) from None


def _report(entries: Iterable[AuditEntry], wanted: dict[int, str]) -> int:
    first = last = None
    forgotten = 0
    try:
        for entry in verify(entries):
            first, last = first or entry, entry
            forgotten += not entry.event
            if wanted.pop(entry.number, entry.hash) != entry.hash:
                raise BrokenError(f"entry {entry.number} has another hash than the one that was noted")
        if wanted:
            raise BrokenError(f"entry {min(wanted)} that was noted is not there")
    except BrokenError as error:
        print(safe(f"broken: {error}", 4096))
        return 1
    if first is None or last is None:
        print("the trail is empty")
        return 0
    base = "" if first.number == 1 else f"; it begins with entry {first.number}, older ones were deleted"
    gone = f"; {forgotten} are of forgotten consumers" if forgotten else ""
    print(f"whole: entries {first.number} to {last.number}{gone}{base}\nlast: {last.number}:{last.hash}")
    return 0


def _of_files(names: Iterable[str]) -> Iterator[AuditEntry]:
    """The entries of a copy's files. Raises BrokenError if a line does not fit its own hash."""
    for name in names:
        with Path(name).open(encoding="utf-8") as file:
            for line in file:
                entry, previous = read_line(line)
                if hash_of(previous, entry.digest) != entry.hash or (entry.number == 1 and previous != BEGIN):
                    raise BrokenError(f"entry {entry.number} does not follow the one before it: its hash is another")
                yield entry


def _noted(text: str) -> tuple[int, str]:
    number, _, found = text.partition(":")
    if not number.isdecimal() or not found:
        raise ValueError("--holds is NUMBER:HASH, as a verification prints it behind `last:`")
    return int(number), found

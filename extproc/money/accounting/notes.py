"""Notes about exchanges whose usage is not known yet, in the facts of their parked reservations.

A note has all that any process needs to learn the usage and to write the row. Once the usage is known, the note is
replaced by one with the final row, before the charge is settled. So if any process dies, the next one settles the same
amounts, and an expired lease carries the whole row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from extproc.money.ledger import PENDING, Row
from extproc.stores import MAX_FACTS
from extproc.words.dialect import Report
from extproc.words.exchange import Exchange

MAX_TOLD = 1000
"""Most answers of clients' own calls that wait for the next turn. Beyond them the provider is asked for the usage."""


class Note(msgspec.Struct, array_like=True, frozen=True, tag="pending"):
    """Facts for a late settlement. `held` are the tokens of input and output in the reservation, `most` the highest
    counts that are believed. `uncounted` are indexes of holds on budgets that do not count the target which served.
    """

    row: Row
    spender: str  # the consumer's name in metrics
    api: str  # the client's dialect, which reads the object
    object: str  # the provider's id of the object
    begun: float  # epoch seconds
    ends: float  # end of the hold, epoch seconds
    held: tuple[int, int]
    most: tuple[int, int]
    options: Mapping[str, str] = {}
    batch: bool = False
    uncounted: tuple[int, ...] = ()

    @property
    def is_final(self) -> bool:
        """True once the usage is known."""
        return self.row.usage_source != PENDING


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Note).decode


def pack_note(note: Note) -> bytes | None:
    """The note as facts of a reservation. Labels and findings that take too much room are left out. None: the note does
    not fit.
    """
    for row in (note.row, msgspec.structs.replace(note.row, labels={}, guardrails=())):
        try:
            packed = _encode(msgspec.structs.replace(note, row=row))
        except UnicodeEncodeError:  # a lone surrogate, which JSON can hold
            return None
        if len(packed) <= MAX_FACTS:
            return packed
    return None


def unpack_note(facts: bytes) -> Note | None:
    """The note in the facts of a reservation; None for facts of another kind, or of another release."""
    try:
        return _decode(facts)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


@dataclass(slots=True)
class Told:
    """Usage read from clients' own calls about objects, by the exchange that made the object. None: the object has
    ended, and its usage is read from it, or from its files.
    """

    reports: dict[str, Report | None] = field(default_factory=dict)

    def add(self, exchange: Exchange) -> None:
        """Read the answer to a call about an object, if the object has ended."""
        report, answer = exchange.answer.report, exchange.answer
        if report is None or answer.status >= 300 or not exchange.ending.complete:
            return
        if report.pending and not report.finish_reasons:
            return
        late = exchange.request.dialect.offers.stored.late
        in_batch = late is not None and (late.inside or late.line is not None)
        if (in_batch or report.usage is not None) and len(self.reports) < MAX_TOLD:
            self.reports[exchange.route.kept.made_by] = None if in_batch else report

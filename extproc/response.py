"""The answer on its way back, event by event: a plain JSON answer is a stream of one.

    bytes ─► framing ─► event ─► dialect.observe() into the report ─► the bytes it came in, or nothing

An event leaves as soon as it is whole, as the bytes it came in. The one that carries nothing but the usage which the
gateway asked for and the client did not is left out. Where the settings say so, what it cost is written into the usage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from extproc import prices
from extproc.forward import decode_fields
from extproc.framing import Frame, Framing
from extproc.framing.aws_eventstream import AWSEventStream
from extproc.framing.inflate import Inflate
from extproc.framing.json import WholeBody
from extproc.framing.sse import SSE
from extproc.words.contract import USAGE_EVENT, decode_usage
from extproc.words.dialect import Dialect, Report
from extproc.words.exchange import Price

MOST_INFLATED = 128 << 20
"""Bytes that a compressed answer may grow to."""
_encode = msgspec.json.encode
AMAZON = "application/vnd.amazon.eventstream"


class AnswerReader:
    """Reads one answer. `report` is what it said of itself so far."""

    def __init__(
        self,
        dialect: Dialect,
        framing: Framing,
        *,
        hide_usage: bool,
        translated: bool = False,
        inflate: Inflate | None = None,
        price: Price | None = None,
    ) -> None:
        self.report = Report()
        self._inflate = inflate
        self._translated = translated  # by a try, which may be believed
        self._dialect = dialect
        self._framing = framing
        self._hide_usage = hide_usage
        self._price = price if dialect.usage_at else None  # for what it cost, if that is to be told

    @property
    def streamed(self) -> bool:
        """Whether the answer comes event by event."""
        return not isinstance(self._framing, WholeBody)

    @property
    def changes_length(self) -> bool:
        """Whether what leaves may be longer than what came."""
        return self._inflate is not None or self._price is not None

    def feed(self, chunk: bytes, end: bool) -> bytes:
        """What may leave of the answer now. With `end`, all that is left."""
        if self._inflate is not None:
            chunk = self._inflate.feed(chunk)
            if end:
                self._inflate.end()
                if self._inflate.broken:
                    self.report.error = "provider_bad_answer"
        out = [self._let_pass(event) for event in self._framing.feed(chunk)]
        if end:
            out += [self._let_pass(event) for event in self._framing.end()]
        return b"".join(out)

    def _let_pass(self, event: Frame) -> bytes:
        """What of the event may leave."""
        report = self.report
        if event.data is None:
            if self._translated and event.raw.startswith(USAGE_EVENT):
                report.told_usage = decode_usage(event.raw[len(USAGE_EVENT) :])
                return b""
            if not event.raw.startswith(b":"):  # no comment, so not readable: all of it counts as text
                report.output_bytes += len(event.raw)
            return event.raw
        before = report.usage
        usage_only = self._dialect.observe(event.data, report)
        usage = report.usage
        if self._translated:
            report.usage = None  # where the provider told none, a translation may have had to write zeros
        if usage_only and self._hide_usage:
            return b""
        if self._price is None or usage is None or usage is before:
            return event.raw
        cost = prices.decimal(prices.cost(self._price, report.told_usage or usage))
        return event.raw.replace(event.data, with_cost(event.data, cost, self._dialect.usage_at), 1)


def with_cost(data: bytes, cost: str, places: Sequence[Sequence[str]]) -> bytes:
    """`data`, JSON, with `cost` in the usage object at the first of `places` where there is one; else as it was."""
    for place in places:
        try:
            return _encode(_inserted(decode_fields(data), place, msgspec.Raw(cost.encode())))
        except (KeyError, msgspec.DecodeError):
            continue
    return data


def _inserted(fields: Mapping[str, msgspec.Raw], place: Sequence[str], cost: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    """Fields with `cost` in the object at `place`. What is not on the way there stays as it is, byte for byte."""
    if not place:
        return {**fields, "cost": cost}
    inner = _inserted(decode_fields(fields[place[0]]), place[1:], cost)
    return {**fields, place[0]: msgspec.Raw(_encode(inner))}


def framing_for(content_type: str, *, event_limit: int, body_limit: int) -> Framing | None:
    """The framing of an answer, or None when it is of a kind the gateway cannot read."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return SSE(event_limit)
    if kind == AMAZON:
        return AWSEventStream(event_limit)
    if kind == "application/json" or kind.endswith("+json"):
        return WholeBody(body_limit)
    return None

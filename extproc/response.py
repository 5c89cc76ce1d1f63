"""The answer on its way back, event by event: a plain JSON answer is a stream of one.

    bytes ─► framing ─► event ─► dialect.observe() into the report ─► the bytes it came in, or nothing

An event leaves as soon as it is whole, as the bytes it came in. The one that carries nothing but the usage which the
gateway asked for and the client did not is left out.
"""

from __future__ import annotations

from extproc.contract import USAGE_EVENT, decode_usage
from extproc.dialects import Dialect, Report
from extproc.framing import Event, Framing
from extproc.framing.aws_eventstream import AWSEventStream
from extproc.framing.inflate import Inflate
from extproc.framing.json import WholeBody
from extproc.framing.sse import SSE

MOST_INFLATED = 128 << 20
"""Bytes that a compressed answer may grow to."""
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
    ) -> None:
        self.report = Report()
        self._inflate = inflate
        self._translated = translated  # by a try, which may be believed
        self._dialect = dialect
        self._framing = framing
        self._hide_usage = hide_usage

    def feed(self, chunk: bytes, end: bool) -> bytes:
        """What may leave of the answer now. With `end`, all that is left."""
        if self._inflate is not None:
            chunk = self._inflate.feed(chunk)
            if end:
                self._inflate.end()
                if self._inflate.broken:
                    self.report.error = "provider_bad_answer"
        out = [event.raw for event in self._framing.feed(chunk) if self._passes(event)]
        if end:
            out += [event.raw for event in self._framing.end() if self._passes(event)]
        return b"".join(out)

    def _passes(self, event: Event) -> bool:
        if event.data is None:
            if self._translated and event.raw.startswith(USAGE_EVENT):
                self.report.told_usage = decode_usage(event.raw[len(USAGE_EVENT) :])
                return False
            if not event.raw.startswith(b":"):  # no comment, so not readable: all of it counts as text
                self.report.output_bytes += len(event.raw)
            return True
        usage_only = self._dialect.observe(event.data, self.report)
        if self._translated:
            self.report.usage = None  # where the provider told none, a translation may have had to write zeros
        return not (usage_only and self._hide_usage)


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

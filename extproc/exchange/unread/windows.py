"""The windows that Envoy kept of an answer, and the report that the client's dialect reads from them.

Events that stand whole in a window are read by `ClientAPI.observe`, as those of an answer whose body is read. An answer
that is no longer than the tail is therefore reported alike. Of a longer one whose usage is not known, the text between
the windows is counted from its bytes, less the smallest envelope of an event that was seen: rather too much than too
little. Where the usage is known, only its events are counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from extproc.wire.framing import EMPTY, Frame
from extproc.wire.framing.sse import SSE
from extproc.words.api import ClientAPI
from extproc.words.dialect import Report
from extproc.words.exchange import Usage
from extproc.words.tries import Seen

_LINES = re.compile(rb"\r\n|\n|\r")

_DENSER = 1.5
"""For text that is neither kept nor counted, against that of the events that were read."""

Span = tuple[int, bytes]
"""Where it begins in the body, and its bytes."""


class Reading:
    """Reads `seen`, of an answer that had `total` bytes by Envoy's own count. Writes `report`."""

    __slots__ = (
        "_around",
        "_counted",
        "_dialect",
        "_envelope",
        "_known",
        "_lines",
        "_text",
        "_told",
        "first_text",
        "report",
    )

    def __init__(self, seen: Seen, total: int, dialect: ClientAPI, event_limit: int) -> None:
        self.report = Report()
        self.first_text: int | None = None  # where the first event with text ended, if that was seen
        self._dialect = dialect
        self._envelope = math.inf  # bytes around the text, for each line of data; the smallest
        self._text = self._around = 0  # bytes of text that were read, and of the events that held it
        self._known = 0  # bytes in events that were read
        self._told = 0  # where the event ended that reported the usage last
        self._lines = 0  # of data that were counted, in these
        self._counted = seen.size
        at = end = 0  # where the last window begins, and the last event in it ends
        for at, data in spans(seen):
            end = self._read(at, data, SSE(event_limit), total, ended=seen.ended)
        size = max(end, seen.size)
        report, lines = self.report, max(0, seen.lines - self._lines)
        text = self._most_text(size - self._known, lines)
        if (usage := report.usage) is not None and at < self._told and size == end and _is_whole(usage):
            # All text came before the usage: its bytes show no more than that so many tokens are possible.
            report.output_bytes += min(text, max(0, usage.output_tokens - report.output_bytes))
            report.output_events += lines
            report.told_at = report.output_bytes
            self._count_behind(seen, size, total)
        elif seen.ended or not math.isinf(self._envelope):  # else no text is known of, and the bound is charged
            report.output_bytes += text
            report.output_events += max(1, lines) if text else 0
            self._count_behind(seen, size, total)

    def first_token(self, seen: Seen) -> float | None:
        """Seconds from the answer's headers to its first text, as Envoy timed the first pieces."""
        if not self.report.output_events or not seen.times:
            return None
        place = math.inf if self.first_text is None else self.first_text
        return max((seconds for at, seconds in seen.times if at < place), default=0.0)

    def _read(self, at: int, data: bytes, framing: SSE, total: int, *, ended: bool) -> int:
        """Read the events that are whole in a window. Where the last of them ends."""
        whole = at + len(data) >= total
        frames = list(framing.feed(data))
        if whole:
            rest = framing.end()
            if ended:
                frames += rest
            else:  # an event that broke off counts nothing
                self._known += sum(len(frame.raw) for frame in rest)
        if at and frames:
            cut = frames.pop(0)
            self._read_cut(at, cut.raw)
            at += len(cut.raw)
        for frame in frames:
            self._observe(frame, at)
            at += len(frame.raw)
        return total if whole else at

    def _observe(self, frame: Frame, at: int) -> None:
        report, raw = self.report, frame.raw
        before, usage = report.output_bytes, report.usage
        if frame.data is not None:
            self._dialect.observe(frame.data, report)
        elif frame.name != EMPTY:
            report.add_unread(raw)
        size = len(raw)
        if report.usage is not usage:
            self._told = at + size
        # Where the end of the line before each line of data stands: Envoy's script counted those before `_counted`.
        count = 0
        place = raw.find(b"data:")
        while place >= 0:
            if not place or raw[place - 1] in b"\r\n":
                count += 1
                self._lines += at + place - 1 < self._counted
            place = raw.find(b"data:", place + 5)
        if (text := report.output_bytes - before) > 0:
            if count and (envelope := max(0.0, (size - text) / count)) < self._envelope:
                self._envelope = envelope
            self._text, self._around = self._text + text, self._around + size
            if self.first_text is None:
                self.first_text = at + size
        self._known += size

    def _read_cut(self, at: int, raw: bytes) -> None:
        """Read the usage of an event whose beginning was not kept."""
        first, *others = _LINES.split(raw)
        rest = [line[5:] for line in others if line.startswith(b"data:")]
        before = self.report.usage
        self._dialect.observe_edges(b"", b"\n".join([first, *rest]).rstrip(), self.report, {})
        if self.report.usage is not before:
            self._told = at + len(raw)

    def _most_text(self, size: int, lines: int) -> int:
        """The bytes of text that events of `size` bytes in so many lines of data can hold."""
        envelope = 0.0 if math.isinf(self._envelope) else self._envelope
        return max(0, math.ceil(size - lines * envelope))

    def _count_behind(self, seen: Seen, size: int, total: int) -> None:
        """Count the text of the last few pieces, of which Envoy tells the bytes alone: rather denser than before."""
        if (unread := total - size) <= 0:
            return
        report = self.report
        dense = self._text / self._around if self._around else 1.0
        report.output_bytes += math.ceil(unread * min(1.0, _DENSER * dense))
        report.output_events += math.ceil(unread * _DENSER * seen.lines / size) if size else 1


def _is_whole(usage: Usage) -> bool:
    """True where nothing has to be estimated."""
    return usage.source == "provider" and bool(usage.input_tokens and usage.output_tokens)


def spans(seen: Seen) -> Sequence[Span]:
    """The windows in their order, those that touch joined."""
    found: list[Span] = []
    for at, data in sorted(((0, seen.head), (seen.usage_at, seen.usage), (seen.tail_at, seen.tail))):
        if not data:
            continue
        if found and at <= (end := found[-1][0] + len(found[-1][1])):
            start, before = found[-1]
            found[-1] = start, before + data[max(0, end - at) :]
        else:
            found.append((at, data))
    return found

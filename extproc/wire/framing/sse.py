"""Server-sent events, incrementally.

Source: WHATWG HTML, "Server-sent events", 9.2.6 interpreting an event stream. Lines end with LF, CR or CRLF, an event
ends with an empty line, `data:` may be followed by one space, several data lines are joined with LF. Unlike a browser,
this reader also returns a last event without its empty line, because providers forget it.

The APIs send JSON objects, so an event without a key in its data has no content. One search finds all such events up to
the next event with a key; they are a single frame. Its data joins their data lines, so that damage and text outside the
API are still checked. It is None when those lines are empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

from msgspec import UNSET

from extproc.wire.framing import BOM, EMPTY, EMPTY_LIMIT, OVERSIZE, Frame
from extproc.wire.framing.edges import USAGE, Edges
from extproc.wire.framing.runs import JSONPath, Run, run_of

# A line end and an empty line: `(\r\n|\n|\r){2}`, written so that its first byte can be searched for. A CR at the very
# end may be half a CRLF, so it waits for the next byte.
_BLANK = re.compile(rb"[\r\n](?:(?<=\r)\n)?+(?:\n|\r(?:\n|(?!\Z)))")
_SPACE = 32
_LAST = 6  # events of a step whose form is examined, for runs
_LESSONS = 256  # events of a stream that are examined, for empty ones
_MOST_TRIED, _MOST_RUNS = 16, 3
_MOST_KNOWN, _LONGEST_KNOWN = 8, 128  # most empty events that are remembered, and most bytes of each
_NONE: frozenset[bytes] = frozenset()
_WAITS = 3  # bytes at the end in which an empty line may have begun
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment. Its blank line serves clients that read a stream in blocks."""

# Each pattern begins with a literal, so that the search is fast. Every line has a line end in front of it.
_LINE = rb"data:(?<=[\r\n]data:)"
_KEY = rb'[^\r\n]*?"[ \t]*+:'
_CONTENT = re.compile(_LINE + rb"(?: ?\[DONE\]|" + _KEY + rb")")
_CONTENT_BEHIND_DONE = re.compile(_LINE + _KEY)
_DATA = re.compile(_LINE + rb" ?([^\r\n]*)")
_TEXT = re.compile(
    _LINE + rb"[ \t]*+(?!(?:\{[ \t]*\}|\[[ \t]*\]|\[DONE\]|null|true|false|-?[0-9]++)?[ \t]*(?:[\r\n]|\Z))"
)
"""Matches a data line with more than an empty value, a number or an end marker."""

_Match = Callable[[bytes, int], re.Match[bytes] | None]


class SSE:
    """Cuts a stream of server-sent events. An event over `limit` bytes passes in pieces, without data, even if it
    arrives whole. The limit excludes the event's empty line. `empty`: see `Framing`.

    `learn_empty` and `learn_runs` teach it which events are empty, and which have only a text. Consecutive ones are a
    single frame, too.
    """

    __slots__ = (
        "_done",
        "_edges",
        "_held",
        "_key",
        "_known",
        "_lessons",
        "_limit",
        "_rows",
        "_runs",
        "_searched",
        "_tried",
        "_unmarked",
        "empty",
        "empty_limit",
    )

    def __init__(self, limit: int = 1 << 20, empty_limit: int = EMPTY_LIMIT, key: bytes = USAGE) -> None:
        self.empty = 0
        self.empty_limit = empty_limit
        self._held = bytearray()  # the incomplete event; pieces are added in place, however small they are
        self._limit = limit
        self._key = key  # key of usage in a long event
        self._edges: Edges | None = None  # edges of an event over the limit
        self._searched = 0
        self._done = False  # True: an end marker came
        self._unmarked = False  # True after the first event: from then on a byte order mark is text
        # Empty tuples and sets are one object in the process: thousands of open streams keep no empty lists.
        self._known: tuple[bytes, ...] = ()  # events without content
        self._rows: Sequence[_Match] = ()  # match a row of empty events
        self._lessons = _LESSONS
        self._runs: tuple[Run, ...] = ()  # runs of events that have only a text
        self._tried = _NONE  # events examined for runs

    @property
    def parted(self) -> bool:
        """True while an event over the limit is passed in pieces."""
        return self._edges is not None

    def learn_empty(self, events: Sequence[Frame], reads: Collection[str], *, guarded: bool = False) -> None:
        """Remember the empty ones of `events`; their repetitions become frames without data. `reads` are the fields
        that matter. With `guarded`, unsettled text matters too: it could continue in the next event.
        """
        known = self._known
        if (before := len(known)) >= _MOST_KNOWN or self._lessons <= 0:
            return
        for raw, event in {event.raw: event for event in events if 0 < len(event.raw) <= _LONGEST_KNOWN}.items():
            if len(known) >= _MOST_KNOWN or self._lessons <= 0:
                break
            self._lessons -= 1
            if (
                raw.endswith((b"\n", b"\r"))
                and raw not in known
                and (event.data is None or carries_nothing(event, reads, guarded=guarded and not event.settled))
            ):
                known += (raw,)
        if len(known) > before:
            self._known = known
            # A CR at the end may be half a CRLF
            row = b"|".join([re.escape(one) + rb"(?!\n|\Z)" * one.endswith(b"\r") for one in known])
            self._rows = re.compile(rb"(?:%b)++" % row).match, _empty_objects(frozenset(reads), guarded)

    def learn_runs(self, events: Sequence[Frame], places: Sequence[JSONPath]) -> None:
        """Remember events that have only a text at one of the `places`: consecutive ones become one frame."""
        before = b""
        for event in events[-_LAST:]:
            if len(self._tried) >= _MOST_TRIED or len(self._runs) >= _MOST_RUNS:
                return
            if event.data is None:
                before = event.raw if event.name == EMPTY else b""
                continue
            raw = before + event.raw
            if event.events == 1 and raw not in self._tried and not any(run.is_like(raw) for run in self._runs):
                self._tried |= {raw}
                run = run_of(before, event.raw, event.data, places)
                if run is not None:
                    self._runs += (run,)
            before = b""

    def _add_rows(self, buffer: bytes, start: int, events: list[Frame]) -> int:
        """Add the rows of events that begin at `start`. Returns the end offset of the last."""
        for run in self._runs:
            if (found := run.take(buffer, start)) is not None and len(found.raw) <= self._limit:
                events.append(found)
                self.empty = 0
                start += len(found.raw)
                break
        end, before = start, -1
        while end > before:
            before = end
            for match in self._rows:
                if (row := match(buffer, end)) is not None:
                    end = row.end()
        if end > start:
            events.append(Frame(buffer[start:end], None, EMPTY))
            self.empty += end - start
        return end

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        held = self._held
        if held:
            held += chunk
            if len(held) <= self._limit + _WAITS and not self._ends(held):
                return ()
            buffer = bytes(held)
        else:
            buffer = chunk
        events: list[Frame] = []
        start, search = 0, self._searched
        limit = self._limit
        lines = b"\r" not in buffer  # True without CR: nearly every provider ends lines with LF
        content: bool | None = None  # False: no data in the buffer has a key or an end marker
        learned = bool(self._known or self._runs)
        while True:
            if learned and self._edges is None and (end := self._add_rows(buffer, start, events)) > start:
                start = search = end
            if lines:
                if (blank := buffer.find(b"\n\n", search)) < 0:
                    break
                end = blank + 2
            elif (found := _BLANK.search(buffer, search)) is not None:
                blank, end = found.span()
            else:
                break
            if blank - start > limit:
                start = self._part(buffer, start, blank, events)
            raw = buffer[start:end]
            if lines:
                size = len(raw) - 2
                single = raw.find(b"\n") == size
            else:
                text = raw.rstrip(b"\r\n")
                size, single = len(text), b"\r" not in text and b"\n" not in text
            # The usual event: one data line.
            if single and raw.startswith(b"data:") and b'":' in raw and self._edges is None:
                events.append(Frame(raw, raw[6 if raw[5] == _SPACE else 5 : size]))
                self.empty = 0
            elif single and raw.startswith(b":") and buffer.startswith(b"data:", end) and self._edges is None:
                events.append(Frame(raw, None, EMPTY))  # a comment between events
                self.empty += len(raw)
            else:
                if content is None:
                    content = _may_have_content(buffer)
                end = self._event(buffer, start, end, events, content=content)
            start = search = end
        if len(buffer) - start > limit + _WAITS:  # `_WAITS` spares an event of exactly `limit` bytes, however it is cut
            start = self._part(buffer, start, len(buffer) - _WAITS, events)
        if start < len(buffer):
            self._held = bytearray(buffer[start:])
            self._searched = max(0, len(buffer) - start - _WAITS)
        elif held:
            self._held = bytearray()
            self._searched = 0
        if events:
            self._unmarked = True
        return events

    def end(self) -> Sequence[Frame]:
        rest, self._held = bytes(self._held), bytearray()
        events: list[Frame] = []
        if len(rest.rstrip(b"\r\n")) > self._limit:
            self._part(rest, 0, len(rest), events)
            rest = b""
        if rest or events:
            self._event(rest, 0, len(rest), events)
        return events

    def _ends(self, held: bytearray) -> bool:
        """True when `held` may contain a complete event."""
        at = self._searched
        found = held.find(b"\n\n", at) >= 0 or (held.find(b"\r", at) >= 0 and _BLANK.search(held, at) is not None)
        self._searched = at if found else max(0, len(held) - _WAITS)
        return found

    def _part(self, buffer: bytes, start: int, end: int, events: list[Frame]) -> int:
        """Add a piece of an event over the limit. Returns the piece's end offset."""
        piece = buffer[start:end]
        events.append(Frame(piece, None, "" if self._edges else OVERSIZE))
        if self._edges is None:
            self._edges = Edges(piece.partition(b"data:")[2], self._key)
        else:
            self._edges.add(piece)
        self.empty = 0 if self._edges.head else self.empty + len(piece)
        return end

    def _event(self, buffer: bytes, start: int, end: int, events: list[Frame], *, content: bool = True) -> int:
        """Add the event that ends at `end`, or a frame of all empty events from there on. Returns the end offset.
        `content` is the result of `_may_have_content`.
        """
        if self._edges is not None:  # the last piece of an event over the limit
            edges, self._edges = self._edges, None
            raw = buffer[start:end]
            edges.add(raw)
            events.append(Frame(raw, None, edges=edges))
            return end
        pattern = _CONTENT_BEHIND_DONE if self._done else _CONTENT
        lines = buffer
        if start < len(BOM):  # line ends replace a byte order mark, so that the first line has one in front of it
            marked = not self._unmarked and buffer.startswith(BOM)
            lines = b"\n" * len(BOM) + buffer[marked and len(BOM) :]
        before = len(lines) - len(buffer)
        found = pattern.search(lines, start + before) if content else None
        at = len(buffer) if found is None else found.start() - before
        if at < end:
            raw = buffer[start:end]
            data = b"\n".join(_DATA.findall(lines, start + before, end + before))
            self._done = self._done or data == b"[DONE]"
            events.append(Frame(raw, data))
            self.empty = 0
            return end
        if at > end:
            end = max(end, _last_blank(buffer, end - 1, at))
        raw, span = buffer[start:end], (start + before, end + before)
        text = _TEXT.search(lines, *span) is not None
        events.append(Frame(raw, b"\n".join(_DATA.findall(lines, *span)) if text else None, EMPTY))
        self.empty += len(raw)
        return end


@cache
def _empty_objects(reads: Collection[str], guarded: bool) -> _Match:
    """Matches a row of events whose fields in `reads` are empty lists. Other fields may have any short value. With
    `guarded`, they have no text and no long number, because guardrails search both.
    """
    read = rb'(?:%b)"' % b"|".join([re.escape(one).encode() for one in sorted(reads)])
    text = rb'[^"\\\x00-\x1f\x80-\xff]*+"'
    value = rb"(?:-?(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?|true|false|null|\[\]|\{\}%b)" % (
        b"" if guarded else rb'|"' + text
    )
    pair = rb'"(?:%b:[ ]?\[\]|(?!%b)%b:[ ]?%b)' % (read, read, text, value)
    event = rb"(?:(?:event|id|retry):[^\r\n]*+\n)*+data:[ ]?\{%b(?:,[ ]?%b)*+\}\n\n" % (pair, pair)
    return re.compile(rb"(?:%b)++" % event).match


def carries_nothing(event: Frame, reads: Collection[str], *, guarded: bool = False) -> bool:
    """True for a ping, and for an object, or a list of objects, whose fields in `reads` are all empty. With `guarded`,
    any text except `type` is content, too.
    """
    tree = event.parse()
    if tree is UNSET:
        return False
    if guarded and _has_text(tree):
        return False
    return all(
        isinstance(one, dict) and not any(one.get(name) for name in reads if name != "type" or one.get(name) != "ping")
        for one in (tree if isinstance(tree, list) else (tree,))
    )


def _has_text(tree: Any) -> bool:
    if isinstance(tree, dict):
        return any(_has_text(value) for name, value in tree.items() if name != "type")
    return any(map(_has_text, tree)) if isinstance(tree, list) else isinstance(tree, str)


def _may_have_content(buffer: bytes) -> bool:
    """False when no data line has a key or an end marker. Much faster than a search for such a line."""
    if b'"' not in buffer:
        return b"[DONE]" in buffer
    return b'":' in buffer or b" :" in buffer or b"\t:" in buffer or b"[DONE]" in buffer


def _last_blank(buffer: bytes, start: int, end: int) -> int:
    """The end of the last event that ends between `start` and `end`; -1 without one."""
    at = max(buffer.rfind(pair, start, end) for pair in (b"\n\n", b"\r\r", b"\n\r")) + 2
    if at < 2:
        return -1
    if buffer[at - 1 : at] == b"\r":
        if at == len(buffer):  # this CR may be half a CRLF
            return _last_blank(buffer, start, at - 1)
        at += buffer.startswith(b"\n", at)
    return at

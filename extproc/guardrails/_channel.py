"""A text of an answer that continues from event to event, and its windows that services judge."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from extproc.guardrails._base import Finding
from extproc.guardrails._guard import Guard
from extproc.guardrails._remote import RemoteSettings
from extproc.guardrails._source import Edit, Written

_numbers = count()


@dataclass(slots=True)
class Channel:
    where: str
    call: bool
    role: str
    written: Written
    again: bool = False
    single: bool = False  # True: the text comes in one piece
    final: bool = False  # True: the text has ended
    paused: bool = False  # True: another text of the same choice began
    decided: dict[str, int] = field(default_factory=dict)  # place up to which the text is decided, by guardrail
    # Ends of findings by guardrail, then by beginning and kind. A match may begin before the decided place; the part
    # that has not left is masked.
    acted: dict[str, dict[tuple[int, str], int]] = field(default_factory=dict)
    edits: list[tuple[int, int, Edit]] = field(default_factory=list)  # beginning, order of its guardrail, the edit
    free: int = 0  # the text before this place, as it was written, may leave
    whole: str = ""  # see Piece.whole
    tool: str = ""  # name of the tool, for arguments of a call
    raw: list[str] | None = None  # the text as written, for guardrails that judge it once complete
    kept: int = 0  # characters in `raw`
    pausing: bool = False  # True: decided as if ended, though not complete
    signed: bool = False  # see Piece.signed
    # Places up to which a service was asked, and up to which it has answered, by guardrail.
    asked: dict[str, int] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)
    since: float = 0.0  # time since which text waits for a question
    number: int = field(default_factory=_numbers.__next__)  # unique among channels

    @property
    def complete(self) -> bool:
        """True if the text has ended, or pauses."""
        return self.final or self.paused


@dataclass(slots=True, frozen=True)
class Window:
    """Text of a channel for a service to judge. The service's answer decides the channel up to `done`."""

    channel: Channel
    start: int
    done: int
    text: str
    last: bool  # True: the text has ended, or waited too long

    def without_text(self) -> Window:
        """A copy of the window without its text, to remember findings by."""
        channel = self.channel
        bare = Channel(channel.where, channel.call, channel.role, Written(), channel.again, number=channel.number)
        return replace(self, channel=bare, text="")


def windows(guard: Guard, channel: Channel, now: float) -> Iterator[Window]:
    """The windows of a channel that a guardrail's service has to judge now. `now` is in seconds, monotonic."""
    if not guard.reads_output(call=channel.call):
        return
    settings, written = guard.settings, channel.written
    assert isinstance(settings, RemoteSettings)
    at, size = channel.asked.get(guard.name, 0), written.end
    # A mask needs the whole match, so the end of a window is repeated at the beginning of the next.
    kept = settings.overlap if guard.action == "mask" else 0
    late = now > channel.since + settings.longest_wait
    while at < size:
        start = max(written.base, at - settings.overlap)
        end = size if channel.single else start + settings.window
        if end > size and not channel.complete and not late:
            break
        last = end >= size and (channel.complete or late)
        end = min(end, size)
        at = channel.asked[guard.name] = end if last else end - kept
        channel.since = now
        text = written.text[start - written.base : end - written.base]
        yield Window(channel, start, at, text, last)


def fresh(
    window: Window, acted: MutableMapping[tuple[int, str], int], findings: Sequence[Finding]
) -> Iterator[tuple[int, int, Finding, bool]]:
    """The new findings in a window, without those known from its overlap with others: beginning and end in the channel,
    the finding, and True if its beginning was known. `acted` holds the channel's findings; the new ones are added.
    """
    for one in sorted(findings, key=lambda one: one.span):
        start, end = one.span[0] + window.start, one.span[1] + window.start
        before = acted.get((start, one.kind))
        if (start >= window.done and not window.last) or (before is not None and before >= end):
            continue
        yield start, end, one, before is not None
        acted[start, one.kind] = end

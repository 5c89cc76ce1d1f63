"""A text of an answer that goes on from event to event, and the windows of it that services judge."""

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
    single: bool = False  # a text of its own, in one piece
    final: bool = False  # nothing follows
    paused: bool = False  # another text of the same choice began
    decided: dict[str, int] = field(default_factory=dict)  # by guardrail
    # by guardrail: beginning and kind of findings, and their ends; a match may begin in front of what was decided, and
    # is masked as far as it is still here
    acted: dict[str, dict[tuple[int, str], int]] = field(default_factory=dict)
    edits: list[tuple[int, int, Edit]] = field(default_factory=list)  # beginning, order of the guardrail, edit
    free: int = 0  # the text in front of this place, as it was written, may leave
    whole: str = ""  # see Piece.whole
    tool: str = ""  # of a call
    raw: list[str] | None = None  # the text as it was written, for guardrails that judge it when it is complete
    kept: int = 0  # characters of it
    pausing: bool = False  # decided as if it ended, though it is not complete
    signed: bool = False  # see Piece.signed
    # by guardrail that asks a service: the place up to which it was asked, and up to which it has answered
    asked: dict[str, int] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)
    since: float = 0.0  # time since which text waits to be asked about
    number: int = field(default_factory=_numbers.__next__)  # no other channel has it

    @property
    def complete(self) -> bool:
        """True where nothing follows, for now at least."""
        return self.final or self.paused


@dataclass(slots=True, frozen=True)
class Window:
    """Text of a channel for a service to judge. Its answer decides the channel up to `done`."""

    channel: Channel
    start: int
    done: int
    text: str
    last: bool  # nothing follows, or it took too long

    def without_text(self) -> Window:
        """The same place of a channel like this one, for the memory of findings."""
        channel = self.channel
        bare = Channel(channel.where, channel.call, channel.role, Written(), channel.again, number=channel.number)
        return replace(self, channel=bare, text="")


def windows(guard: Guard, channel: Channel, now: float) -> Iterator[Window]:
    """The text of a channel that the service of a guardrail has to judge now. `now` is in seconds, monotonic."""
    if not guard.reads_output(call=channel.call):
        return
    settings, written = guard.settings, channel.written
    assert isinstance(settings, RemoteSettings)
    at, size = channel.asked.get(guard.name, 0), written.end
    # A mask needs to see the end of a match: the end of a window is seen again at the beginning of the next one.
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
    """The findings in a window that its overlap with others did not give before: beginning and end in the channel, the
    finding, and True for one whose beginning was known. `acted` has those of the channel, and gets these.
    """
    for one in sorted(findings, key=lambda one: one.span):
        start, end = one.span[0] + window.start, one.span[1] + window.start
        before = acted.get((start, one.kind))
        if (start >= window.done and not window.last) or (before is not None and before >= end):
            continue
        yield start, end, one, before is not None
        acted[start, one.kind] = end

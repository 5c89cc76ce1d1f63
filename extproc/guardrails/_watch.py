"""The text of one answer under guardrails: decides which events may leave, masks text, and ends the answer.

   events ─► pieces of text ─► channels ─► decided up to a place ─► events whose text is decided leave, in their order

A channel is text that continues from event to event: the words of a choice, the arguments of a call. Each guardrail
decides a channel up to a place: all findings that begin before it are known, whatever follows. After that place a match
may still begin, so its events wait. Findings depend on the text alone: text is searched in blocks, each with as much
text around it as the longest match has, so it makes no difference how the stream was cut into chunks.

An event without edits leaves as the bytes it came in. In an edited event only the changed strings are new.

A guardrail that asks a service judges windows of a channel. `take` leaves them open, `asks` gives them, and `judged`
takes the findings: this module waits for nothing. Findings of a guardrail that stands `aside` never come back here.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.guardrails._base import TOOL_CALL, TOOL_NAME, Finding, Whole
from extproc.guardrails._channel import Channel, Window, fresh
from extproc.guardrails._channel import windows as windows_of
from extproc.guardrails._guard import MOST_LONGEST, Guard, piece_hits
from extproc.guardrails._parts import Parts
from extproc.guardrails._source import Hit, Written, render
from extproc.guardrails._threads import INLINE, TURN
from extproc.wire.framing import OVERSIZE, Frame
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.wire.framing.patch import rewritten
from extproc.wire.outbound.service import Failure
from extproc.words.api import ClientAPI
from extproc.words.contract import GUARDRAILS
from extproc.words.errors import GUARDRAIL_BLOCKED, GUARDRAIL_UNAVAILABLE, Refusal
from extproc.words.exchange import MOST_EXAMPLES, Example, Verdict
from extproc.words.said import ANSWER, CALL, ArgumentPart, Called, Closed, Piece

BLOCK = 512
"""Characters of a channel that are searched together."""
_DEPTH = 128  # most levels of an event's JSON
_DONE = b"[DONE]"
_SHARE = 4  # bytes of an event for each character of its text, in most events at least
_TAIL = 1024  # fewest characters at the end of a text that are searched for the beginning of a match
_encode = msgspec.json.Encoder().encode

LONGEST_WAIT = 10.0
"""Seconds after which the first window ends at the next event, so that events without text do not hold the head
forever.
"""
MOST_WAITING = 1 << 20
"""Most bytes of events that wait for one text. Beyond it the text is decided as if it had ended."""
MOST_WHOLE = 10 << 20
"""Most bytes of events that wait for a guardrail that judges complete texts, and most characters of such a text. A
guardrail cannot judge a longer text.
"""

Label = Callable[[Guard, str, str], str]
"""Makes the replacement of a finding, from the guardrail, the kind and the text."""


@dataclass(slots=True)
class _Said:
    """A piece of text, as written, and its place `at` in its channel."""

    piece: Piece
    channel: Channel
    at: int
    text: str


@dataclass(slots=True)
class _Entry:
    frame: Frame
    tree: Any
    said: Sequence[_Said]


class Ends(Exception):  # noqa: N818
    """Raised where the answer ends with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.kind.code)
        self.refusal = refusal


class Watch:
    """One answer. `label` makes replacements, `tell` gets verdicts. `signed`: the provider checks signatures, so no
    mask changes signed text.
    """

    def __init__(
        self,
        dialect: ClientAPI,
        guards: Sequence[Guard],
        label: Label,
        tell: Callable[[Verdict], None],
        *,
        plain: bool,
        first_window: int,
        most_whole: int = MOST_WHOLE,
        signed: bool = False,
    ) -> None:
        self._said = dialect.said
        self._signed = signed
        self._guards = list(guards)
        self._label = label
        self._tell = tell
        self._plain = plain
        self.asking = any(guard.remote is not None for guard in guards)
        self.remote = any(guard.remote is not None and not guard.aside for guard in guards)
        self.known: dict[tuple[str, str], Sequence[Finding]] = {}  # findings of services in the latest texts
        may_block = any(guard.blocks or (guard.remote and guard.masks) for guard in guards)
        self._window = first_window if may_block else 0
        self._open = self._window == 0
        self._channels: dict[tuple[Any, ...], Channel] = {}
        self._queue: deque[_Entry] = deque()
        self._passed: list[Frame] = []  # events that may leave once the first window has passed
        self._seen = 0  # characters of text in `_passed`
        self._actions = 0  # number of findings, repeated ones included
        self._found: dict[str, dict[str, int]] = {}  # guardrail -> kind -> findings
        self._unmasked: dict[str, dict[str, int]] = {}  # the same for masks that signed text does without
        self._examples: dict[str, list[Example]] = {}
        self._wholes = any(guard.whole for guard in guards)
        self._heavy = any(guard.heavy for guard in guards)
        self._slow = [guard for guard in guards if guard.window and guard.window * guard.cost > TURN / 2]
        self._most_whole = most_whole
        self._most_waiting = most_whole if any(guard.whole and guard.enforces for guard in guards) else MOST_WAITING
        self._judged: set[tuple[str, str, str]] = set()  # guardrail, tool and text of judged complete texts
        self._names: dict[tuple[Any, ...], str] = {}  # names of tools, by call
        self._parts = Parts()
        self._open_ended: list[Channel] = []  # channels whose text may still need a service
        self._ended = False
        self._waiting = 0  # bytes of events in the queue
        self._began = 0.0
        self._made = time.monotonic()
        self.refusal: Refusal | None = None

    @property
    def heavy(self) -> bool:
        """True if the next event may end a text that takes long to judge."""
        return self._heavy

    def fills_window(self, size: int, *, end: bool) -> bool:
        """True if events of `size` bytes may fill or end a window that takes long to judge."""
        text = size // _SHARE
        for guard in self._slow:
            for channel in self._channels.values():
                done = channel.decided.get(guard.name, 0)
                if end or channel.written.end + text >= done + (guard.window // 2 if done else guard.window):
                    return True
        return False

    def take(self, events: Sequence[Frame], end: bool) -> Sequence[Frame]:
        """The events that may leave now. If `refusal` is set afterwards, the answer ends after them."""
        self._began = time.monotonic()
        out: list[Frame] = []
        try:
            for event in events:
                self._add(event)
                self._leave(out)
            if end:
                self._complete_calls(())
                for channel in [*self._channels.values()]:
                    self._finish(channel)
                self._ended = True
                self._open = self._open or not self.remote
                self._leave(out)
        except Ends as ends:
            self.refusal = ends.refusal
        if (end and not self.remote) or self.refusal is not None:
            self._report_findings()
        return out

    def overdue(self) -> Sequence[Frame] | None:
        """The decided events that wait for the first window, once it took too long; None before. Text held back stays:
        it may still become a match, however long the provider is silent.
        """
        if not self._open and time.monotonic() <= self._made + LONGEST_WAIT:
            return None
        self._open = True
        passed, self._passed = self._passed, []
        return passed

    def _report_findings(self, blocked: str = "") -> None:
        for guard in self._guards:
            self._tell_found(guard, blocked=guard.name == blocked)

    def _tell_found(self, guard: Guard, *, blocked: bool = False) -> None:
        examples = self._examples.pop(guard.name, ())
        found = [*guard.by_action(self._found.pop(guard.name, {})).items()]
        if unmasked := self._unmasked.pop(guard.name, None):
            found.append(("annotate", unmasked))
        for action, kinds in found:
            mine = [one for one in examples if one.kind in kinds]
            self._tell(Verdict(guard.name, "output", "block" if blocked else action, kinds, examples=mine))

    # --- windows for services

    def asks(self) -> Sequence[tuple[Guard, Sequence[Window]]]:
        """The windows that services have to judge before their text leaves. Guardrails that stand aside delay
        no text.
        """
        if self.refusal is not None:
            return ()
        found: list[tuple[Guard, Sequence[Window]]] = []
        for guard in self._guards:
            if guard.remote is None:
                continue
            windows = [one for channel in self._open_ended for one in windows_of(guard, channel, self._began)]
            if windows:
                found.append((guard, windows))
        self._open_ended = [channel for channel in self._open_ended if not channel.final]
        return found

    def judged(
        self, answers: Sequence[tuple[Guard, Sequence[Window], Sequence[Sequence[Finding]] | Failure]]
    ) -> Sequence[Frame]:
        """The events that may leave, given the findings of services. Call it after each `take`, if `remote` is true."""
        out: list[Frame] = []
        blocked = ""
        channels = {id(each.channel): each.channel for _, windows, _ in answers for each in windows}
        try:
            for guard, windows, findings in answers:
                if isinstance(findings, Failure):
                    self._fail(guard, findings)
                    continue
                blocked = guard.name
                for window, found in zip(windows, findings, strict=True):
                    self._rule(guard, window, found)
                blocked = ""
            self._open = self._open or self._ended
        except Ends as ends:
            self.refusal = ends.refusal
        try:
            if blocked or self.refusal is None:  # a block takes effect after the text judged before it
                for channel in channels.values():
                    self._decide(channel)
                self._leave(out)
        except Ends as ends:
            self.refusal = self.refusal or ends.refusal
        if self._ended or self.refusal is not None:
            self._report_findings(blocked)
        return out

    def _rule(self, guard: Guard, window: Window, findings: Sequence[Finding]) -> None:
        channel = window.channel
        for start, end, one, again in fresh(window, channel.acted.setdefault(guard.name, {}), findings):
            self._act(guard, channel, Hit.of(one)._replace(start=start, end=end), again=again)
        channel.judged[guard.name] = window.done

    # --- events in

    def _add(self, event: Frame) -> None:
        data = event.data
        self._waiting += len(event.raw)
        if data is None:
            if self._plain or event.name == OVERSIZE:
                self._unreadable()
            self._queue.append(_Entry(event, None, ()))
            return
        tree: Any = None
        said: list[_Said] = []
        closed: list[tuple[Any, ...]] = []
        alone, actions = not self.asking, self._actions
        if data != _DONE:
            try:
                tree = parse(data, _DEPTH, tree=event.tree)
            except InvalidJSON:  # the event may hold a call with a duplicate field
                alone = False
                self._unreadable(whole=True)
                holder = {"": data.decode(errors="replace")}
                said.append(self._read_piece(Piece("answer", holder, "")))
            else:
                for one in self._said(tree):
                    alone = alone and isinstance(one, Piece) and one.channel is None
                    if isinstance(one, Closed):
                        closed.append(one.channel)
                    elif isinstance(one, Called):
                        self._called(one)
                    elif isinstance(one, ArgumentPart):
                        if one.tool is not None:  # the call before may have no end event
                            self._complete_calls(one.channel)
                        said += [self._read_piece(piece) for piece in self._parts.add(one) if piece.value]
                        if self._parts.longer(self._most_whole):
                            self._unreadable(whole=True)
                            self._parts = Parts()
                        if one.ends:
                            self._complete_calls(one.channel)
                    elif text := one.value:
                        said.append(self._read_piece(one, text))
        self._queue.append(_Entry(event, tree, said))
        touched = {id(one.channel): one.channel for one in said}
        self._pause_others(said, touched)
        for channel in touched.values():
            self._decide(channel)
        event.settled = alone and self._actions == actions
        for prefix in closed:
            self._complete_calls(prefix)
            for name in [name for name in self._channels if name[: len(prefix)] == prefix]:
                self._finish(self._channels.pop(name))

    def _read_piece(self, piece: Piece, text: str | None = None) -> _Said:
        text = piece.value if text is None else text
        channel = self._channels.get(piece.channel) if piece.channel is not None else None
        if channel is None:
            written = Written.json() if piece.json else Written()
            role = TOOL_NAME if piece.name else TOOL_CALL if piece.call else "assistant"
            single = piece.channel is None
            channel = Channel(piece.where, piece.call, role, written, piece.again, single, final=single)
            channel.signed = piece.signed
            if self._wholes and piece.whole:
                channel.whole, channel.tool, channel.raw = piece.whole, self._tool(piece), []
            if self.asking:
                self._open_ended.append(channel)
            if piece.channel is not None:
                self._channels[piece.channel] = channel
        elif channel.paused:
            channel.paused = False
            for guard, done in channel.decided.items():  # a match may have begun before the pause
                channel.decided[guard] = max(channel.written.base, done - _TAIL, 0)
        if self.asking and channel.written.end <= max(channel.asked.values(), default=0):
            channel.since = self._began
        at = channel.written.size
        channel.written.add(text)
        if channel.raw is not None:
            channel.raw.append(text)
            channel.kept += len(text)
            self._heavy = self._heavy or channel.kept > INLINE
            if channel.kept > self._most_whole:
                self._too_long(channel)
        if piece.name and piece.of is not None:
            self._name(piece, text)
        return _Said(piece, channel, at, text)

    def _pause_others(self, said: Sequence[_Said], touched: Mapping[int, Channel]) -> None:
        """Decide the other texts of a choice when a new text begins: a model writes one text after the other."""
        begun = {
            one.piece.channel[0]
            for one in said
            if one.at == 0 and one.piece.channel is not None and not one.piece.unknown
        }
        if begun:
            for name, other in self._channels.items():
                if name[0] in begun and not other.paused and id(other) not in touched:
                    self._pause(other)

    def _complete_calls(self, prefix: tuple[Any, ...]) -> None:
        """Judge calls that came in parts, of the choice `prefix` or of all choices, before their last event leaves."""
        for name, call in self._parts.complete(prefix):
            self._called(call)
            for channel in [each for each in self._channels if each[: len(name)] == name]:
                self._channels[channel].raw = None
                self._finish(self._channels.pop(channel))

    def _tool(self, piece: Piece) -> str:
        """The name of the tool whose arguments begin with the piece; empty if unknown."""
        name = piece.holder.get("name") if isinstance(piece.holder, dict) and piece.call else None
        return name if isinstance(name, str) else self._names.get(piece.of, "") if piece.of is not None else ""

    def _name(self, piece: Piece, text: str) -> None:
        """Note the name of a tool. If the name comes in several pieces, the whole name is judged again."""
        assert piece.of is not None
        before = self._names.get(piece.of, "")
        if text != before:
            name = self._names[piece.of] = before + text
            if before:
                self._decide(Channel(piece.where, True, TOOL_NAME, Written(name, len(name)), final=True))

    def _called(self, call: Called) -> None:
        """Judge a call whose arguments are an object."""
        tool = call.tool if isinstance(call.tool, str) else ""
        arguments = _encode(call.arguments).decode()
        channel = Channel(call.where, True, TOOL_CALL, Written(), final=True, whole=CALL, tool=tool, raw=[arguments])
        for guard in [*self._guards]:
            if guard.remote is not None or not guard.reads_output(call=True):
                continue
            try:
                if not call.named:  # the name cannot be masked
                    for hit in guard.hits(tool, TOOL_NAME, call.where):
                        if guard.action_of(hit.kind) != "mask":
                            self._act(guard, channel, hit)
                if guard.reads_whole(TOOL_CALL, tool, answer=False):
                    self._judge_whole(guard, channel, json=True)
            except Failure as failure:
                self._fail(guard, failure)

    def _too_long(self, channel: Channel) -> None:
        """Give up judging an incomplete text that grew too long."""
        for guard in [*self._guards]:
            try:
                reads = guard.reads_output(call=channel.call) and self._reads_whole(guard, channel)
            except Failure as failure:
                self._fail(guard, failure)
            else:
                if reads:
                    self._fail(guard, Failure("unreadable"))
        channel.raw = None

    def _unreadable(self, *, whole: bool = False) -> None:
        """Handle an unreadable event; `whole`: only for guardrails that judge whole texts."""
        for guard in [*self._guards]:
            if guard.whole or not whole:
                self._fail(guard, Failure("unreadable"))

    # --- decisions

    def _pause(self, channel: Channel) -> None:
        """Decide the channel as if it ended here. Text that is judged once complete keeps waiting."""
        final = channel.final
        channel.pausing = True
        self._finish(channel)
        channel.final, channel.paused, channel.pausing = final, True, False

    def _finish(self, channel: Channel) -> None:
        channel.final = True
        self._decide(channel)

    def _decide(self, channel: Channel) -> None:
        """Search the channel as far as every guardrail can, and free the text that all guardrails have decided."""
        written = channel.written
        low = known = written.end
        held = False
        for guard in [*self._guards]:
            if not guard.reads_output(call=channel.call):
                continue
            try:
                done = self._judge(guard, channel)
                if channel.raw is not None and self._reads_whole(guard, channel):
                    if channel.final and not channel.pausing:
                        self._judge_whole(guard, channel)
                    else:
                        held = held or guard.enforces
            except Failure as failure:
                self._fail(guard, failure)
                continue
            if guard.enforces:
                low = min(low, done)
            known = min(known, (done // BLOCK) * BLOCK - guard.longest if not guard.window else done - guard.window)
        if not held:
            if channel.complete and low >= written.end:
                channel.free = written.size
            else:
                channel.free = max(channel.free, written.place(written.whole(low), final=False))
        if known - written.base > 4 * BLOCK:
            written.forget(known)
            for name, acted in channel.acted.items():
                channel.acted[name] = {key: stop for key, stop in acted.items() if stop > known}

    def _judge(self, guard: Guard, channel: Channel) -> int:
        """The place up to which the channel is decided. Raises Failure."""
        if guard.remote is not None:
            return (channel.asked if guard.aside else channel.judged).get(guard.name, 0)
        if time.monotonic() > self._began + guard.settings.timeout:
            raise Failure("timeout")
        written, done = channel.written, channel.decided.get(guard.name, 0)
        size, acted = written.end, channel.acted.setdefault(guard.name, {})
        if guard.window:
            return self._judge_windows(guard, channel, done)
        limit = size
        if not channel.final:
            tail = written.text[-max(_TAIL, 4 * (guard.longest + 1)) :]
            limit = max(done, written.whole(size - guard.held(tail)))
        while done < limit:
            if time.monotonic() > self._began + guard.settings.timeout:
                raise Failure("timeout")
            block = done // BLOCK * BLOCK
            end = min(block + BLOCK, limit)
            grows = False
            text, role = written.text, channel.role
            for hit in piece_hits(guard, text, block, block + BLOCK, base=written.base, role=role, where=channel.where):
                start, stop, kind = hit[:3]
                if start >= end:
                    break
                if start < done and not acted.get((start, kind), done) < stop:
                    continue
                if start >= done and stop >= size and not channel.final and size - start <= MOST_LONGEST:
                    end, grows = start, True
                    break
                self._act(guard, channel, hit, again=(start, kind) in acted)
                acted[start, kind] = stop
            channel.decided[guard.name] = done = end
            if grows:
                break
        return done

    def _judge_windows(self, guard: Guard, channel: Channel, done: int) -> int:
        """The same place as `_judge` gives, for a guardrail that judges windows: they overlap by half."""
        written = channel.written
        size, base, step = written.end, written.base, max(1, guard.window // 2)
        while done < size:
            start = 0 if done == 0 else done - guard.window + step
            end = start + guard.window
            if end > size:
                if not channel.final:
                    break
                end = size
            text = written.text[max(0, start - base) : end - base]
            for hit in guard.hits(text, channel.role, channel.where):
                self._act(guard, channel, hit.shifted(max(base, start)))
            channel.decided[guard.name] = done = end
        return done

    @staticmethod
    def _reads_whole(guard: Guard, channel: Channel) -> bool:
        return bool(channel.whole) and guard.reads_whole(channel.role, channel.tool, answer=channel.whole == ANSWER)

    def _judge_whole(self, guard: Guard, channel: Channel, *, json: bool = False) -> None:
        """Judge a complete text. The end of a stream repeats texts, which are judged once."""
        assert channel.raw is not None
        text = "".join(channel.raw)
        key = guard.name, channel.tool, text
        if key in self._judged:
            return
        self._judged.add(key)
        json = json or channel.written.lexer is not None
        for kind in guard.judge(Whole(text, channel.role, channel.where, channel.tool, json)):
            self._act(guard, channel, Hit(0, channel.written.end, kind))

    def _act(self, guard: Guard, channel: Channel, hit: Hit, *, again: bool = False) -> None:
        start, end, kind, score, ruling = hit
        written, action = channel.written, guard.action_of(kind)
        text = written.text[max(0, start - written.base) : end - written.base]
        self._actions += 1
        signed = self._signed and channel.signed and action == "mask" and not hit.blocks
        kinds = (self._unmasked if signed else self._found).setdefault(guard.name, {})
        if not (channel.again or again) or kind not in kinds:
            kinds[kind] = kinds.get(kind, 0) + 1
            examples = self._examples.setdefault(guard.name, [])
            if len(examples) < MOST_EXAMPLES:
                examples.append(Example(channel.where, kind, round(score, 3), guard.hash(text)))
        if action == "block" or (action == "mask" and hit.blocks):
            said = f" {ruling.message}" if ruling is not None and ruling.message else guard.rule(channel.tool, kind)
            message = f"Guardrail {guard.name!r} matched the answer ({kind}); it was withheld.{said}"
            raise Ends(Refusal(GUARDRAIL_BLOCKED, message, headers={GUARDRAILS: f"{guard.name}:block"}))
        if action == "mask" and not signed:
            label = ruling.replacement if ruling is not None else None
            if label is None:
                label = self._label(guard, kind, text)
            for edit in written.edits(start, end, label, final=channel.final):
                insort(channel.edits, (edit[0], guard.order, edit))

    def _fail(self, guard: Guard, failure: Failure) -> None:
        """Handle a guardrail that cannot judge the answer: end the answer, or continue without the guardrail."""
        if guard not in self._guards:
            return
        self._guards.remove(guard)
        self._tell_found(guard)
        self._tell(Verdict(guard.name, "output", "failed", reason=failure.reason))
        if guard.closed:
            message = f"Guardrail {guard.name!r} could not check the answer; it was withheld."
            raise Ends(Refusal(GUARDRAIL_UNAVAILABLE, message, headers={GUARDRAILS: f"{guard.name}:failed"}))

    # --- events out

    def _leave(self, out: list[Frame]) -> None:
        """Move the events whose text is decided to `out`, once the first window has passed."""
        queue = self._queue
        if self._waiting > self._most_waiting and queue:
            for channel in {id(one.channel): one.channel for one in queue[0].said}.values():
                if channel.raw is not None:
                    self._too_long(channel)
                self._pause(channel)
        while queue and all(one.at + len(one.text) <= one.channel.free for one in queue[0].said):
            entry = queue.popleft()
            self._waiting -= len(entry.frame.raw)
            self._edit(entry)
            self._passed.append(entry.frame)
            self._seen += sum(len(one.text) for one in entry.said if one.piece.channel is not None)
        if self._open or self._seen >= self._window or self._began > self._made + LONGEST_WAIT:
            self._open = True
            out += self._passed
            self._passed.clear()

    def _edit(self, entry: _Entry) -> None:
        changes: dict[tuple[int, Any], Any] = {}
        for one in entry.said:
            if not (edits := one.channel.edits):
                continue
            new = render(one.text, one.at, [edit for _, _, edit in edits])
            end = one.at + len(one.text)
            one.channel.edits = [edit for edit in edits if edit[2][1] > end]
            if new != one.text:
                if entry.tree is None:
                    message = "A guardrail matched a part of the answer that it cannot mask; it was withheld."
                    raise Ends(Refusal(GUARDRAIL_BLOCKED, message))
                changes[id(one.piece.holder), one.piece.key] = new
                if one.piece.beside is not None:
                    holder, key, said = one.piece.beside
                    changes[id(holder), key] = said
        if changes:
            assert entry.frame.data is not None, "it had text"
            entry.frame.edit(rewritten(entry.frame.data, entry.tree, changes), entry.tree)

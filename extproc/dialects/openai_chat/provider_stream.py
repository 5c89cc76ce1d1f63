"""Streamed chat completions, read from providers.

Source: https://platform.openai.com/docs/api-reference/chat-streaming (chunk object)

Differences of other providers of this API, see also `provider_answer.py`: tool calls without an index or all with the
same one (Gemini), usage in every chunk, no `[DONE]` after the last finish reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from extproc.dialects.openai_chat import problem, provider_answer
from extproc.dialects.openai_chat.provider_answer import text_of
from extproc.dialects.openai_chat.shapes import MAX_CHOICES, Body, Said, SaidCall, SaidChoice
from extproc.dialects.openai_chat.usage import read_usage
from extproc.wire.framing import UNREADABLE
from extproc.words.exchange import Usage
from extproc.words.messages import (
    Delta,
    Ended,
    Event,
    Failed,
    Finished,
    Problem,
    Started,
    TextPart,
    ThinkingPart,
    Used,
)


class _Call:
    """An open call; its neutral part begins when its name comes."""

    __slots__ = ("block", "held", "id", "index", "name")

    def __init__(self, index: Any, id: str) -> None:
        self.index, self.id, self.name, self.block = index, id, "", 0
        self.held = ""  # arguments received before the name


class _Reading:
    """State of one choice. `kind` and `block` are the open part's."""

    __slots__ = ("block", "calls", "finished", "index", "kind", "next", "refused")

    def __init__(self, index: int) -> None:
        self.index = index
        self.kind = ""
        self.block = self.next = 0
        self.calls: list[_Call] = []
        self.refused = self.finished = False

    def begin(self, kind: str) -> int:
        """Open a new part, and return its number."""
        self.kind, self.block = kind, self.next
        self.next += 1
        return self.block

    def more(self, kind: Literal["text", "thinking", "refusal"], text: str) -> Delta:
        """A piece of the open part, or of a new part if `kind` differs."""
        return Delta(kind, text, self.block if self.kind == kind else self.begin(kind), self.index)


class Decoder:
    """Reads one stream."""

    def __init__(self) -> None:
        self._choices: dict[int, _Reading] = {}
        self._started = self._over = False
        self._usage: Usage | None = None

    def feed(self, data: bytes, name: str) -> Sequence[Event]:  # noqa: ARG002 - events have no names here
        if self._over:
            return ()
        if data.startswith(b"[DONE]"):
            return self._done()
        try:
            said = provider_answer.read_body(data)
        except UNREADABLE:
            return ()
        events: list[Event] = []
        error = said.error
        if said.object == "error":  # error form of older vLLM
            error = {"message": said.message, "type": said.type, "code": said.code}
        usage = read_usage(provider_answer.find_usage(said))
        if said.choices or usage is not None or error is not None:
            self._start(said, events)
        if error is not None:
            self._use(usage, events)
            return self._fail(problem.read(200, {"error": error}), events)
        for choice in said.choices or ():
            if type(choice.index) is not int or not 0 <= choice.index < MAX_CHOICES:
                continue
            reading = self._choices.get(choice.index)
            if reading is None:
                reading = self._choices[choice.index] = _Reading(choice.index)
            if not reading.finished:
                if choice.delta is not None:
                    _read_delta(reading, choice.delta, choice.logprobs, events)
                if reason := text_of(choice.finish_reason):  # some providers send an empty reason in every chunk
                    if reason in provider_answer.FAILURES:
                        self._use(usage, events)
                        return self._fail(Problem("The provider broke off."), events)
                    _finish(reading, choice, events)
        self._use(usage, events)
        return events

    def end(self) -> Sequence[Event]:
        """Events at the end of the body. Some providers leave out the end marker; an answer is complete if all choices
        are finished.
        """
        if self._over or not self._choices or not all(choice.finished for choice in self._choices.values()):
            return ()
        return self._done()

    def _start(self, said: Body | None, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            if said is None:
                events.append(Started())
            else:
                created = said.created if type(said.created) is int and said.created > 0 else 0
                events.append(Started(text_of(said.id), text_of(said.model), created))

    def _use(self, usage: Usage | None, events: list[Event]) -> None:
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(Used(usage))

    def _fail(self, wrong: Problem, events: list[Event]) -> Sequence[Event]:
        self._over = True
        events.append(Failed(wrong.message, wrong.type, wrong.code))
        return events

    def _done(self) -> Sequence[Event]:
        self._over = True
        events: list[Event] = []
        self._start(None, events)
        for reading in self._choices.values() or (_Reading(0),):
            if not reading.finished:
                _finish(reading, SaidChoice(), events)
        events.append(Ended())
        return events


def _read_delta(reading: _Reading, said: Said, logprobs: Any, events: list[Event]) -> None:
    thinking, text, refusal = provider_answer.words_of(said)
    blocks = provider_answer.blocks_of(said) if said.thinking_blocks else ()
    if thinking:
        events.append(reading.more("thinking", thinking))
    for block in blocks:
        _read_block(reading, block, events, told=bool(thinking))
    if text:
        events.append(reading.more("text", text))
    if refusal:
        reading.refused = True
        events.append(reading.more("refusal", refusal))
    for image in provider_answer.images_of(said.images) if said.images else ():
        if isinstance(image, TextPart):
            events.append(reading.more("text", image.text))
        else:
            number = reading.begin("image")
            events.append(Delta("image", image.data, number, reading.index, media_type=image.media_type))
    if logprobs is not None:
        if events and isinstance(last := events[-1], Delta) and last.choice == reading.index:
            last.logprobs = logprobs
        elif reading.kind == "text":
            events.append(Delta("text", "", reading.block, reading.index, logprobs=logprobs))
    for call in said.tool_calls or ():
        _read_call(reading, call, events)


def _read_block(reading: _Reading, block: ThinkingPart, events: list[Event], *, told: bool) -> None:
    """Read a thinking block. `told`: another field of the chunk has its text. A signature ends the block; its text may
    be in earlier chunks.
    """
    if block.redacted:
        events.append(Delta("thinking", "", reading.begin("redacted"), reading.index, redacted=block.redacted))
    elif block.signature:
        if reading.kind != "thinking":
            events.append(reading.more("thinking", block.text))
        events.append(Delta("thinking", "", reading.block, reading.index, signature=block.signature))
        reading.kind = ""
    elif block.text and not told:
        events.append(reading.more("thinking", block.text))


def _read_call(reading: _Reading, said: SaidCall, events: list[Event]) -> None:
    id, name, arguments = text_of(said.id), "", ""
    if said.function is not None:
        name, arguments = text_of(said.function.name), provider_answer.arguments_of(said.function.arguments)
    signature = provider_answer.signature_of(said.extra_content) if said.extra_content is not None else ""
    call = _known(reading, said.index, id, name)
    if call is None:
        if not (id or name or arguments):
            return
        call = _Call(said.index, id or provider_answer.new_call_id())
        reading.calls.append(call)
    if call.name:
        if arguments or signature:
            events.append(Delta("tool_call", arguments, call.block, reading.index, signature=signature))
        return
    call.held += arguments
    if name:
        call.name, call.block = name, reading.begin("tool_call")
        events.append(Delta("tool_call", call.held, call.block, reading.index, call.id, name, signature))


def _known(reading: _Reading, index: Any, id: str, name: str) -> _Call | None:
    """The open call of a piece: the call with its id, or else the last call with its index. A piece with a new id and a
    name begins another call. An id alone does not, because some providers send a new id with every piece.
    """
    if id:
        for call in reading.calls:
            if call.id == id:
                return call
    for call in reversed(reading.calls):
        if call.index == index:
            return None if id and name and call.name else call
    return None


def _finish(reading: _Reading, said: SaidChoice, events: list[Event]) -> None:
    reading.finished = True
    events += [  # calls without a name.
        Delta("tool_call", call.held, reading.begin("tool_call"), reading.index, call.id)
        for call in reading.calls
        if not call.name
    ]
    reason = provider_answer.reason_of(said.finish_reason, called=bool(reading.calls), refused=reading.refused)
    events.append(Finished(reason, reading.index))

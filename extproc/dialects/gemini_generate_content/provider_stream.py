"""A streamed answer: each event is a GenerateContentResponse with more parts of its candidates.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent

There is no end marker: an answer is complete when each candidate has a finish reason. This is decided at the end of the
body, because some models send a finish reason with every event, others only with the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from extproc.dialects._models import gemini
from extproc.dialects.gemini_generate_content import problem
from extproc.dialects.gemini_generate_content.partial import values
from extproc.dialects.gemini_generate_content.provider_answer import image_of
from extproc.dialects.gemini_generate_content.shapes import (
    MOST_CHOICES,
    Candidate,
    FunctionCall,
    Response,
    arguments,
    call_id,
    finish_reason,
    logprobs,
    seconds,
)
from extproc.dialects.gemini_generate_content.signature import mark
from extproc.dialects.gemini_generate_content.usage import read_usage
from extproc.wire.framing import UNREADABLE
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Event, Failed, Finished, Started, Used
from extproc.words.said import Arguments

_decode = msgspec.json.Decoder(Response).decode
_MIDSTREAM = 500  # status of an error without one


class _Choice:
    """State of a candidate, with its open part."""

    __slots__ = ("arguments", "block", "calls", "finish", "in_row", "index", "open", "unsigned")

    def __init__(self, index: int) -> None:
        self.index = index
        self.block = -1
        self.open = ""  # kind of the open part: text or thinking
        self.calls = False
        self.unsigned = -1  # block of the first consecutive call, until its signature comes
        self.in_row = False  # True: the last part was a call
        self.finish = ""
        self.arguments: Arguments | None = None  # arguments of an incomplete call

    def deltas(self, candidate: Candidate, events: list[Event]) -> None:
        if candidate.finish:
            self.finish = candidate.finish
        likely: Any = logprobs(candidate.logprobs) if candidate.logprobs is not None else None
        for part in (candidate.content.parts or ()) if candidate.content is not None else ():
            signature = part.signature or ""
            if part.call is not None and self._is_part(part.call):
                self._part_of_call(part.call, signature, events)
            elif part.call is not None:
                self.calls, self.open = True, ""
                self.block += 1
                self._begin_call(signature)
                call = part.call
                events.append(
                    Delta(
                        "tool_call",
                        arguments(call),
                        self.block,
                        self.index,
                        call_id(call),
                        call.name or "",
                        signature,
                    )
                )
            elif signature and not part.text and self.unsigned >= 0:  # a late signature of the first call
                events.append(Delta("tool_call", "", self.unsigned, self.index, signature=signature))
                self.unsigned = -1
            elif (image := image_of(part)) is not None:
                self.open, self.unsigned, self.in_row = "", -1, False
                self.block += 1
                events.append(Delta("image", image.data, self.block, self.index, media_type=image.media_type))
            elif part.thought:
                if part.text or signature:
                    self._open_part("thinking")
                    events.append(Delta("thinking", part.text or "", self.block, self.index, signature=mark(signature)))
                    if signature:
                        self.open = ""
            else:
                first = self.open != "text"  # a signature before its text keeps the text the answer's last block
                if signature and first:
                    self._prove(signature, events)
                if part.text:
                    self._open_part("text")
                    events.append(Delta("text", part.text, self.block, self.index, logprobs=likely))
                    likely = None
                if signature and not first:
                    self._prove(signature, events)

    def _is_part(self, call: FunctionCall) -> bool:
        return call.values is not None or call.more is True or (self.arguments is not None and not call.name)

    def _part_of_call(self, call: FunctionCall, signature: str, events: list[Event]) -> None:
        if call.name or self.arguments is None:
            self.complete_call(events)
            self.calls, self.open, self.arguments = True, "", Arguments()
            self.block += 1
            self._begin_call(signature)
            events.append(Delta("tool_call", "", self.block, self.index, call_id(call), call.name or "", signature))
        for path, value, _, _ in values(call.values):
            self.arguments.put(path, value)
        if call.more is not True:
            self.complete_call(events)

    def complete_call(self, events: list[Event]) -> None:
        """Write the arguments of a call that came in pieces."""
        if self.arguments is not None:
            text = msgspec.json.encode(self.arguments.tree()).decode()
            events.append(Delta("tool_call", text, self.block, self.index))
            self.arguments = None

    def _prove(self, signature: str, events: list[Event]) -> None:
        self.open = ""
        self._open_part("thinking")
        events.append(Delta("thinking", "", self.block, self.index, signature=mark(signature)))
        self.open = ""

    def _begin_call(self, signature: str) -> None:
        """Note a call's signature: Google signs the first of consecutive calls."""
        if signature or not self.in_row:
            self.unsigned = -1 if signature else self.block
        self.in_row = True

    def _open_part(self, kind: str) -> None:
        self.unsigned, self.in_row = -1, False
        if self.open != kind:
            self.block += 1
            self.open = kind


class Decoder:
    """Reads the events of one stream."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._started = False
        self._over = False
        self._usage: Usage | None = None

    def feed(self, data: bytes, name: str) -> Sequence[Event]:  # noqa: ARG002 - its events have no names
        if self._over:
            return ()
        try:
            response = _decode(data)
        except UNREADABLE:
            return ()
        if response.error is not None:
            self._over = True
            error = problem.read(_MIDSTREAM, response.error)
            return (Failed(error.message, error.type, error.code),)
        events: list[Event] = []
        usage = read_usage(response.usage)
        block = response.feedback.block if response.feedback is not None else None
        if not self._started:
            if not (response.candidates or usage or block or response.id or response.model):
                return ()
            self._started = True
            model = response.model or ""
            late = gemini(model).signed_calls
            events.append(Started(response.id or "", model, seconds(response.created), usage, proves_late=late))
        for place, candidate in enumerate(response.candidates or ()):
            index = place if candidate.index is None else candidate.index
            if 0 <= index < MOST_CHOICES:
                self._choice(index).deltas(candidate, events)
        if block:
            for choice in self._choices.values() or (self._choice(0),):
                choice.finish = choice.finish or block
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(Used(usage))
        return events

    def end(self) -> Sequence[Event]:
        choices = list(self._choices.values())
        if self._over or not choices or not all(choice.finish for choice in choices):
            return ()
        self._over = True
        events: list[Event] = []
        for one in choices:
            one.complete_call(events)
        events += [Finished(finish_reason(one.finish, calls=one.calls), one.index) for one in choices]
        events.append(Ended())
        return events

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index)
        return choice

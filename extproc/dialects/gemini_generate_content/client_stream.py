"""Streamed answers, written for clients: each event is a GenerateContentResponse with more parts of one candidate.

A tool call is one part, so its arguments are held until they are complete. Finish reasons and usage are in the last
events.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects.gemini_generate_content import problem
from extproc.dialects.gemini_generate_content.client_answer import (
    call,
    encode_logprobs,
    finish_reason,
    named,
    thought,
)
from extproc.dialects.gemini_generate_content.usage import write_usage
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Event, Failed, Finished, Started, Used

_encode = msgspec.json.Encoder().encode
_MIDSTREAM = 500


class Encoder:
    """Writes Google's stream events."""

    __slots__ = ("_calls", "_finished", "_named", "_refused", "_thinks", "_usage")

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._usage: Usage | None = None
        self._finished: dict[int, Finished] = {}
        self._refused: set[int] = set()
        self._thinks = (-1, -1)  # choice and block of the latest thinking
        self._calls: dict[tuple[int, int], Delta] = {}  # open calls, by choice and block

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Delta):
            return self._say(event)
        if isinstance(event, Started):
            self._named = named(event.model, event.id)
            self._usage = event.usage
        elif isinstance(event, Used):
            self._usage = event.usage
        elif isinstance(event, Finished):
            self._finished[event.choice] = event
        elif isinstance(event, Failed):
            return _frame(problem.encode_error(_MIDSTREAM, event.message, event.type, event.code))
        elif isinstance(event, Ended):
            return self._end()
        return b""

    def _say(self, event: Delta) -> bytes:
        at = event.choice, event.block
        if event.kind == "tool_call":
            if (begun := self._calls.get(at)) is None:
                self._calls[at] = event
                return b""
            begun.text += event.text
            begun.signature = begun.signature or event.signature
            return b""
        head = self._flush(event.choice)
        if event.kind == "image":
            part: dict[str, Any] = {"inlineData": {"mimeType": event.media_type or "image/png", "data": event.text}}
        elif event.kind == "thinking":
            if not (event.text or event.signature or event.redacted):
                return head
            begins = at != self._thinks
            self._thinks = at
            part = thought(event.text, event.signature, event.redacted, begins=begins)
        elif event.text:
            part = {"text": event.text}
            if event.kind == "refusal":
                self._refused.add(event.choice)
        else:
            return head
        return head + self._part(event.choice, part, encode_logprobs(event.logprobs) if event.logprobs else {})

    def _part(self, choice: int, part: dict[str, Any], more: dict[str, Any]) -> bytes:
        candidate = {"content": {"parts": [part], "role": "model"}, "index": choice, **more}
        return _frame({"candidates": [candidate], **self._named})

    def _flush(self, choice: int) -> bytes:
        """Calls of a choice that are complete, because another part follows."""
        if not self._calls:
            return b""
        whole = [at for at in self._calls if at[0] == choice]
        return b"".join([self._call(self._calls.pop(at)) for at in whole])

    def _call(self, event: Delta) -> bytes:
        return self._part(event.choice, call(event.id, event.name, event.text, event.signature), {})

    def _end(self) -> bytes:
        calls = [self._call(event) for event in self._calls.values()]
        ends = [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": finish_reason(one.reason, refused=choice in self._refused),
                "index": choice,
            }
            for choice, one in (self._finished or {0: Finished()}).items()
        ]
        last: dict[str, Any] = {"candidates": ends}
        if self._usage is not None:
            last["usageMetadata"] = write_usage(self._usage)
        return b"".join(calls) + _frame({**last, **self._named})


def _frame(response: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encode(response)

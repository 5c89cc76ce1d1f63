"""Streamed responses, read from providers.

Source: https://developers.openai.com/api/reference/resources/responses/streaming-events

Complete items, at their end or in the last response, are read only if their pieces never came: some providers leave out
the deltas, the items, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from extproc.dialects._turns import apart
from extproc.dialects.openai_responses import problem, provider_answer
from extproc.dialects.openai_responses.provider_answer import text_of
from extproc.dialects.openai_responses.shapes import Body, Output
from extproc.dialects.openai_responses.usage import billed
from extproc.wire.framing import UNREADABLE
from extproc.words.messages import Delta, Ended, Event, Finished, Started, Used

_Kind = Literal["text", "thinking", "tool_call", "refusal"]


class _Said(Struct):
    type: Any = None
    delta: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    item: Output | None = None
    response: Body | None = None
    logprobs: Any = None
    error: Any = None
    code: Any = None
    message: Any = None


FIELDS = frozenset(_Said.__struct_encode_fields__)
_read = msgspec.json.Decoder(_Said).decode
_KINDS: dict[str, _Kind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "tool_call",
    "response.reasoning_summary_text.delta": "thinking",
    "response.reasoning_text.delta": "thinking",
}
_ENDS = frozenset(("response.completed", "response.incomplete"))


class _Block:
    """A part of the answer. For a thought, `said` is the event type with its text, and `paragraph` the piece of it."""

    __slots__ = ("number", "paragraph", "said", "signed", "told")

    def __init__(self, number: int) -> None:
        self.number = number
        self.told = self.signed = False
        self.said = ""
        self.paragraph = 0


class Decoder:
    """Reads one stream."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, _Kind, int], _Block] = {}
        self._started = self._over = self._called = self._refused = False
        self._message = -1  # index of the latest item with text

    def feed(self, data: bytes, name: str) -> Sequence[Event]:  # noqa: ARG002 - the type stands in the data too
        if self._over:
            return ()
        try:
            said = _read(data)
        except UNREADABLE:
            return ()
        kind = text_of(said.type)
        events: list[Event] = []
        if (of := _KINDS.get(kind)) is not None:
            self._delta(of, kind, said, events)
        elif kind in _ENDS:
            self._end(said.response or Body(), kind, events)
        elif kind == "error":
            self._fail(said.error if said.error is not None else {"code": said.code, "message": said.message}, events)
        elif kind in ("response.failed", "response.cancelled"):
            self._fail((said.response or Body()).error, events)
        elif not kind and said.error is not None:  # an error answer in mid-stream
            self._fail(said.error, events)
        elif said.response is not None:
            self._start(said.response, events)
        elif said.item is not None:
            index = _index(said.output_index)
            if kind == "response.output_item.added":
                self._start_item(index, said.item, events)
            elif kind == "response.output_item.done":
                self._item(index, said.item, events)
        return events

    def end(self) -> Sequence[Event]:
        return ()

    def _start(self, said: Body, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            events.append(Started(text_of(said.id), text_of(said.model), provider_answer.created_of(said)))

    def _fail(self, error: Any, events: list[Event]) -> None:
        self._start(Body(), events)
        self._over = True
        events.append(problem.read(error))

    def _end(self, said: Body, kind: str, events: list[Event]) -> None:
        if said.error is not None:
            self._fail(said.error, events)
            return
        self._start(said, events)
        self._over = True
        for index, item in enumerate(said.output or ()):
            self._item(index, item, events)
        if kind == "response.incomplete":
            said.status = "incomplete"
        events.append(Finished(provider_answer.reason_of(said, called=self._called, refused=self._refused)))
        if (usage := billed(said)) is not None:
            events.append(Used(usage))
        events.append(Ended())

    # --- parts

    def _block(self, key: tuple[int, _Kind, int]) -> _Block:
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(len(self._blocks))
        return block

    def _delta(self, kind: _Kind, type: str, said: _Said, events: list[Event]) -> None:
        text = text_of(said.delta)
        logprobs = said.logprobs if kind == "text" and isinstance(said.logprobs, list) and said.logprobs else None
        if not text and logprobs is None:
            return
        index = _index(said.output_index)
        key = (index, kind, _index(said.content_index) if kind in ("text", "refusal") else 0)
        if kind == "tool_call" and key not in self._blocks:
            return  # the tool's name is unknown; the end of the item has the whole call
        self._start(Body(), events)
        block = self._block(key)
        if kind == "thinking":
            block.said = block.said or type
            if block.said != type:
                return  # thinking itself, already read as a summary
            paragraph = _index(said.summary_index if said.summary_index is not None else said.content_index)
            if block.told and paragraph != block.paragraph:
                text = f"\n\n{text}"
            block.paragraph = paragraph
        elif kind == "refusal":
            self._refused = True
        elif kind == "text":
            text = self._apart(index, text)
        block.told = True
        events.append(Delta(kind, text, block.number, logprobs=provider_answer.chat_logprobs(logprobs or ())))

    def _start_item(self, index: int, item: Output, events: list[Event]) -> None:
        key: tuple[int, _Kind, int] = (index, "tool_call", 0)
        if item.type != "function_call" or key in self._blocks:
            return
        self._start(Body(), events)
        self._called = True
        block = self._block(key)
        id, name, namespace = provider_answer.call_id(item), text_of(item.name), text_of(item.namespace)
        events.append(Delta("tool_call", "", block.number, 0, id, name, namespace=namespace))

    def _item(self, index: int, item: Output, events: list[Event]) -> None:
        """Add content of a complete item that its pieces did not have."""
        if item.type == "function_call":
            self._start_item(index, item, events)
            self._rest((index, "tool_call", 0), text_of(item.arguments), events)
        elif item.type == "reasoning":
            self._rest((index, "thinking", 0), provider_answer.thought_of(item), events)
            signature = provider_answer.signature_of(item)
            if signature and not (block := self._block((index, "thinking", 0))).signed:
                self._start(Body(), events)
                block.signed = True
                events.append(Delta("thinking", "", block.number, signature=signature))
        elif item.type == "message":
            for number, piece in enumerate(provider_answer.pieces(item.content)):
                self._rest((index, "text", number), text_of(piece.get("text")), events)
                refusal = text_of(piece.get("refusal"))
                self._refused |= bool(refusal)
                self._rest((index, "refusal", number), refusal, events)

    def _rest(self, key: tuple[int, _Kind, int], text: str, events: list[Event]) -> None:
        if text and ((block := self._blocks.get(key)) is None or not block.told):
            self._start(Body(), events)
            block = self._block(key)
            block.told = True
            text = self._apart(key[0], text) if key[1] == "text" else text
            events.append(Delta(key[1], text, block.number))

    def _apart(self, index: int, text: str) -> str:
        """`text` of the item `index`, behind a blank line if it begins another message."""
        before, self._message = self._message, index
        return text if before in (-1, index) or not text else apart(text)


def _index(value: Any) -> int:
    return value if type(value) is int else 0

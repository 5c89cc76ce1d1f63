"""Streamed responses, written for clients.

Source: https://developers.openai.com/api/reference/resources/responses/streaming-events

Items are written one after the other. Only tool calls stay open together until the end, because their arguments may be
interleaved.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.dialects.openai_responses import client_answer, custom, problem, signature
from extproc.dialects.openai_responses.shapes import new_id
from extproc.dialects.openai_responses.usage import write_usage
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Event, Failed, Finished, FinishReason, Started, Used

_write = msgspec.json.Encoder().encode


class _Message:
    """An open message; `pieces` are the current part's."""

    __slots__ = ("block", "content", "id", "index", "kind", "logprobs", "pieces")

    def __init__(self, index: int) -> None:
        self.id, self.index = new_id("msg"), index
        self.content: list[dict[str, Any]] = []
        self.block, self.kind = -1, ""
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []


class _Thought:
    __slots__ = ("block", "id", "index", "pieces", "redacted", "signature")

    def __init__(self, index: int, block: int) -> None:
        self.id, self.index, self.block = new_id("rs"), index, block
        self.pieces: list[str] = []
        self.signature = self.redacted = ""


class _Call:
    """An open call. It is not sent while its arguments may be a custom tool's: until then `index` is -1."""

    __slots__ = ("id", "index", "item", "name", "namespace", "pieces", "signed")

    def __init__(self, id: str, name: str, namespace: str) -> None:
        self.item, self.index = new_id("fc"), -1
        self.id, self.name, self.namespace = id, name, namespace
        self.pieces: list[str] = []
        self.signed = False


class Encoder:
    """Writes one stream, of the first choice only, because this API has one."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._number = 0
        self._next = 0  # index of the next item in the output
        self._open: _Message | _Thought | None = None
        self._calls: dict[int, _Call] = {}
        self._done: dict[int, dict[str, Any]] = {}
        self._usage: Usage | None = None
        self._reason: FinishReason = "stop"
        self._refused = self._closed = False

    def feed(self, event: Event) -> bytes:
        out: list[bytes] = []
        if isinstance(event, Started):
            self._start(event, out)
        elif not self._head:
            self._start(Started(), out)
        if isinstance(event, Delta):
            if event.choice == 0 and not self._closed:
                self._delta(event, out)
        elif isinstance(event, Used):
            self._usage = event.usage
        elif isinstance(event, Finished):
            if event.choice == 0:
                self._reason = event.reason
                self._close(out)
        elif isinstance(event, Failed):
            self._fail(event, out)
        elif isinstance(event, Ended):
            self._end(out)
        return b"".join(out)

    def _say(self, out: list[bytes], type: str, fields: Mapping[str, Any]) -> None:
        data = _write({"type": type, "sequence_number": self._number, **fields})
        self._number += 1
        out.append(b"event: %b\ndata: %b\n\n" % (type.encode(), data))

    # --- the response

    def _start(self, event: Started, out: list[bytes]) -> None:
        if self._head:
            return
        id = client_answer.new_response_id(event.id)
        self._head = client_answer.response(id, event.model, event.created or int(time.time()))
        self._say(out, "response.created", {"response": self._head})
        self._say(out, "response.in_progress", {"response": self._head})

    def _response(self, **fields: Any) -> dict[str, Any]:
        """The response with all finished items."""
        usage = None if self._usage is None else write_usage(self._usage)
        output = [self._done[index] for index in sorted(self._done)]
        return {**self._head, "output": output, "usage": usage, **fields}

    def _end(self, out: list[bytes]) -> None:
        self._close(out)
        status, why = client_answer.outcome(self._reason, refused=self._refused)
        said = self._response(status=status, incomplete_details=why)
        self._say(out, f"response.{status}", {"response": said})

    def _fail(self, event: Failed, out: list[bytes]) -> None:
        """End of a failed response, in OpenAI's order: the error, which makes its SDK raise, then the failed
        response.
        """
        self._say(out, "error", problem.of_event(event))
        said = self._response(status="failed", error=problem.of_response(event))
        self._say(out, "response.failed", {"response": said})

    # --- items

    def _add(self, out: list[bytes], item: dict[str, Any], index: int) -> None:
        self._say(out, "response.output_item.added", {"output_index": index, "item": item})

    def _finish(self, out: list[bytes], item: dict[str, Any], index: int) -> None:
        self._done[index] = item
        self._say(out, "response.output_item.done", {"output_index": index, "item": item})

    def _next_index(self) -> int:
        self._next += 1
        return self._next - 1

    def _delta(self, event: Delta, out: list[bytes]) -> None:
        if event.kind == "tool_call":
            self._call(event, out)
        elif event.kind == "thinking":
            self._think(event, out)
        elif event.kind == "image":
            self._close_item(out)
            index, item = self._next_index(), client_answer.image_item(event.text, event.media_type)
            self._add(out, {**item, "status": "in_progress", "result": None}, index)
            self._finish(out, item, index)
        else:
            self._write(event, out)

    def _close(self, out: list[bytes]) -> None:
        """Close all open items, with calls in order. The item open when the answer broke off is incomplete."""
        if self._closed:
            return
        self._closed = True
        last = client_answer.outcome(self._reason, refused=self._refused)[0]
        calls = list(self._calls.values())
        self._close_item(out, "completed" if calls else last)
        for call in calls:
            self._close_call(call, out, last if call is calls[-1] else "completed")

    def _close_item(self, out: list[bytes], status: str = "completed") -> None:
        item, self._open = self._open, None
        if isinstance(item, _Message):
            self._close_part(item, out)
            self._finish(out, client_answer.message_item(item.id, item.content, status), item.index)
        elif isinstance(item, _Thought):
            self._close_thought(item, out)

    # --- text and refusals

    def _write(self, event: Delta, out: list[bytes]) -> None:
        message = self._open
        if not isinstance(message, _Message) or message.block != event.block:
            message = self._begin_part(event, out)
        kind = message.kind
        if event.text or event.logprobs is not None:
            fields: dict[str, Any] = {
                "item_id": message.id,
                "output_index": message.index,
                "content_index": len(message.content),
                "delta": event.text,
            }
            if kind == "output_text":
                found = client_answer.write_logprobs(event.logprobs) if event.logprobs is not None else []
                message.logprobs += found
                fields["logprobs"] = found
            message.pieces.append(event.text)
            self._say(out, f"response.{kind}.delta", fields)

    def _begin_part(self, event: Delta, out: list[bytes]) -> _Message:
        message = self._open
        if isinstance(message, _Message):
            self._close_part(message, out)
        else:
            self._close_item(out)
            message = self._open = _Message(self._next_index())
            self._add(out, client_answer.message_item(message.id, [], "in_progress"), message.index)
        message.block = event.block
        message.kind = "output_text" if event.kind == "text" else "refusal"
        self._refused |= event.kind == "refusal"
        self._say(out, "response.content_part.added", self._part(message, _piece(message, "")))
        return message

    def _close_part(self, message: _Message, out: list[bytes]) -> None:
        text = "".join(message.pieces)
        fields: dict[str, Any] = {
            "item_id": message.id,
            "output_index": message.index,
            "content_index": len(message.content),
        }
        if message.kind == "output_text":
            fields |= {"text": text, "logprobs": message.logprobs}
        else:
            fields["refusal"] = text
        self._say(out, f"response.{message.kind}.done", fields)
        piece = _piece(message, text)
        self._say(out, "response.content_part.done", self._part(message, piece))
        message.content.append(piece)
        message.pieces, message.logprobs = [], []

    def _part(self, message: _Message, piece: dict[str, Any]) -> dict[str, Any]:
        return {
            "item_id": message.id,
            "output_index": message.index,
            "content_index": len(message.content),
            "part": piece,
        }

    # --- thinking

    def _think(self, event: Delta, out: list[bytes]) -> None:
        thought = self._open
        if not isinstance(thought, _Thought) or thought.block != event.block:
            self._close_item(out)
            thought = self._open = _Thought(self._next_index(), event.block)
            self._add(out, client_answer.reasoning_item(thought.id, "", None), thought.index)
        thought.signature += event.signature
        thought.redacted += event.redacted
        if event.text:
            where = {"item_id": thought.id, "output_index": thought.index, "summary_index": 0}
            if not thought.pieces:
                self._say(
                    out, "response.reasoning_summary_part.added", {**where, "part": client_answer.summary_piece("")}
                )
            thought.pieces.append(event.text)
            self._say(out, "response.reasoning_summary_text.delta", {**where, "delta": event.text})

    def _close_thought(self, thought: _Thought, out: list[bytes]) -> None:
        text = "".join(thought.pieces)
        if text:
            where = {"item_id": thought.id, "output_index": thought.index, "summary_index": 0}
            self._say(out, "response.reasoning_summary_text.done", {**where, "text": text})
            self._say(out, "response.reasoning_summary_part.done", {**where, "part": client_answer.summary_piece(text)})
        carried = signature.pack(thought.signature, thought.redacted)
        self._finish(out, client_answer.reasoning_item(thought.id, text, carried), thought.index)

    # --- calls

    def _call(self, event: Delta, out: list[bytes]) -> None:
        call = self._calls.get(event.block)
        if call is None:
            self._close_item(out)
            call = self._calls[event.block] = _Call(event.id or new_id("call"), event.name, event.namespace)
        if event.signature and not call.signed:
            call.signed = True
            item = client_answer.reasoning_item(new_id("rs"), "", signature.pack(calls={call.id: event.signature}))
            index = self._next_index()
            self._add(out, item, index)
            self._finish(out, item, index)
        if not event.text:
            return
        call.pieces.append(event.text)
        if call.index >= 0:
            self._say_arguments(call, event.text, out)
        elif not custom.may_be(begun := "".join(call.pieces)):
            self._begin_function(call, begun, out)

    def _begin_function(self, call: _Call, begun: str, out: list[bytes]) -> None:
        call.index = self._next_index()
        self._add(out, client_answer.function_item(call.item, call, "", "in_progress"), call.index)
        self._say_arguments(call, begun, out)

    def _say_arguments(self, call: _Call, text: str, out: list[bytes]) -> None:
        fields = {"item_id": call.item, "output_index": call.index, "delta": text}
        self._say(out, "response.function_call_arguments.delta", fields)

    def _close_call(self, call: _Call, out: list[bytes], status: str) -> None:
        arguments = "".join(call.pieces) or "{}"
        if call.index < 0 and (input := custom.input_of(arguments)) is not None:
            self._custom(call, input, status, out)
            return
        if call.index < 0:
            self._begin_function(call, arguments, out)
        fields = {"item_id": call.item, "output_index": call.index, "name": call.name, "arguments": arguments}
        self._say(out, "response.function_call_arguments.done", fields)
        item = client_answer.function_item(call.item, call, arguments, status)
        self._finish(out, item, call.index)

    def _custom(self, call: _Call, input: str, status: str, out: list[bytes]) -> None:
        id, index = new_id("ctc"), self._next_index()
        where = {"item_id": id, "output_index": index}
        self._add(out, client_answer.custom_item(id, call, "", "in_progress"), index)
        self._say(out, "response.custom_tool_call_input.delta", {**where, "delta": input})
        self._say(out, "response.custom_tool_call_input.done", {**where, "input": input})
        self._finish(out, client_answer.custom_item(id, call, input, status), index)


def _piece(message: _Message, text: str) -> dict[str, Any]:
    if message.kind == "output_text":
        return client_answer.text_piece(text, message.logprobs)
    return client_answer.refusal_piece(text)

"""APIs that pass without translation: the model is read and written, guardrails get texts, and usage is read from
answers that have it.

A form is found by its boundary alone (`framing.multipart`) and patched. The first two bytes distinguish forms from
JSON, so the attempt attachment needs no content type.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from extproc.dialects import _media, _replies, _usual, read_flag, read_integer, read_model
from extproc.dialects._observer import Observer
from extproc.dialects.openai_chat.usage import read_usage
from extproc.wire.framing.multipart import files_in
from extproc.words.api import AnswerFacts, Endpoints, Offers
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Endpoint, Fields, Report, Text
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.exchange import Usage
from extproc.words.said import Closed, Piece, loose


class _Answer(msgspec.Struct):
    model: Any = None
    usage: Any = None


def passed_fields(*text: str, **more: Any) -> Fields:
    """`Fields` of an API with text input in the fields `text`."""
    found: dict[str, Any] = {
        "model": "model",
        "fixed": ("model", *text),
        "output_limits": (),
        "needs": {},
        "spoken": frozenset(text),
        "files": frozenset(),
        "opaque": frozenset(),
    }
    return Fields(**found | more)


def add_files(ask: Ask, body: Mapping[str, Any]) -> None:
    """Note a form's files: bytes, tokens, and a file that guardrails cannot read."""
    for name, file in files_in(body):
        ask.file_bytes += file.size
        ask.packed_bytes += file.size
        if file.kind == "image":
            ask.file_tokens += _media.image_tokens(b64encode(file.head).decode())
        elif file.kind == "audio":
            ask.file_tokens += file.size // _media.BYTES_OF_AUDIO + 1
        else:
            ask.file_tokens += file.size
        if not file.known:
            ask.unreadable = name


def form_flag(body: Mapping[str, Any], name: str) -> bool:
    """An optional boolean of a request that may be a form. Raises Refusal (400)."""
    value = body.get(name)
    if value in ("true", "false"):
        return bool(value == "true")
    return read_flag(body, name)


def form_integer(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """An optional whole number of a request that may be a form. Raises Refusal (400)."""
    value = body.get(name)
    if isinstance(value, str) and value.isdecimal() and len(value) < _DIGITS:
        return read_integer({name: int(value)}, name, least, most)
    return read_integer(body, name, least, most)


_DIGITS = 10


class Passed:
    """Base of an API without translation. A subclass names its endpoints, its fields, and its differences."""

    name: str
    family = "passed"
    endpoints: Endpoints
    fields: Fields
    answers = AnswerFacts(usage_at=(("usage",),))
    offers = Offers()
    replies = _replies.openai
    translation = None
    text: ClassVar[str]
    """Required field of the input."""
    usual_model: ClassVar[str] = ""
    """Model of a request without one; empty: a model is required."""
    quiet: ClassVar[frozenset[str]] = frozenset(("id", "object", "model", "type"))
    """Fields of an answer without a model's words."""
    shape: ClassVar[Any] = _Answer
    """Struct of an answer or an event, for `read_answer`."""
    counts_unread: ClassVar[bool] = False  # see `Observer`

    def __init__(self) -> None:
        observer = Observer(self.shape, self.read_answer, counts_unread=self.counts_unread)
        self.observe, self.observe_edges = observer.observe, observer.observe_edges

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        model = read_model(body) if "model" in body or not self.usual_model else self.usual_model
        if not isinstance(body.get(self.text), str | list) or not body[self.text]:
            message = f"'{self.text}' must be a string or a list, not empty."
            raise Refusal(INVALID_REQUEST, message, param=self.text)
        return Ask(model=model)

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return _usual.texts(body, self.fields)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        asked = body.get(self.text)
        return Conversation(asked=[asked] if isinstance(asked, str) else [])

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, self.text: "Hello"}

    def said(self, event: Any) -> Iterator[Piece | Closed]:
        yield from loose(event, "answer", self.quiet)

    def usage(self, said: Any) -> Usage | None:
        """Usage from a usage object; None without plausible counts."""
        return read_usage(said)

    def read_answer(self, answer: Any, report: Report) -> bool:
        """Add an answer to a report. True if it has only usage."""
        if isinstance(answer.model, str) and answer.model:
            report.model = answer.model
        if answer.usage is not None:
            report.add_usage(self.usage(answer.usage))
        return False

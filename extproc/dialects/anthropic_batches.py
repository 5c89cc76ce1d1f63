"""Anthropic's batches of messages. They tell counts of requests; the usage stands in their results.

Sources: https://platform.claude.com/docs/en/build-with-claude/batch-processing,
https://platform.claude.com/docs/en/api/messages/batches/create,
https://platform.claude.com/docs/en/api/messages/batches/results
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import msgspec

from extproc.dialects import anthropic_messages, is_id, token_count
from extproc.dialects._named import EACH
from extproc.dialects._requests import Requests, fields_of, objects_of
from extproc.dialects.openai_files import KeptObjects
from extproc.wire.framing import UNREADABLE
from extproc.words.api import ClientAPI, Endpoints
from extproc.words.dialect import ID, Report
from extproc.words.late import Late, Progress

_BATCH = "/v1/messages/batches/{id}"
_ENDED = "ended"
_AT = ("requests", EACH, "params")


class _Counts(msgspec.Struct):
    succeeded: Any = None


class _Batch(msgspec.Struct):
    id: Any = None
    type: Any = None
    processing_status: Any = None
    request_counts: _Counts | None = None


class _Result(msgspec.Struct):
    type: Any = None
    message: msgspec.Raw = msgspec.Raw(b"")


class _Line(msgspec.Struct):
    result: _Result | None = None


_decode = msgspec.json.Decoder(_Batch).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def _read_progress(data: bytes) -> Progress | None:
    try:
        batch = _decode(data)
    except UNREADABLE:
        return None
    if batch.processing_status != _ENDED:
        return Progress(ended=False)
    answered = None if batch.request_counts is None else token_count(batch.request_counts.succeeded)
    results = [f"{_BATCH}/results".replace(ID, batch.id)] if is_id(batch.id) else []
    return Progress(ended=True, answered=answered, results=results)


def _read_line(data: bytes) -> Report | None:
    try:
        result = _decode_line(data).result
    except UNREADABLE:
        return None
    if result is None or result.type != "succeeded":
        return None
    report = Report()
    anthropic_messages.observe(bytes(result.message), report)
    return report


class AnthropicBatches(Requests):
    name = "anthropic_batches"
    endpoints = Endpoints(
        paths={"/v1/messages/batches": "create_batch"},
        version=anthropic_messages.endpoints.version,
        calls={
            ("GET", _BATCH): "retrieve_batch",
            ("DELETE", _BATCH): "delete_batch",
            ("POST", f"{_BATCH}/cancel"): "cancel_batch",
            ("GET", f"{_BATCH}/results"): "download_results",
        },
    )
    fields = fields_of(anthropic_messages.fields, *_AT, name="requests")
    offers = replace(
        KeptObjects.offers,
        stored=replace(
            KeptObjects.offers.stored,
            objects=objects_of(anthropic_messages.ask.OBJECTS, *_AT),
            renamed=lambda body, model: {
                "requests": [{**each, "params": {**each["params"], "model": model}} for each in body["requests"]]
            },
            late=Late(_BATCH, _read_progress, _read_line),
            link=f"{_BATCH}/results",
        ),
    )
    replies = anthropic_messages.replies
    single: ClassVar[ClientAPI] = anthropic_messages
    shape = _Batch
    text = "requests"
    at = _AT

    def listed(self, body: Mapping[str, Any]) -> Any:
        return body.get("requests")

    def read_answer(self, answer: Any, report: Report) -> bool:
        if answer.type in ("message_batch", "message_batch_deleted") and isinstance(answer.id, str):
            report.kept = [answer.id]
            if answer.type == "message_batch":
                report.pending = answer.id
                if answer.processing_status == _ENDED:
                    report.finish_reasons[0] = _ENDED
        return False


CLIENT = AnthropicBatches()

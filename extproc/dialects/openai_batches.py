"""OpenAI's batches: the requests of a file, answered within a day. The file decides the model and the provider.

Sources: https://developers.openai.com/api/reference/resources/batches,
https://developers.openai.com/api/reference/resources/batches/methods/create (the lines of an output file)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from extproc.dialects import azure, is_id, openai_chat, openai_responses, token_count
from extproc.dialects._passed import passed_fields
from extproc.dialects.openai_files import KeptObjects, Object
from extproc.dialects.openai_responses.usage import read_usage
from extproc.wire.framing import UNREADABLE
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint, Report
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.late import Late, Progress

_ENDED = ("completed", "failed", "expired", "cancelled")
_CONTENT = "/v1/files/{}/content"


class _Counts(msgspec.Struct):
    completed: Any = None


class _Batch(Object):
    status: Any = None
    usage: Any = None
    request_counts: _Counts | None = None


class _Answer(msgspec.Struct):
    status_code: Any = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _Line(msgspec.Struct):
    response: _Answer | None = None


class _Kind(msgspec.Struct):
    object: Any = None


_decode = msgspec.json.Decoder(_Batch).decode
_decode_line = msgspec.json.Decoder(_Line).decode
_kind = msgspec.json.Decoder(_Kind).decode


def _read_progress(data: bytes) -> Progress | None:
    try:
        batch = _decode(data)
    except UNREADABLE:
        return None
    if batch.status not in _ENDED:
        return Progress(ended=False)
    counts = batch.request_counts
    answered = None if counts is None else token_count(counts.completed)
    if batch.status == "failed" and not batch.output_file_id:  # the provider refused the whole file
        answered = 0
    usage = read_usage(batch.usage)  # batches before September 2025 have no usage
    told = None if usage is None or not usage.total_tokens else Report(usage=usage)
    results = [_CONTENT.format(batch.output_file_id)] if is_id(batch.output_file_id) else []
    return Progress(ended=True, answered=answered, report=told, results=results)


def _read_line(data: bytes) -> Report | None:
    try:
        answer = _decode_line(data).response
        if answer is None or answer.status_code != 200:
            return None
        kind, report = _kind(answer.body).object, Report()
    except UNREADABLE:
        return None
    # Embeddings and completions have the usage fields of chats.
    api = openai_responses if kind == "response" else openai_chat
    api.observe(bytes(answer.body), report)
    return report


class OpenAIBatches(KeptObjects):
    name = "openai_batches"
    endpoints = Endpoints(
        paths={"/v1/batches": "create_batch"},
        aliases={alias: path for alias, path in azure("/v1/batches").items() if "{" not in alias},
        calls={
            ("GET", "/v1/batches/{id}"): "retrieve_batch",
            ("POST", "/v1/batches/{id}/cancel"): "cancel_batch",
        },
    )
    fields = passed_fields("input_file_id", "endpoint", needs={"state": ("input_file_id",)})
    offers = replace(
        KeptObjects.offers,
        stored=replace(KeptObjects.offers.stored, late=Late("/v1/batches/{id}", _read_progress, _read_line)),
    )
    shape = _Batch
    text = "input_file_id"

    def read_answer(self, answer: Any, report: Report) -> bool:
        if answer.object == "batch" and isinstance(answer.id, str):
            report.pending = answer.id
            if answer.status in _ENDED:
                report.finish_reasons[0] = answer.status
        return super().read_answer(answer, report)

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        if not isinstance(body.get("input_file_id"), str):
            raise Refusal(INVALID_REQUEST, "'input_file_id' must be the id of a file.", param="input_file_id")
        ask = Ask(model="", lasting=True, batch=True)  # the file's id decides the model
        ask.needs["state"] = "input_file_id"
        return ask


CLIENT = OpenAIBatches()

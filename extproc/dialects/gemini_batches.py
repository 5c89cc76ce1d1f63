"""Gemini's batches of generateContent, with their requests in the body. The answers stand in the batch itself.

Batches whose requests come from a file, and those of Vertex AI, which read and write Cloud Storage, are not served.

Sources: https://ai.google.dev/api/batch-api, https://ai.google.dev/gemini-api/docs/batch-api
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import field

from extproc.dialects import gemini_generate_content, token_count
from extproc.dialects._conversation import inner
from extproc.dialects._named import EACH
from extproc.dialects._requests import Requests, fields_of, objects_of
from extproc.dialects.openai_files import KeptObjects
from extproc.wire.framing import UNREADABLE
from extproc.words.api import ClientAPI, Naming, Stored
from extproc.words.dialect import ID, Destination, Report
from extproc.words.late import Late, Progress

_AT = ("batch", "inputConfig", "requests", "requests", EACH, "request")
_PATHS = f"/v1beta/batches/{ID}", f"/v1/batches/{ID}"
_NAME = "batches/"
_DIGITS = 10
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class _Stats(msgspec.Struct):
    answered: Any = field(name="successfulRequestCount", default="0")  # int64 as a string; a zero is left out


class _Response(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"")


class _Responses(msgspec.Struct):
    each: list[_Response] = field(name="inlinedResponses", default=[])


class _Output(msgspec.Struct):
    responses: _Responses | None = field(name="inlinedResponses", default=None)


class _Metadata(msgspec.Struct):
    state: Any = None
    stats: _Stats | None = field(name="batchStats", default=None)
    output: _Output | None = None


class _Operation(msgspec.Struct):
    """A batch: its state in `metadata`, its answers there or in `response`."""

    name: Any = None
    metadata: _Metadata | None = None
    response: _Output | None = None

    @property
    def ended(self) -> str:
        """The state of a batch that has ended; empty otherwise. It begins with `BATCH_STATE_` or `JOB_STATE_`."""
        state = None if self.metadata is None else self.metadata.state
        last = state.rpartition("_")[2] if isinstance(state, str) else ""
        return last if last in _ENDED else ""


_decode = msgspec.json.Decoder(_Operation).decode
_endpoints = gemini_generate_content.calls("create_batch", "batchGenerateContent")


def _read_progress(data: bytes) -> Progress | None:
    try:
        batch = _decode(data)
    except UNREADABLE:
        return None
    if not batch.ended or batch.metadata is None:
        return Progress(ended=False)
    stats = batch.metadata.stats
    reports: Sequence[Report] = ()
    for output in (batch.response, batch.metadata.output):
        if not reports and output is not None and output.responses is not None:
            reports = [_read(bytes(each.response)) for each in output.responses.each if each.response]
    return Progress(ended=True, answered=None if stats is None else _count(stats.answered), reports=reports)


def _count(told: Any) -> int | None:
    return token_count(int(told) if isinstance(told, str) and told.isdecimal() and len(told) < _DIGITS else told)


def _read(data: bytes) -> Report:
    report = Report()
    gemini_generate_content.observe(data, report)
    return report


def _listed(body: Mapping[str, Any]) -> Any:
    """The list of requests; None where the batch has another input, or none."""
    source = inner(body, "batch", "inputConfig")
    return inner(source, "requests", "requests") if isinstance(source, dict) and len(source) == 1 else None


def for_model(body: dict[str, Any], model: str) -> dict[str, Any]:
    """See `Naming.for_model`."""
    batch, name = body["batch"], gemini_generate_content.for_model
    named = [{**each, "request": name(each["request"], model)} for each in _listed(body)]
    return {**body, "batch": name({**batch, "inputConfig": {"requests": {"requests": named}}}, model)}


def path(destination: Destination, stream: bool) -> str:  # noqa: ARG001
    """See `Naming.path`."""
    return f"/models/{quote(destination.model.removeprefix('models/'), safe='@')}:batchGenerateContent"


class GeminiBatches(Requests):
    name = "gemini_batches"
    endpoints = replace(
        _endpoints,
        aliases={path: own for path, own in _endpoints.aliases.items() if "publishers" not in path},
        names=True,
        calls={
            **{("GET", path): "retrieve_batch" for path in _PATHS},
            **{("DELETE", path): "delete_batch" for path in _PATHS},
            **{("POST", f"{path}:cancel"): "cancel_batch" for path in _PATHS},
        },
    )
    fields = replace(fields_of(gemini_generate_content.fields, *_AT, name="batch"), model=None, fixed=("batch",))
    offers = replace(
        KeptObjects.offers,
        stored=Stored(
            keeps=KeptObjects.offers.stored.keeps,
            objects=objects_of(gemini_generate_content.ask.OBJECTS, *_AT),
            late=Late(f"/v1/{ID}", _read_progress, inside=True),
            hides=True,
        ),
        naming=Naming(spelled=gemini_generate_content.naming.spelled, for_model=for_model, path=path),
    )
    replies = gemini_generate_content.replies
    single: ClassVar[ClientAPI] = gemini_generate_content
    shape = _Operation
    text = "batch"
    at = _AT

    def listed(self, body: Mapping[str, Any]) -> Any:
        return _listed(body)

    def read_answer(self, answer: Any, report: Report) -> bool:
        if isinstance(answer.name, str) and answer.name.startswith(_NAME):
            report.kept, report.pending = [answer.name], answer.name
            if answer.ended:
                report.finish_reasons[0] = answer.ended
        return False


CLIENT = GeminiBatches()

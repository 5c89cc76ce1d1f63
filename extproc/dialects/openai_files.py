"""OpenAI's files, kept at a model's provider. The model is in the gateway's own form field `model`, which the provider
does not get, or in the requests of a batch file.

Source: https://developers.openai.com/api/reference/resources/files, https://developers.openai.com/api/docs/guides/batch
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import msgspec

from extproc.dialects import azure, openai_chat, openai_responses, read_model
from extproc.dialects._passed import Passed, add_files, passed_fields
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.wire.framing.multipart import FormFile
from extproc.words.api import Endpoints, Objects, Offers, Stored
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Endpoint, Report
from extproc.words.errors import INVALID_JSON, INVALID_REQUEST, Refusal

_DEPTH = 64
_NODES = 250_000
_MOST_LINES = 50_000  # OpenAI's limit of requests in a batch file
_BYTES_PER_TOKEN = 3
USUAL = 4096
"""Tokens of output that are held for a request of a batch without a limit."""
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_WITHOUT_OUTPUT = ("/v1/embeddings", "/v1/moderations")


class Object(msgspec.Struct):
    """A file or a batch, reduced to the fields that are read."""

    id: Any = None
    object: Any = None
    input_file_id: Any = None
    output_file_id: Any = None
    error_file_id: Any = None


NO_MODEL = "Name a model at the provider that is to keep the file: the form's field 'model'."
_encode = msgspec.json.encode
_KEPT = ("file", "batch")


_IN_LINES = {**openai_chat.ask.OBJECTS.at, **openai_responses.ask.OBJECTS.at, "input.id": "item"}


class KeptObjects(Passed):
    """Base of APIs whose answers are objects that the provider keeps, and whose requests name no model."""

    family = "kept"
    offers = Offers(stored=Stored(keeps=lambda _body: True, unnamed=True))
    shape: ClassVar[Any] = Object

    def read_answer(self, answer: Any, report: Report) -> bool:
        if answer.object in _KEPT:
            ids = (answer.id, answer.input_file_id, answer.output_file_id, answer.error_file_id)
            report.kept = [id for id in ids if isinstance(id, str)]
        return False

    def conversation(self, body: Mapping[str, Any]) -> Conversation:  # noqa: ARG002
        return Conversation(asked=[])


def renamed(body: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """See `Stored.renamed`."""
    lines = body["file"].get("lines")
    if lines is None or all(line["body"]["model"] == model for line in lines):
        return {}
    return {"file": "".join(_for_model(line, model) for line in lines)}


class OpenAIFiles(KeptObjects):
    name = "openai_files"
    endpoints = Endpoints(
        paths={"/v1/files": "upload_file"},
        aliases={alias: path for alias, path in azure("/v1/files").items() if "{" not in alias},
        forms=True,
        calls={
            ("GET", "/v1/files/{id}"): "retrieve_file",
            ("DELETE", "/v1/files/{id}"): "delete_file",
            ("GET", "/v1/files/{id}/content"): "download_file",
        },
    )
    fields = passed_fields("file", "purpose", needs={"state": ("file",)})
    offers = Offers(
        stored=replace(
            KeptObjects.offers.stored,
            objects=Objects(at={f"file.lines.body.{path}": kind for path, kind in _IN_LINES.items()}),
            renamed=renamed,
        )
    )
    text = "file"

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        file, purpose = body.get("file"), body.get("purpose")
        if not isinstance(file, FormFile):
            raise Refusal(INVALID_REQUEST, "'file' must be a file of a form ('multipart/form-data').", param="file")
        if not isinstance(purpose, str):
            raise Refusal(INVALID_REQUEST, "'purpose' must be a string.", param="purpose")
        if purpose == "batch":
            ask = _read_batch(file)
            if body.get("model") not in (None, ask.model):
                raise Refusal(INVALID_REQUEST, "'model' must be that of the requests in the file.", param="model")
        elif "model" in body:
            ask = Ask(model=read_model(body))
        else:
            raise Refusal(INVALID_REQUEST, NO_MODEL, param="model")
        add_files(ask, body)
        ask.free = True
        ask.needs["state"] = "file"  # the file is sent to one provider
        return ask

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "purpose": "user_data", "file": "Hello"}


def _read_batch(file: FormFile) -> Ask:
    """Read the requests in a batch file, which must have one model. Raises Refusal (400)."""
    lines: list[Any] = []
    nodes = _NODES
    for number, line in enumerate(str(file.get("content", "")).splitlines(), 1):
        if not line.strip():
            continue
        if number > _MOST_LINES:
            raise Refusal(INVALID_REQUEST, f"The file has more than {_MOST_LINES} lines.", param="file")
        try:
            found = parse(line.encode(), _DEPTH, nodes)
        except InvalidJSON as error:
            raise Refusal(INVALID_JSON, f"Line {number} of the file: {error}", param="file") from None
        asked = found.get("body") if isinstance(found, dict) else None
        if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
            message = f"Line {number} of the file must be an object with a 'body' that names a 'model'."
            raise Refusal(INVALID_REQUEST, message, param="file")
        lines.append(found)
    models = {line["body"]["model"] for line in lines}
    if len(models) != 1:
        raise Refusal(INVALID_REQUEST, "The requests in a file for a batch must have one model.", param="file")
    del file["content"]
    file["lines"] = lines
    ask = Ask(model=models.pop())
    ask.later = (file.size // _BYTES_PER_TOKEN + 1, sum(map(_output, lines)))
    return ask


def _output(line: Mapping[str, Any]) -> int:
    """Tokens that a request in a batch may write: its own limit, or the usual output."""
    if line.get("url") in _WITHOUT_OUTPUT:
        return 0
    asked = line["body"]
    limits = [asked[name] for name in _LIMITS if type(asked.get(name)) is int and asked[name] > 0]
    return min(limits) if limits else USUAL


def _for_model(line: Mapping[str, Any], model: str) -> str:
    return _encode({**line, "body": {**line["body"], "model": model}}).decode() + "\n"


CLIENT = OpenAIFiles()

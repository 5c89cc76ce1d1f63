"""Gemini's files, kept at a model's provider. A first request has the metadata; the bytes follow in parts.

The model is in the gateway's own field `model` beside `file`, which the provider does not get.

Sources: https://ai.google.dev/api/files, https://ai.google.dev/gemini-api/docs/files (resumable uploads), and the SDK
google-genai (files.py, _api_client.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from extproc.dialects import gemini_generate_content, read_model
from extproc.dialects._passed import add_files, passed_fields
from extproc.dialects._refusals import wrong
from extproc.dialects.openai_files import KeptObjects
from extproc.wire.framing.multipart import FormFile
from extproc.words.api import Endpoints, Upload
from extproc.words.dialect import ID, NO_ENDPOINT, Ask, Endpoint, Report

_START = "/upload/v1beta/files"
_PART = f"/v1beta/uploads/{ID}"
_FILES = f"/v1beta/files/{ID}", f"/v1/files/{ID}"
_NAME = "files/"
_NO_MODEL = "Name a model at the provider that is to keep the file: the field 'model' beside 'file'."


class _File(msgspec.Struct):
    name: Any = None


class _Answer(_File):
    """A file, alone or in the answer to its last part."""

    file: _File | None = None


def _whole(headers: Mapping[str, str]) -> bool:
    command = headers.get("x-goog-upload-command", "").replace(" ", "").lower()
    return command == "upload,finalize" and headers.get("x-goog-upload-offset", "") == "0"


class GeminiFiles(KeptObjects):
    name = "gemini_files"
    endpoints = Endpoints(
        paths={_START: "begin_upload"},
        aliases={"/upload/v1/files": _START},
        calls={
            ("POST", _PART): "upload_file",
            **{("GET", path): "retrieve_file" for path in _FILES},
            **{("DELETE", path): "delete_file" for path in _FILES},
        },
        names=True,
        version=gemini_generate_content.endpoints.version,
        key_parameter=gemini_generate_content.endpoints.key_parameter,
    )
    fields = passed_fields("file", needs={"state": ("file",)})
    offers = replace(
        KeptObjects.offers,
        stored=replace(
            KeptObjects.offers.stored,
            link=f"{gemini_generate_content.ask.OBJECTS.address}{ID}",
            upload=Upload(
                operation="upload_file",
                header="x-goog-upload-url",
                parameter="upload_id",
                prefix="uploads/",
                client_path=_PART,
                provider_path=f"{_START}?upload_id={ID}&upload_protocol=resumable",
                withheld=("x-goog-upload-control-url", "x-guploader-uploadid", "location"),
                reads=("x-goog-upload-command", "x-goog-upload-offset"),
                refused={"x-goog-upload-status": "final"},
                whole=_whole,
            ),
            hides=True,
        ),
    )
    replies = gemini_generate_content.replies
    shape = _Answer
    text = "file"

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        file = body.get("file", {})
        if isinstance(file, FormFile):
            ask = Ask(model="", free=True)  # the session decides the model
            add_files(ask, body)
            return ask
        if not isinstance(file, dict):
            raise wrong("'file' must be an object.", "file")
        if "name" in file:
            raise wrong("The provider chooses the names of files, because all consumers share them.", "file.name")
        if "model" not in body:
            raise wrong(_NO_MODEL, "model")
        return Ask(model=read_model(body), free=True, needs={"state": "file"})

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "file": {"displayName": "Hello"}}

    def read_answer(self, answer: Any, report: Report) -> bool:
        name = answer.name if answer.file is None else answer.file.name
        if isinstance(name, str) and name.startswith(_NAME):
            report.kept = [name]
        return False


CLIENT = GeminiFiles()

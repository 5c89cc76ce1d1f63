"""Anthropic's files, kept at a model's provider. The paths are OpenAI's, too; Anthropic's clients send a header.

The model is in the gateway's own form field `model`, which the provider does not get.

Source: https://platform.claude.com/docs/en/build-with-claude/files, https://platform.claude.com/docs/en/api/files-create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.dialects import anthropic_messages, read_model
from extproc.dialects._passed import add_files, passed_fields
from extproc.dialects._refusals import wrong
from extproc.dialects.openai_files import NO_MODEL, KeptObjects, OpenAIFiles
from extproc.wire.framing.multipart import FormFile
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint, Report


class _File(msgspec.Struct):
    id: Any = None
    type: Any = None


class AnthropicFiles(OpenAIFiles):
    name = "anthropic_files"
    endpoints = Endpoints(
        paths=OpenAIFiles.endpoints.paths,
        forms=True,
        calls=OpenAIFiles.endpoints.calls,
        version=anthropic_messages.endpoints.version,
        marked=True,
    )
    fields = passed_fields("file", needs={"state": ("file",)})
    offers = KeptObjects.offers
    replies = anthropic_messages.replies
    shape = _File

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        if not isinstance(body.get("file"), FormFile):
            raise wrong("'file' must be a file of a form ('multipart/form-data').", "file")
        if "model" not in body:
            raise wrong(NO_MODEL, "model")
        ask = Ask(model=read_model(body), free=True, needs={"state": "file"})
        add_files(ask, body)
        return ask

    def read_answer(self, answer: Any, report: Report) -> bool:
        if answer.type in ("file", "file_deleted") and isinstance(answer.id, str):
            report.kept = [answer.id]
        return False


CLIENT = AnthropicFiles()

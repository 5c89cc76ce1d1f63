"""OpenAI's batches: the requests of a file, answered within a day. The file tells the model, and the provider.

Source: https://developers.openai.com/api/reference/resources/batches
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects import azure
from extproc.dialects._passed import passed_fields
from extproc.dialects.openai_files import Kept
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Endpoint
from extproc.words.errors import INVALID_REQUEST, Refusal


class OpenAIBatches(Kept):
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
    text = "input_file_id"

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        if not isinstance(body.get("input_file_id"), str):
            raise Refusal(INVALID_REQUEST, "'input_file_id' must be the id of a file.", param="input_file_id")
        ask = Ask(model="", lasting=True)  # the file's id tells it
        ask.needs["state"] = "input_file_id"
        return ask

    def conversation(self, body: Mapping[str, Any]) -> Conversation:  # noqa: ARG002
        return Conversation(asked=[])


CLIENT = OpenAIBatches()

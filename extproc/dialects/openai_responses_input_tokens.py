"""OpenAI's count of the tokens of a Responses request, before it is sent. It passes through only.

Source: https://developers.openai.com/api/reference/resources/responses/subresources/input_tokens/methods/count
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects import azure
from extproc.dialects.openai_responses import OpenAIResponses, ask
from extproc.words.dialect import NO_ENDPOINT, Ask, Dialect, Endpoint, Report


class OpenAIResponsesInputTokens(OpenAIResponses):
    name = "openai_responses_input_tokens"
    family = "count_tokens"
    paths = {"/v1/responses/input_tokens": "count_tokens"}  # noqa: RUF012
    aliases = azure("/v1/responses/input_tokens")
    calls = {}  # noqa: RUF012
    fields = replace(ask.FIELDS, output_limits=())

    decode_request = Dialect.decode_request
    encode_request = Dialect.encode_request
    keeps = Dialect.keeps

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        found = super().read(body, endpoint)
        found.free, found.stream, found.lasting = True, False, False
        found.output_field = found.max_output_tokens = None
        return found

    def encode_count(self, tokens: int) -> dict[str, Any]:
        return {"object": "response.input_tokens", "input_tokens": tokens}

    def observe(self, data: bytes, report: Report) -> bool:  # noqa: ARG002 - it uses nothing
        return False


DIALECT = OpenAIResponsesInputTokens()

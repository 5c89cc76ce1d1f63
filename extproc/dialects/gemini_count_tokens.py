"""Gemini's count of a request's tokens, before it is sent. It passes through only: there is nothing to translate.

The request is a conversation alone, or a whole request inside `generateContentRequest`. The gateway reads both as the
request itself.

Source: https://ai.google.dev/api/tokens#method:-models.counttokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from extproc.dialects._refusals import wrong
from extproc.dialects.gemini_generate_content import GeminiGenerateContent, ask, paths
from extproc.words.dialect import NO_ENDPOINT, Ask, Destination, Dialect, Endpoint, Report

_WHOLE = "generateContentRequest"


class GeminiCountTokens(GeminiGenerateContent):
    name = "gemini_count_tokens"
    family = "count_tokens"
    paths, aliases = paths("count_tokens", "countTokens")
    fields = replace(ask.FIELDS, output_limits=())

    decode_request = Dialect.decode_request
    encode_request = Dialect.encode_request
    array = Dialect.array

    def spelled(self, body: dict[str, Any]) -> dict[str, Any]:
        body = super().spelled(body)
        whole = body.get(_WHOLE)
        if whole is None:
            return body
        if not isinstance(whole, dict) or len(body) > 1:
            raise wrong(f"'{_WHOLE}' must be an object, and the only field.", _WHOLE)
        return whole

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        """A conversation alone, or the whole request, which names the model again."""
        return body if body.keys() == {"contents"} else {_WHOLE: {**body, "model": f"models/{model}"}}

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        found = super().read(body, endpoint)
        found.free = True
        found.output_field = found.max_output_tokens = None
        found.thinking = 0
        return found

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        return f"/models/{quote(destination.model.removeprefix('models/'), safe='@')}:countTokens"

    def encode_count(self, tokens: int) -> dict[str, Any]:
        return {"totalTokens": tokens}

    def observe(self, data: bytes, report: Report) -> bool:  # noqa: ARG002 - it uses nothing
        return False


DIALECT = GeminiCountTokens()

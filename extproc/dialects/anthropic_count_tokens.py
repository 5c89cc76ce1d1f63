"""Anthropic's count of a request's tokens, before it is sent. It passes through only: there is nothing to translate.

Source: https://platform.claude.com/docs/en/api/messages-count-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects.anthropic_messages import AnthropicMessages, ask
from extproc.words.dialect import NO_ENDPOINT, Ask, Dialect, Endpoint, Report


class AnthropicCountTokens(AnthropicMessages):
    name = "anthropic_count_tokens"
    family = "count_tokens"
    paths = {"/v1/messages/count_tokens": "count_tokens"}  # noqa: RUF012

    fields = replace(ask.FIELDS, output_limits=())

    decode_request = Dialect.decode_request
    encode_request = Dialect.encode_request

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        found = self.read_input(body)
        found.free = True
        return found

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}

    def encode_count(self, tokens: int) -> dict[str, Any]:
        return {"input_tokens": tokens}

    def observe(self, data: bytes, report: Report) -> bool:  # noqa: ARG002 - it uses nothing
        return False


DIALECT = AnthropicCountTokens()

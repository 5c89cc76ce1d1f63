"""Anthropic's count of a request's tokens, before it is sent. Only passed on: there is nothing to translate.

Source: https://platform.claude.com/docs/en/api/messages-count-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects.anthropic_messages import AnthropicMessages
from extproc.words.dialect import Ask, Dialect, Report


class AnthropicCountTokens(AnthropicMessages):
    name = "anthropic_count_tokens"
    family = "count_tokens"
    paths = {"/v1/messages/count_tokens": "count_tokens"}  # noqa: RUF012

    decode_request = Dialect.decode_request
    encode_request = Dialect.encode_request

    def read(self, body: Mapping[str, Any], *, counting: bool = True) -> Ask:
        ask = super().read(body, counting=counting)
        ask.output_field, ask.free = None, True
        return ask

    def observe(self, data: bytes, report: Report) -> bool:  # noqa: ARG002 - it uses nothing
        return False


DIALECT = AnthropicCountTokens()

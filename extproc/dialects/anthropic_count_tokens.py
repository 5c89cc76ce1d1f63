"""Anthropic's endpoint to count a request's tokens. It only passes through.

Source: https://platform.claude.com/docs/en/api/messages-count-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects import anthropic_messages as chat
from extproc.dialects._usual import observe_nothing
from extproc.words.api import ClientTranslation
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint

name, family = "anthropic_count_tokens", "count_tokens"
endpoints = replace(chat.endpoints, paths={"/v1/messages/count_tokens": "count_tokens"})
fields = replace(chat.fields, output_limits=())
answers = chat.answers
offers = replace(chat.offers, encode_count=lambda tokens: {"input_tokens": tokens})
translation: ClientTranslation | None = None
replies, texts, conversation, said = chat.replies, chat.texts, chat.conversation, chat.said
observe, observe_edges = observe_nothing, chat.observe_edges


def read(body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG001
    found = chat.view.read_input(body)
    found.free = True
    return found


def smallest(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}

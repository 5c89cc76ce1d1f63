"""Requests to block content in OpenAI's APIs. Only an API with such a field can fulfil them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.words.dialect import SAFETY, Ask

FIELDS = ("moderation", "safe_prompt", "guardrails", "safety_mode")
"""Fields of OpenAI (`policy` in its SDK's types), Mistral (two, `ChatCompletionRequest` in its SDK), and Cohere
(https://docs.cohere.com/docs/safety-modes).
"""
_NONE = frozenset(("NONE", "OFF"))


def read_safety(body: Mapping[str, Any], ask: Ask) -> None:
    """Note the field of a request that asks its provider to block content. Never raises."""
    if body.keys().isdisjoint(FIELDS):
        return
    for name in FIELDS:
        if (value := body.get(name)) and _blocks(name, value):
            ask.needs.setdefault(SAFETY, name)


def _blocks(name: str, value: Any) -> bool:
    if name == "moderation":
        policy = value.get("policy") if isinstance(value, dict) else None
        modes = policy.values() if isinstance(policy, dict) else (policy,)
        return any((mode.get("mode") if isinstance(mode, dict) else mode) == "block" for mode in modes)
    return not (isinstance(value, str) and value.upper() in _NONE)

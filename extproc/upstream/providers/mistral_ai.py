"""Mistral AI: OpenAI's chat completions with differences.

It refuses fields that it does not know (422), and ids of tool calls that are not nine letters or digits:
https://github.com/langchain-ai/langchain/pull/24668. Its own ids are taken by every other API, so a conversation can
move there and back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from string import ascii_letters, digits
from typing import Any

from extproc.upstream.providers import Provider
from extproc.words.dialect import BatchLimits

_ADVISORY = ("user", "store", "service_tier", "safety_identifier", "verbosity")
"""Fields of OpenAI that Mistral does not know and that do not change the answer."""
_NAMES = {"seed": "random_seed", "max_completion_tokens": "max_tokens", "dimensions": "output_dimension"}
_CHANGED = frozenset((*_ADVISORY, *_NAMES))
_ID_LENGTH = 9
_IN_IDS = digits + ascii_letters


def adapts(body: Mapping[str, Any], needs: Collection[str]) -> bool:
    """True if Mistral needs a request changed."""
    return not _CHANGED.isdisjoint(body) or "functions" in body or "tools" in needs or "files" in needs


def adapt(dialect: str, model: str, stream: bool, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:  # noqa: ARG001
    if dialect not in ("openai_chat", "openai_embeddings"):
        return path, body
    made = {name: value for name, value in body.items() if name not in _CHANGED}
    for name, theirs in _NAMES.items():
        if body.get(name) is not None:
            made[theirs] = body[name]
    messages = body.get("messages")
    if isinstance(messages, list):
        made["messages"] = [_message(message) if isinstance(message, dict) else message for message in messages]
    return path, made


def _message(message: dict[str, Any]) -> dict[str, Any]:
    made = dict(message)
    if isinstance(content := message.get("content"), list):
        made["content"] = [_part(part) for part in content]
    if isinstance(calls := message.get("tool_calls"), list):
        made["tool_calls"] = [
            {**call, "id": _id(call["id"])} if isinstance(call, dict) and isinstance(call.get("id"), str) else call
            for call in calls
        ]
    if isinstance(id := message.get("tool_call_id"), str):
        made["tool_call_id"] = _id(id)
    return made


def _part(part: Any) -> Any:
    """A file in Mistral's form: https://docs.mistral.ai/capabilities/document_ai/document_qna."""
    file = part.get("file") if isinstance(part, dict) else None
    if not isinstance(file, dict) or not isinstance(file.get("file_data"), str):
        return part
    made = {"type": "document_url", "document_url": file["file_data"]}
    name = file.get("filename")
    return made | {"document_name": name} if isinstance(name, str) else made


def _id(id: str) -> str:
    """An id of nine letters or digits: always the same for one id; Mistral's own ids do not change."""
    if len(id) == _ID_LENGTH and id.isascii() and id.isalnum():
        return id
    number = int.from_bytes(hashlib.blake2s(id.encode(errors="replace"), digest_size=8).digest())
    found = ""
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_IN_IDS))
        found += _IN_IDS[digit]
    return found


PROVIDER = Provider(
    gen_ai_name="mistral_ai",
    source="https://docs.mistral.ai/api/",
    base_url="https://api.mistral.ai/v1",
    dialects=(
        "openai_chat",
        "openai_embeddings",
        "openai_moderations",
        "openai_transcriptions",
        "ocr",
    ),
    more=("max_tokens",),
    cache_keys=("openai_chat",),  # source: the types of mistralai's SDK
    adapt=adapt,
    adapts=adapts,
    # "Too many tokens in batch. Max is 16384": https://github.com/dust-tt/dust/pull/10654
    batches={"mistral-embed*": BatchLimits(tokens=16_384)},
    catalogue="mistral",
    example=("{kind: mistral_ai, api_key: env:MISTRAL_API_KEY}", "mistral-large-latest"),
)

"""What Mistral's chat completions refuse beyond OpenAI's: fields it does not know, ids of tool calls, files.

A double with the name `mistral` refuses the same.

Sources: https://docs.mistral.ai/api/, https://github.com/langchain-ai/langchain/pull/24668 (ids),
https://docs.mistral.ai/capabilities/document_ai/document_qna
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.doubles.answers import Json, Refused

_FORBIDDEN = ("seed", "user", "max_completion_tokens", "store", "metadata", "logprobs", "service_tier", "verbosity")
_ID = re.compile(r"[a-zA-Z0-9]{9}")
_PARTS = ("text", "image_url", "document_url", "reference", "thinking", "input_audio", "file")


def check(body: Json) -> None:
    """Refuse what the API would refuse."""
    for name in _FORBIDDEN:
        if name in body:
            raise Refused(422, f"body.{name}: Extra inputs are not permitted", param=name)
    for message in body["messages"]:
        for id in _ids(message):
            if not _ID.fullmatch(id):
                raise Refused(400, f"Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9.")
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part["type"] not in _PARTS or (part["type"] == "file" and "file_id" not in part):
                raise Refused(422, "body.messages.content: Input tag does not match any of the expected tags")


def _ids(message: Json) -> Iterator[str]:
    if "tool_call_id" in message:
        yield message["tool_call_id"]
    yield from (call["id"] for call in message.get("tool_calls") or ())

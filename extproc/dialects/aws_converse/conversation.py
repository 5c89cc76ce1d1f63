"""The conversation as `messages`: turns of `user` and `assistant`, each a list of blocks.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html

Rules of the API: the user begins, roles alternate, no message is empty, no text is blank, tool results come first in a
turn, document names are unique, and a turn with documents has a text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from extproc.dialects._turns import join
from extproc.dialects.anthropic_messages.provider_request import IMAGES, OPENING, arguments
from extproc.dialects.aws_converse.models import ModelFamily
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)

Json = dict[str, Any]

_NO_WORDS = "See the document."
"""Text of a user message with documents only."""
_NO_OUTPUT = "(no output)"
_LONGEST_ID, _LONGEST_NAME = 64, 190  # characters of a call's id; of a document's name, with room for a number
_IMAGE_FORMATS = frozenset(("png", "jpeg", "gif", "webp"))
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/json": "txt",
}
_FORMATS = frozenset(_DOCUMENTS.values())
_not_in_names = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_not_in_ids = re.compile(r"[^A-Za-z0-9_.:-]")


def cache_point(cache: Mapping[str, Any], family: ModelFamily) -> Json:
    """The block that marks all blocks before it for the cache."""
    long = family.claude is not None and cache.get("ttl") == "1h"
    return {"cachePoint": {"type": "default", "ttl": "1h"} if long else {"type": "default"}}


class ConverseMessages:
    """Collects messages. Fields that it cannot express are added to `ignored`."""

    def __init__(self, family: ModelFamily, ignored: list[str]) -> None:
        self.turns: list[Json] = []
        self._family = family
        self._ignored = ignored
        self._results = 0  # count of result blocks at the beginning of the last turn
        self._names: dict[str, int] = {}  # latest number tried for each document name, in lower case

    def add(self, message: Message) -> None:
        results: list[Json] = []
        others: list[Json] = []
        for part in message.parts:
            (results if isinstance(part, ToolResult) else others).extend(self._blocks(part))
        if not results and not others:
            return
        if self.turns and self.turns[-1]["role"] == message.role:
            content = self.turns[-1]["content"]
            content[self._results : self._results] = results
            join(content, others)
            self._results += len(results)
        else:
            self.turns.append({"role": message.role, "content": results + others})
            self._results = len(results)

    def finish(self) -> list[Json]:
        turns = self.turns
        if not turns or turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": [{"text": OPENING}]})
        for turn in turns:
            if any("document" in block for block in turn["content"]) and not any("text" in b for b in turn["content"]):
                turn["content"].append({"text": _NO_WORDS})
        last = turns[-1]
        # The model continues this text, which must not end in a space
        if last["role"] == "assistant" and "text" in last["content"][-1]:
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
        return turns

    def called(self) -> list[str]:
        """Names of tools with calls or results in the conversation."""
        names: dict[str, None] = {}
        orphaned = False
        for turn in self.turns:
            for block in turn["content"]:
                if "toolUse" in block:
                    names[block["toolUse"]["name"]] = None
                orphaned |= "toolResult" in block
        return list(names) or (["tool"] if orphaned else [])

    # --- blocks

    def _blocks(self, part: Part) -> list[Json]:
        if isinstance(part, TextPart):
            return self._marked({"text": part.text}, part.cache) if part.text.strip() else []
        if isinstance(part, ToolCall):
            call = {"toolUseId": _id(part.id), "name": part.name, "input": arguments(part.arguments)}
            return self._marked({"toolUse": call}, part.cache)
        if isinstance(part, ToolResult):
            cache = part.cache or next((inner.cache for inner in part.parts if inner.cache), None)
            return self._marked({"toolResult": self._result(part)}, cache)
        if isinstance(part, ThinkingPart):
            return self._thought(part)
        if isinstance(part, RefusalPart):
            return [{"text": part.text}] if part.text.strip() else []
        if isinstance(part, AudioPart):
            return [{"audio": {"format": part.format or "wav", "source": {"bytes": part.data}}}]
        return self._marked(self._media(part), part.cache)

    def _marked(self, block: Json, cache: Mapping[str, Any] | None) -> list[Json]:
        """The block, and behind it the part's cache point, if any."""
        if not cache:
            return [block]
        if not self._family.caches:
            self._ignored.append("cache_control")
            return [block]
        return [block, cache_point(cache, self._family)]

    def _thought(self, part: ThinkingPart) -> list[Json]:
        """Thinking with this model's signature. Models refuse other signatures, and thinking without one is not sent
        back.
        """
        family = self._family
        if part.redacted:
            own = (family.claude is not None or family.effort == "openai") and ":" not in part.redacted
            return [{"reasoningContent": {"redactedContent": part.redacted}}] if own else []
        if family.claude is None or not part.signature or ":" in part.signature:
            return []
        return [{"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}]

    def _result(self, part: ToolResult) -> Json:
        content: list[Json] = []
        for inner in part.parts:
            if not isinstance(inner, TextPart):
                content.append(self._media(inner))
            elif inner.text.strip():
                content.append({"text": inner.text})
        found: Json = {"toolUseId": _id(part.id), "content": content or [{"text": _NO_OUTPUT}]}
        if part.error and self._family.knows_errors:
            found["status"] = "error"
        return found

    # --- images and documents

    def _media(self, part: ImagePart | FilePart) -> Json:
        kind = part.media_type.partition(";")[0]
        if isinstance(part, ImagePart) or kind.startswith("image/"):
            if isinstance(part, ImagePart) and part.detail not in ("", "auto"):
                self._ignored.append("detail")
            return {"image": _image(part, kind)}
        extension = part.name.rpartition(".")[2].lower()
        format = _DOCUMENTS.get(kind) or (extension if extension in _FORMATS else "")
        if not format and kind.startswith("text/"):
            format = "txt"
        if not format and kind not in ("", "application/octet-stream"):
            message = (
                f"The target of this model takes no files of the type '{kind[:64]}': send PDF, text or Office files."
            )
            raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
        return {"document": {"format": format or "pdf", "name": self._name(part.name), "source": _source(part, "file")}}

    def _name(self, name: str) -> str:
        """A document's name in characters that the API allows, distinct from earlier names."""
        stem, _, extension = name.rpartition(".")
        wanted = (
            _not_in_names.sub(" ", stem if extension.lower() in _FORMATS else name).strip()[:_LONGEST_NAME].rstrip()
        )
        found = wanted = wanted or "document"
        while found.lower() in self._names:
            self._names[wanted.lower()] += 1
            found = f"{wanted}-{self._names[wanted.lower()]}"
        self._names[found.lower()] = 1
        return found


def _image(part: ImagePart | FilePart, kind: str) -> Json:
    if part.url:
        kind = "image/" + part.url.rpartition(".")[2].lower()
    format = (kind or IMAGES.get(part.data[:4], "image/png")).partition("/")[2]
    format = "jpeg" if format == "jpg" else format
    if format not in _IMAGE_FORMATS and not part.url.startswith(("https://", "http://")):
        message = "The target of this model takes images as PNG, JPEG, GIF or WebP only."
        raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
    return {"format": format, "source": _source(part, "image")}


def _source(part: ImagePart | FilePart, what: str) -> Json:
    if part.url.startswith("s3://"):
        return {"s3Location": {"uri": part.url}}
    if not part.data:
        message = f"The target of this model fetches nothing from the web: send the {what} itself as base64 data."
        raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
    return {"bytes": part.data}


def _id(id: str) -> str:
    """A call's id in characters and length that the API allows, always the same for the same id."""
    if len(id) > _LONGEST_ID:
        return hashlib.sha256(id.encode(errors="replace")).hexdigest()
    return _not_in_ids.sub("_", id) or "_"

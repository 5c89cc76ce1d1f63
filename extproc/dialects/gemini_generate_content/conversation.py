"""The conversation as `contents`: turns of `user` and `model`, each a list of parts.

Source: https://ai.google.dev/api/caching#Content and https://ai.google.dev/gemini-api/docs/function-calling

Rules of the API: the results of a turn's calls are together in the next turn, without other parts, each with the name
and id of its call. From Gemini 3 on, the first call of a turn has its signature.
"""

from __future__ import annotations

from typing import Any

import msgspec

from extproc.dialects._models import Gemini
from extproc.dialects._turns import join
from extproc.dialects.gemini_generate_content.media import media
from extproc.dialects.gemini_generate_content.signature import UNSIGNED, of_call, own
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

_decode = msgspec.json.Decoder().decode

Json = dict[str, Any]


class Contents:
    """Collects messages. `ignored` are advisory fields that it cannot express."""

    def __init__(self, model: Gemini) -> None:
        self.turns: list[Json] = []
        self.ignored: dict[str, None] = {}
        self._model = model
        self._calls: dict[str, tuple[int, str]] = {}  # id -> index among all calls, and the tool's name
        self._called = False  # True: the model's current turn has called tools
        self._after_calls = 0  # index in `turns` for the results of the last calls
        self._results: list[Json] | None = None  # results of the last calls so far

    def add(self, message: Message) -> None:
        if message.role == "assistant":
            self._add_model(message.parts)
        else:
            self._add_user(message.parts)

    def finish(self) -> list[Json]:
        self._order_results()
        return self.turns

    def _add_model(self, parts: list[Part]) -> None:
        out: list[Json] = []
        loose: list[str] = []  # signatures without thinking; each belongs to a text of the message
        for part in parts:
            if isinstance(part, ThinkingPart):
                # Only Google's own signatures are sent back.
                if signature := own(part.signature):
                    if part.text:
                        out.append({"text": part.text, "thought": True, "thoughtSignature": signature})
                    else:
                        loose.append(signature)
                elif signature := of_call(part.signature):
                    _sign_calls(out, signature)
            elif isinstance(part, ToolCall):
                out.append(self._call(part))
            elif not isinstance(part, ToolResult) and (written := self._part(part)):
                out.append(written)
        _sign_texts(out, loose)
        if not out:
            return
        if self.turns and self.turns[-1]["role"] == "model":
            join(self.turns[-1]["parts"], out)
        else:
            self.turns.append({"role": "model", "parts": out})
            self._called = False
        self._order_results()
        self._after_calls, self._results = len(self.turns), None
        first = next((part for part in out if "functionCall" in part), None) if not self._called else None
        if first is not None:
            self._called = True
            if self._model.signed_calls:
                first.setdefault("thoughtSignature", UNSIGNED)

    def _add_user(self, parts: list[Part]) -> None:
        out: list[Json] = []
        for part in parts:
            if isinstance(part, ToolResult):
                self._add_result(part, out)
            elif written := self._part(part):
                out.append(written)
        if not out:
            return
        last = self.turns[-1] if self.turns else None
        if last is not None and last["role"] == "user" and last["parts"] is not self._results:
            join(last["parts"], out)
        else:
            self.turns.append({"role": "user", "parts": out})

    def _part(self, part: Part) -> Json | None:
        """A part for either role; None for a part that is left out."""
        if isinstance(part, TextPart):
            if part.cache is not None:
                self.ignored["cache_control"] = None
            return {"text": part.text} if part.text else None
        if isinstance(part, ImagePart | FilePart):
            if part.cache is not None:
                self.ignored["cache_control"] = None
            if isinstance(part, ImagePart) and part.detail in ("low", "high"):
                self.ignored["detail"] = None
            return media(part)
        if isinstance(part, AudioPart):
            return media(part)
        if isinstance(part, RefusalPart):
            return {"text": part.text} if part.text else None
        return None  # thinking and calls are only the model's, results only the user's

    def _call(self, call: ToolCall) -> Json:
        if call.cache is not None:
            self.ignored["cache_control"] = None
        self._calls[call.id] = (len(self._calls), call.name)
        written: Json = {"functionCall": {"id": call.id, "name": call.name, "args": arguments_of(call.arguments)}}
        if not call.id:
            del written["functionCall"]["id"]
        if call.signature:
            written["thoughtSignature"] = call.signature
        return written

    def _add_result(self, result: ToolResult, out: list[Json]) -> None:
        """Add a result. `out` gets its parts that the model does not accept inside the result."""
        if result.cache is not None:
            self.ignored["cache_control"] = None
        _, name = self._calls.get(result.id, (0, ""))
        texts: list[str] = []
        attached: list[Json] = []
        for part in result.parts:
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif written := self._part(part):
                attached.append(written)
        response: Json = {
            "id": result.id,
            "name": name or result.name or result.id,
            "response": {"error" if result.error else "output": "\n".join(texts)},
        }
        if not result.id:
            del response["id"]
        if attached and self._model.media_results:
            response["parts"] = attached
        else:
            out += attached
        if self._results is None:
            self._results = []
            self.turns.insert(self._after_calls, {"role": "user", "parts": self._results})
        self._results.append({"functionResponse": response})

    def _order_results(self) -> None:
        """Sort results in the order of their calls: models without call ids match them by order."""
        if self._results is not None and len(self._results) > 1:
            last = (len(self._calls), "")
            self._results.sort(key=lambda part: self._calls.get(part["functionResponse"].get("id", ""), last)[0])


def _sign_calls(parts: list[Json], signature: str) -> None:
    """Put the signature on the first of the calls at the end: Google signs the first of consecutive calls."""
    first = len(parts)
    while first and "functionCall" in parts[first - 1]:
        first -= 1
    if first < len(parts):
        parts[first].setdefault("thoughtSignature", signature)


def _sign_texts(parts: list[Json], signatures: list[str]) -> None:
    """Put each signature on the last unsigned text, or on a new empty text."""
    texts = [part for part in parts if "text" in part and "thoughtSignature" not in part]
    for signature in signatures:
        if texts:
            texts.pop()["thoughtSignature"] = signature
        else:
            parts.append({"text": "", "thoughtSignature": signature})


def arguments_of(text: str) -> Json:
    """Arguments as an object; another model may have written another value."""
    if not text.strip():
        return {}
    try:
        value = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = text
    return value if isinstance(value, dict) else {"arguments": value}

"""The gateway's reading of a chat completion request.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, _safety, read_flag, read_integer, read_model
from extproc.dialects._calls import add_calls
from extproc.dialects._conversation import effort_of, inner
from extproc.dialects._effort import asked
from extproc.dialects._named import EACH, ROUTERS
from extproc.dialects._refusals import wrong
from extproc.dialects._safety import read_safety
from extproc.dialects._tooling import known, name_of, objects, plain_fields
from extproc.dialects._view import Answered, Call, Node, View
from extproc.dialects.openai_chat.shapes import MAX_CHOICES
from extproc.words.api import Objects
from extproc.words.dialect import IMAGE_OUTPUT, NO_ENDPOINT, SAFETY, Ask, Endpoint, Fields
from extproc.words.messages import Effort

_SEARCH = "web_search_options"
_ELSEWHERE = frozenset((_SEARCH, "search_parameters", "plugins", "data_sources", "extra_body"))
"""Fields that make a provider search or read its own storage, of OpenAI, xAI, OpenRouter, Azure and Google."""

OBJECTS = Objects(
    at={"messages.audio.id": "sound", "audio.voice.id": "voice"},
    answers={"choices.message.audio.id": "sound", "choices.delta.audio.id": "sound"},
    marks=(b'"audio"',),
)

FIELDS = Fields(
    model="model",
    fixed=("model", "messages", "stream", "stream_options", "n"),
    output_limits=("max_completion_tokens", "max_tokens"),
    needs={
        **dict.fromkeys(("images", "files"), ("messages",)),
        "audio": ("messages", "modalities"),
        "tools": ("tools", "functions"),
        "json_schema": ("response_format",),
        "choices": ("n",),
        "logprobs": ("logprobs",),
        "hosted_tools": ("tools", "web_search_options"),
        SAFETY: _safety.FIELDS,
    },
    spoken=frozenset(("messages",)),
    files=frozenset(("data", "file_data")),
    opaque=frozenset(("data", "file_data", "signature")),
    options=("service_tier",),
    models=(*ROUTERS, ("tools", EACH, "model"), ("moderation", "model")),
    also=("reasoning", "reasoning_effort", "thinking", "tool_choice", *_ELSEWHERE),
    inside=frozenset(
        (
            *(
                "role",
                "content",
                "type",
                "text",
                "name",
                "refusal",
                "tool_calls",
                "tool_call_id",
                "function",
                "arguments",
            ),
            *("image_url", "url", "file", "file_data", "file_id", "input_audio", "data", "include_usage"),
            *("effort", "max_tokens", "budget_tokens", "json_schema"),
        )
    ),
    data=frozenset(("parameters", "schema", "metadata", "extra_body")),
)

# Types of parts with only text.
_TEXTS = frozenset(("text", "refusal", "thinking", "redacted_thinking"))
_CALLED = ("function", "custom")


class ChatView(View):
    """See `View`."""

    fields = FIELDS
    objects = OBJECTS
    functions_at = "functions"
    hosted_at = (_SEARCH,)
    roles = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
    deep = False

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        """See `ClientAPI.read`."""
        ask = Ask(model=read_model(body), stream=read_flag(body, "stream"))
        for message in self.turns(body):
            if isinstance(content := message.get("content"), list):
                self.read_parts(content, ask)
            if (shown := message.get("images")) is not None:  # images of an earlier answer
                self.read_parts(shown, ask)
            if message.get("audio") is not None:  # audio of an earlier answer, by its id
                ask.add_unseen("audio")
        if not _ELSEWHERE.isdisjoint(body):
            _read_elsewhere(body, ask)
        ask.choices = read_integer(body, "n", 1, MAX_CHOICES) or 1
        _read_limit(body, ask)
        for name in ("tools", "functions"):
            if body.get(name):
                ask.needs["tools"] = name
                ask.added_tokens = ADDED_TOKENS
        self.read_tools(body.get("tools"), "tools", ask)
        if inner(body, "response_format", "type") == "json_schema":
            ask.needs["json_schema"] = "response_format"
            ask.added_tokens = ADDED_TOKENS
        if ask.choices > 1:
            ask.needs["choices"] = "n"
        if body.get("logprobs") is True:
            ask.needs["logprobs"] = "logprobs"
        ask.thinking = self.thinking(body)
        if isinstance(modalities := body.get("modalities"), list):
            if "audio" in modalities:
                ask.needs.setdefault("audio", "modalities")
                ask.speaks = True
            if "image" in modalities:
                ask.needs[IMAGE_OUTPUT] = "modalities"
        read_safety(body, ask)
        check_stream_options(body)
        return ask

    def read_part(self, part: Node, ask: Ask) -> None:
        image, file, audio = part.get("image_url"), part.get("file"), part.get("input_audio")
        if image is not None:
            ask.needs["images"] = "messages"
            url = image.get("url") if isinstance(image, dict) else image
            _media.add_image(ask, url, "image_url")
            ask.add_url(url, "messages")
        document = part.get("document_url")
        if file is not None or document is not None:
            ask.needs["files"] = "messages"
            data = document if file is None else inner(part, "file", "file_data")
            _media.add_file(ask, data, "file", text=_media.is_text(data))
            ask.add_url(data, "messages")
        if audio is not None:
            ask.needs["audio"] = "messages"
            _media.add_audio(ask, inner(part, "input_audio", "data"), "input_audio")
        if image is None and file is None and audio is None and document is None:
            kind = part.get("type")
            if not (isinstance(kind, str) and kind in _TEXTS):  # a video, or an unknown type
                ask.add_unseen(kind, "content")

    def is_own(self, kind: Any) -> bool:
        return kind in ("function", "custom", None)

    def thinking(self, body: Mapping[str, Any]) -> int:
        """See `Offers.thinking`. `client_request.py` reads the same thinking settings."""
        settings, reasoning = body.get("thinking"), body.get("reasoning")
        most = asked(body.get("reasoning_effort"))
        if isinstance(settings, dict):
            kind, tokens = settings.get("type"), settings.get("budget_tokens")
            tokens = 0 if kind == "disabled" else tokens
            most = max(most, asked(None, tokens, adaptive=kind == "adaptive" or tokens is None))
        if isinstance(reasoning, dict):
            most = max(most, asked(reasoning.get("effort"), reasoning.get("max_tokens")))
        return most

    def effort(self, body: Mapping[str, Any]) -> Effort | None:
        found = effort_of(body.get("reasoning_effort"), inner(body, "reasoning", "effort"))
        return "high" if found is None and inner(body, "thinking", "type") == "enabled" else found

    def is_shaped(self, body: Mapping[str, Any]) -> bool:
        format, choice = inner(body, "response_format", "type"), inner(body, "tool_choice", "type")
        return format in ("json_schema", "json_object") or choice == "function"

    def schema(self, body: Mapping[str, Any]) -> Any:
        kind, described = (inner(body, "response_format", name) for name in ("type", "json_schema"))
        if kind == "json_object":
            return {}
        return described.get("schema") if kind == "json_schema" and isinstance(described, dict) else None

    def offered(self, body: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
        functions = [tool["function"] for tool in objects(body.get("tools")) if isinstance(tool.get("function"), dict)]
        for function in (*functions, *objects(body.get("functions"))):
            yield function.get("name"), function.get("parameters")

    def is_result(self, node: Node) -> bool:
        return node.get("role") in ("tool", "function")

    def calls_in(self, node: Node) -> Sequence[Call]:
        if "tool_calls" not in node:
            return ()
        calls = [(call.get("id"), call.get(kind)) for call in objects(node["tool_calls"]) for kind in _CALLED]
        return [
            Call(name_of(called.get("name")), called.get("arguments", called.get("input")), (name_of(id),))
            for id, called in calls
            if isinstance(called, dict)
        ]

    def results_in(self, node: Node, names: Mapping[Any, str]) -> Sequence[Answered]:
        if not self.is_result(node):
            return ()
        called = known(names, node.get("tool_call_id")) if node["role"] == "tool" else ""
        return (Answered(called or name_of(node.get("name")), node.get("content"), partial(_written, node)),)

    def usage_request(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Offers.usage_request`."""
        return usage_request(body)


def _written(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    return plain_fields(message, "role", "tool_call_id", "name") | {"content": text}


def _read_limit(body: Mapping[str, Any], ask: Ask) -> None:
    ask.output_field = "max_completion_tokens"
    ask.max_output_tokens = read_integer(body, "max_completion_tokens", 1, MAX_TOKENS)
    older = read_integer(body, "max_tokens", 1, MAX_TOKENS)
    if older is not None:
        if ask.max_output_tokens is not None:
            raise wrong("Give 'max_tokens' or 'max_completion_tokens', not both.", "max_tokens")
        ask.output_field, ask.max_output_tokens = "max_tokens", older


def check_stream_options(body: Mapping[str, Any]) -> None:
    """Refuse wrong `stream_options` (400)."""
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong("'stream_options' must be an object.", "stream_options")


def usage_request(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """See `Offers.usage_request`."""
    options = body.get("stream_options") or {}
    return {} if options.get("include_usage") is True else {"stream_options": {**options, "include_usage": True}}


def _read_elsewhere(body: Mapping[str, Any], ask: Ask) -> None:
    if body.get(_SEARCH) is not None:
        ask.add_hosted(_SEARCH, _SEARCH)
        add_calls(ask, _SEARCH, None)
    for name in sorted(_ELSEWHERE - {"extra_body", _SEARCH}):
        if body.get(name):
            ask.add_unseen(name)
    extra = body.get("extra_body")
    google = extra.get("google") if isinstance(extra, dict) else None
    if isinstance(google, dict) and google.get("cached_content"):
        ask.add_unseen("cached_content")

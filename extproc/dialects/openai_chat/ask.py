"""The gateway's reading of a chat completion request.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, _safety, read_flag, read_integer, read_model
from extproc.dialects._conversation import count, effort_of, first_instructions, inner, last_said, pieces
from extproc.dialects._effort import asked
from extproc.dialects._refusals import wrong
from extproc.dialects._safety import read_safety
from extproc.dialects.openai_chat.shapes import MAX_CHOICES
from extproc.words.dialect import IMAGE_OUTPUT, SAFETY, Ask, Conversation, Fields, Text, strings
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.objects import Objects

_SEARCH = "web_search_options"
_ELSEWHERE = frozenset((_SEARCH, "search_parameters", "plugins", "data_sources", "extra_body"))
"""Fields by which a provider searches or reads its own storage: OpenAI's, xAI's, OpenRouter's, Azure's, Google's."""

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

_OWN_TOOLS = ("function", "custom", None)  # run by the client; the provider runs other tools itself
# types of parts whose text is all of their content
_TEXTS = frozenset(("text", "refusal", "thinking", "redacted_thinking"))
_HOLD_TEXT = ("text", "content")  # fields of messages and parts
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))


def read(body: Mapping[str, Any]) -> Ask:
    ask = Ask(model=read_model(body), stream=read_flag(body, "stream"))
    conversation = body.get("messages")
    if not isinstance(conversation, list) or not conversation:
        raise Refusal(INVALID_REQUEST, "'messages' must be a list with at least one message.", param="messages")
    for index, message in enumerate(conversation):
        if not isinstance(message, dict):
            where = f"messages[{index}]"
            raise Refusal(INVALID_REQUEST, f"'{where}' must be an object.", param=where)
        content = message.get("content")
        if isinstance(content, list):
            _read_parts(content, ask)
        if isinstance(shown := message.get("images"), list):  # of an earlier answer
            _read_parts(shown, ask)
        if message.get("audio") is not None:  # an earlier answer's audio, by its id
            ask.add_unseen("audio")
    if not _ELSEWHERE.isdisjoint(body):
        _read_elsewhere(body, ask)
    ask.choices = read_integer(body, "n", 1, MAX_CHOICES) or 1
    ask.output_field = "max_completion_tokens"
    ask.max_output_tokens = read_integer(body, "max_completion_tokens", 1, MAX_TOKENS)
    older = read_integer(body, "max_tokens", 1, MAX_TOKENS)
    if older is not None:
        if ask.max_output_tokens is not None:
            raise Refusal(
                INVALID_REQUEST, "Give 'max_tokens' or 'max_completion_tokens', not both.", param="max_tokens"
            )
        ask.output_field, ask.max_output_tokens = "max_tokens", older
    for name in ("tools", "functions"):
        if body.get(name):
            ask.needs["tools"] = name
            ask.added_tokens = ADDED_TOKENS
    _read_tools(body.get("tools"), ask)
    answer_format = body.get("response_format")
    if isinstance(answer_format, dict) and answer_format.get("type") == "json_schema":
        ask.needs["json_schema"] = "response_format"
        ask.added_tokens = ADDED_TOKENS
    if ask.choices > 1:
        ask.needs["choices"] = "n"
    if body.get("logprobs") is True:
        ask.needs["logprobs"] = "logprobs"
    ask.thinking = thinking(body)
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        ask.needs.setdefault("audio", "modalities")
        ask.speaks = True
    if isinstance(modalities, list) and "image" in modalities:
        ask.needs[IMAGE_OUTPUT] = "modalities"
    read_safety(body, ask)
    check_stream_options(body)
    return ask


def texts(body: Mapping[str, Any]) -> Iterator[Text]:
    for index, message in enumerate(body["messages"]):
        role = message.get("role")
        role = role if isinstance(role, str) else ""
        where = f"messages[{index}]"
        for key, value in message.items():
            if key == "role" and role in _ROLES:
                continue
            if isinstance(value, str):
                yield Text(role, f"{where}.{key}", message, key)
            else:
                yield from strings(value, role, f"{where}.{key}")
    for key, value in body.items():
        if key in ("messages", "model"):
            continue
        if isinstance(value, str):
            yield Text("request", key, body, key)
        else:
            yield from strings(value, "request", key)


def thinking(body: Mapping[str, Any]) -> int:
    """See `Dialect.thinking`. The places of thinking settings are those of `client_request.py`."""
    settings, reasoning = body.get("thinking"), body.get("reasoning")
    most = asked(body.get("reasoning_effort"))
    if isinstance(settings, dict):
        kind, tokens = settings.get("type"), settings.get("budget_tokens")
        tokens = 0 if kind == "disabled" else tokens
        most = max(most, asked(None, tokens, adaptive=kind == "adaptive" or tokens is None))
    if isinstance(reasoning, dict):
        most = max(most, asked(reasoning.get("effort"), reasoning.get("max_tokens")))
    return most


def conversation(body: Mapping[str, Any]) -> Conversation:
    """See `Dialect.conversation`."""
    messages = body.get("messages")
    last, result = last_said(messages, _HOLD_TEXT, _is_result)
    effort = effort_of(body.get("reasoning_effort"), inner(body, "reasoning", "effort"))
    return Conversation(
        asked=last,
        turns=count(messages),
        result=result,
        system=pieces(first_instructions(messages), _HOLD_TEXT),
        tools=count(body.get("tools")),
        shaped=inner(body, "response_format", "type") in ("json_schema", "json_object")
        or inner(body, "tool_choice", "type") == "function",
        effort="high" if effort is None and inner(body, "thinking", "type") == "enabled" else effort,
    )


def _is_result(message: Mapping[str, Any]) -> bool:
    return message.get("role") in ("tool", "function")


def check_stream_options(body: Mapping[str, Any]) -> None:
    """Raises Refusal (400)."""
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong("'stream_options' must be an object.", "stream_options")


def usage_request(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """See `Dialect.usage_request`."""
    options = body.get("stream_options") or {}
    return {} if options.get("include_usage") is True else {"stream_options": {**options, "include_usage": True}}


def _read_parts(parts: list[Any], ask: Ask) -> None:
    for part in parts:
        if not isinstance(part, dict):
            continue
        image, file, audio = part.get("image_url"), part.get("file"), part.get("input_audio")
        if image is not None:
            ask.needs["images"] = "messages"
            url = image.get("url") if isinstance(image, dict) else image
            _media.add_image(ask, url, "image_url")
            ask.add_url(url, "messages")
        document = part.get("document_url")
        if file is not None or document is not None:
            ask.needs["files"] = "messages"
            data = document if file is None else file.get("file_data") if isinstance(file, dict) else None
            if not (isinstance(data, str) and _media.is_text(data)):
                ask.add_unseen("file")
                ask.packed(data)
                ask.add_url(data, "messages")
        if audio is not None:
            ask.needs["audio"] = "messages"
            data = audio.get("data") if isinstance(audio, dict) else None
            ask.packed(data)
            if not (isinstance(data, str) and _media.is_audio_of_its_size(data)):
                ask.add_unseen("input_audio")
        if image is None and file is None and audio is None and document is None:
            kind = part.get("type")
            if not (isinstance(kind, str) and kind in _TEXTS):  # a video, or a type not known yet
                ask.add_unseen(kind, "content")


def _read_elsewhere(body: Mapping[str, Any], ask: Ask) -> None:
    if body.get(_SEARCH) is not None:
        ask.add_hosted(_SEARCH, _SEARCH)
    for name in sorted(_ELSEWHERE - {"extra_body", _SEARCH}):
        if body.get(name):
            ask.add_unseen(name)
    extra = body.get("extra_body")
    google = extra.get("google") if isinstance(extra, dict) else None
    if isinstance(google, dict) and google.get("cached_content"):
        ask.add_unseen("cached_content")


def _read_tools(tools: Any, ask: Ask) -> None:
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in _OWN_TOOLS:
            ask.add_hosted(kind, "tools")


def without_hosted(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """See `Dialect.without_hosted`."""
    made = {name: value for name, value in body.items() if name not in ("tools", _SEARCH)}
    dropped = [_SEARCH] if body.get(_SEARCH) is not None else []
    tools = body.get("tools")
    if isinstance(tools, list):
        own = [tool for tool in tools if not isinstance(tool, dict) or tool.get("type") in _OWN_TOOLS]
        kinds = (tool["type"] for tool in tools if isinstance(tool, dict) and tool.get("type") not in _OWN_TOOLS)
        dropped += dict.fromkeys(f"tools.{kind}" for kind in kinds)
        if own:
            made["tools"] = own
    return made, dropped

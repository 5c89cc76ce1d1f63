"""OpenAI chat completions, as OpenAI and many other providers serve them.

Source: https://platform.openai.com/docs/api-reference/chat (request, chat completion object, chunk object).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects import MAX_TOKENS, read_flag, read_integer, read_model
from extproc.dialects._effort import asked, openai_reasons
from extproc.dialects.openai_chat import answer, client_request, provider_request, stream
from extproc.dialects.openai_chat.common import check_stream_options, usage_request
from extproc.dialects.openai_chat.problem import decode as decode_problem
from extproc.dialects.openai_chat.problem import encode as encode_problem
from extproc.dialects.openai_chat.usage import read_usage
from extproc.words import media, messages
from extproc.words.dialect import ADDED_TOKENS, Ask, Decoder, Destination, Dialect, Encoder, Report, Text, strings
from extproc.words.errors import INVALID_REQUEST, Refusal

_OWN_TOOLS = ("function", "custom", None)  # which the client runs; the provider runs others itself
_TEXTS = frozenset(("text", "refusal", "thinking", "redacted_thinking"))  # types of parts that say all they are
_ELSEWHERE = frozenset(("web_search_options", "search_parameters", "plugins", "data_sources", "extra_body"))
"""Fields by which a provider searches or reads what it keeps: OpenAI's, xAI's, OpenRouter's, Azure's, Google's."""
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))


class OpenAIChat(Dialect):
    name = "openai_chat"
    paths = {"/v1/chat/completions": "chat"}  # noqa: RUF012
    usage_at = (("usage",),)
    traces = (b'"thinking_blocks"', b'"thought_signature"')
    lacks = frozenset()
    reasons = staticmethod(openai_reasons)

    def read(self, body: Mapping[str, Any]) -> Ask:
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
            if message.get("audio") is not None:  # an earlier answer's, by its id
                ask.add_unseen("audio")
        if not _ELSEWHERE.isdisjoint(body):
            _read_elsewhere(body, ask)
        ask.choices = read_integer(body, "n", 1, answer.MAX_CHOICES) or 1
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
        ask.thinking = _thinking(body)
        modalities = body.get("modalities")
        if isinstance(modalities, list) and "audio" in modalities:
            ask.needs.setdefault("audio", "modalities")
        check_stream_options(body)
        return ask

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
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

    def usage_request(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return usage_request(body)

    def observe(self, data: bytes, report: Report) -> bool:
        if data == b"[DONE]":
            return False
        try:
            said = answer.read_seen(data)
        except answer.UNREADABLE:
            report.add_text(len(data))  # all of it rather than nothing
            return False
        if type(model := said.model) is str and model:
            report.model = model
        if said.error is not None:
            report.error = "provider_error"
        for choice in said.choices or ():
            message = choice.delta or choice.message
            if message is not None:
                report.add_text(answer.text_bytes(message))
            reason = choice.finish_reason
            if reason is not None and isinstance(reason, str) and _is_index(choice.index):
                report.finish_reasons[choice.index] = reason
        told = answer.find_usage(said)
        if told is None:
            return False
        report.add_usage(read_usage(told))
        return not said.choices and said.error is None

    def decode_request(self, body: Mapping[str, Any]) -> messages.Prompt:
        return client_request.decode(body)

    def encode_answer(self, answered: messages.Answer) -> dict[str, Any]:
        return answer.encode(answered)

    def encoder(self) -> Encoder:
        return stream.Encoder()

    def encode_problem(self, status: int, problem: messages.Problem) -> dict[str, Any]:  # noqa: ARG002 - it has none
        return encode_problem(problem)

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002 - the same for all
        return "/chat/completions"

    def encode_request(self, prompt: messages.Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode(prompt, destination, destination.more)

    def decode_answer(self, body: bytes) -> messages.Answer:
        return answer.decode(body)

    def decoder(self) -> Decoder:
        return stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> messages.Problem:
        return decode_problem(status, body)


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < answer.MAX_CHOICES


def _thinking(body: Mapping[str, Any]) -> int:
    """Wherever clients ask for it, see `request.py`."""
    thinking, reasoning = body.get("thinking"), body.get("reasoning")
    most = asked(body.get("reasoning_effort"))
    if isinstance(thinking, dict):
        kind, tokens = thinking.get("type"), thinking.get("budget_tokens")
        tokens = 0 if kind == "disabled" else tokens
        most = max(most, asked(None, tokens, adaptive=kind == "adaptive" or tokens is None))
    if isinstance(reasoning, dict):
        most = max(most, asked(reasoning.get("effort"), reasoning.get("max_tokens")))
    return most


def _read_parts(parts: list[Any], ask: Ask) -> None:
    for part in parts:
        if not isinstance(part, dict):
            continue
        image, file, audio = part.get("image_url"), part.get("file"), part.get("input_audio")
        if image is not None:
            ask.needs["images"] = "messages"
            ask.add_image(image.get("url") if isinstance(image, dict) else image, "image_url")
        if file is not None:
            ask.needs["files"] = "messages"
            data = file.get("file_data") if isinstance(file, dict) else None
            if not (isinstance(data, str) and media.is_text(data)):
                ask.add_unseen("file")
        if audio is not None:
            ask.needs["audio"] = "messages"
            data = audio.get("data") if isinstance(audio, dict) else None
            if not (isinstance(data, str) and media.is_audio_of_its_size(data)):
                ask.add_unseen("input_audio")
        if image is None and file is None and audio is None:
            kind = part.get("type")
            if not (isinstance(kind, str) and kind in _TEXTS):  # a video, or what comes next
                ask.add_unseen(kind, "content")


def _read_elsewhere(body: Mapping[str, Any], ask: Ask) -> None:
    for name in sorted(_ELSEWHERE - {"extra_body"}):
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
            ask.add_unseen(kind, "tools")


DIALECT = OpenAIChat()

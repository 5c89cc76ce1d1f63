"""The neutral form as a request that Anthropic accepts.

Roles alternate, the first message is the user's, tool results come first in a message, and no text is empty. A JSON
schema becomes a structured output. Structured outputs cannot ask for an arbitrary JSON object, so the system prompt
does, and `response_format` is named as ignored. Thinking goes back only with Anthropic's signature.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from extproc.dialects._models import Traits, traits_of
from extproc.dialects._turns import join
from extproc.dialects.anthropic_messages.schema import Fitter, strict_schemas
from extproc.dialects.anthropic_messages.thinking import Plan, plan
from extproc.words.dialect import Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import (
    FilePart,
    ImagePart,
    Part,
    Prompt,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)

OPENING = "Begin."
"""The user's first words, in a conversation that begins with the model."""
JSON_ONLY = "Answer with one JSON object and nothing else: no other text, no code fence."
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
# Media types by the first characters of base64.
IMAGES = {"/9j/": "image/jpeg", "iVBO": "image/png", "R0lG": "image/gif", "UklG": "image/webp"}
_TEXTS = frozenset(("application/json", "application/xml", "application/yaml", "application/x-yaml"))
_MAX_USER = 256
_decode = msgspec.json.Decoder().decode

Body = dict[str, Any]


def encode_request(prompt: Prompt, destination: Destination) -> tuple[Body, Sequence[str]]:
    ignored: list[str] = []
    traits = traits_of(destination.model)
    messages = _messages(prompt, ignored)
    made = plan(prompt, destination, traits, ignored, in_turn=_in_turn(messages))
    body: Body = {"model": destination.model, "max_tokens": made.max_tokens, "messages": messages}
    if prompt.stream:
        body["stream"] = True
    system = [_text(part) for part in prompt.system if part.text.strip()]
    _add_format(prompt, made, body, system, ignored)
    if system:
        plain = len(system) == 1 and "cache_control" not in system[0]
        body["system"] = system[0]["text"] if plain else system
    if made.thinking is not None:
        body["thinking"] = made.thinking
    _add_tools(prompt, traits, made, body, ignored)
    add_sampling(prompt, traits, made, body, ignored)
    _add_rest(prompt, body, ignored)
    return body, ignored


# --- the conversation


def _messages(prompt: Prompt, ignored: list[str]) -> list[Body]:
    turns: list[tuple[str, list[Body], list[Body]]] = []  # role, tool results, other parts
    for message in prompt.messages:
        results: list[Body] = []
        blocks: list[Body] = []
        for part in message.parts:
            block = _block(part, ignored)
            if block is not None:
                (results if block["type"] == "tool_result" else blocks).append(block)
        if not results and not blocks:
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(results)
            join(turns[-1][2], blocks)
        else:
            turns.append((message.role, results, blocks))
    made: list[Body] = [{"role": role, "content": results + blocks} for role, results, blocks in turns]
    if not made or made[0]["role"] != "user":
        made.insert(0, {"role": "user", "content": [{"type": "text", "text": OPENING}]})
    last = made[-1]
    # The model continues this text, which must not end in a space
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
    return made


def _block(part: Part, ignored: list[str]) -> Body | None:
    if isinstance(part, TextPart):
        return _text(part) if part.text.strip() else None
    if isinstance(part, ToolCall):
        block: Body = {"type": "tool_use", "id": _id(part.id), "name": part.name, "input": arguments(part.arguments)}
        return _cached(block, part.cache)
    if isinstance(part, ToolResult):
        block = {"type": "tool_result", "tool_use_id": _id(part.id)}
        if content := [found for inner in part.parts if (found := _block(inner, ignored)) is not None]:
            block["content"] = content
        if part.error:
            block["is_error"] = True
        return _cached(block, part.cache)
    if isinstance(part, ThinkingPart):
        return _thinking(part)
    if isinstance(part, ImagePart):
        return _image(part, ignored)
    if isinstance(part, FilePart):
        return _file(part)
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.text} if part.text.strip() else None
    raise Refusal(UNSUPPORTED_BY_TARGETS, "This model takes no audio; send text instead.", param="messages")


def _text(part: TextPart) -> Body:
    block: Body = {"type": "text", "text": part.text}
    if part.cache is not None:
        block["cache_control"] = part.cache
    return block


def _cached(block: Body, cache: Mapping[str, Any] | None) -> Body:
    if cache is not None:
        block["cache_control"] = cache
    return block


def _thinking(part: ThinkingPart) -> Body | None:
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted} if _own(part.redacted) else None
    if not _own(part.signature):
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _own(signature: str) -> bool:
    """True for a signature that may be Anthropic's: base64. Signatures of other providers have a prefix, `gemini:` or
    `openai:`.
    """
    return bool(signature) and ":" not in signature


def _image(part: ImagePart, ignored: list[str]) -> Body:
    if part.detail not in ("", "auto") and "detail" not in ignored:
        ignored.append("detail")
    data, media_type = part.data, part.media_type
    if part.url.startswith("data:"):
        head, _, data = part.url.partition(",")
        media_type = head[5:].partition(";")[0]
    elif part.url:
        return _cached({"type": "image", "source": {"type": "url", "url": part.url}}, part.cache)
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type or IMAGES.get(data[:4], "image/png")
    source = {"type": "base64", "media_type": media_type, "data": data}
    return _cached({"type": "image", "source": source}, part.cache)


def _file(part: FilePart) -> Body:
    media_type, data, source = part.media_type.partition(";")[0], part.data, None
    if part.url.startswith("data:"):
        head, _, data = part.url.partition(",")
        media_type = head[5:].partition(";")[0]
    elif part.id:
        source = {"type": "file", "file_id": part.id}
    elif part.url:
        source = {"type": "url", "url": part.url}
    if source is None:
        if media_type.startswith("image/"):
            return _image(ImagePart(data, media_type, cache=part.cache), [])
        if media_type.startswith("text/") or media_type in _TEXTS:
            source = {"type": "text", "media_type": "text/plain", "data": _plain(data)}
        elif media_type in ("", "application/pdf"):
            source = {"type": "base64", "media_type": "application/pdf", "data": data}
        else:
            message = f"This model takes PDF and text files, not '{media_type[:64]}'."
            raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="messages")
    block: Body = {"type": "document", "source": source}
    if part.name:
        block["title"] = part.name
    return _cached(block, part.cache)


def _plain(data: str) -> str:
    try:
        return b64decode(data).decode()
    except ValueError:
        raise Refusal(UNSUPPORTED_BY_TARGETS, "A text file must be UTF-8, as base64 data.", param="messages") from None


def _id(id: str) -> str:
    """A call's id, in characters that the API allows."""
    if id.replace("_", "a").replace("-", "a").isalnum() and id.isascii():
        return id
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in id) or "_"


def arguments(text: str) -> Body:
    """A call's arguments as an object, which the API requires. Other arguments become the object's field
    `arguments`.
    """
    if not text.strip():
        return {}
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"arguments": text}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex[:24]}"


def _in_turn(messages: list[Body]) -> bool:
    """True inside a model's turn that began without thinking: it called tools, or the client wrote its beginning."""
    last = next((message["content"] for message in reversed(messages) if message["role"] == "assistant"), None)
    if last is None:
        return False
    if messages[-1]["role"] == "user" and not any(block["type"] == "tool_use" for block in last):
        return False
    return last[0]["type"] not in ("thinking", "redacted_thinking")


# --- the settings


def _add_format(prompt: Prompt, made: Plan, body: Body, system: list[Body], ignored: list[str]) -> None:
    config: Body = {}
    if made.effort is not None:
        config["effort"] = made.effort
    if prompt.format is not None:
        if prompt.format.schema is None:
            system.append({"type": "text", "text": JSON_ONLY})
            ignored.append("response_format")
        else:
            fitter = Fitter()
            config["format"] = {"type": "json_schema", "schema": fitter.fit(prompt.format.schema)}
            if fitter.closed:
                ignored.append("response_format")
    if config:
        body["output_config"] = config


def _add_tools(prompt: Prompt, traits: Traits, made: Plan, body: Body, ignored: list[str]) -> None:
    if not prompt.tools:
        names = [
            block["name"] for message in body["messages"] for block in message["content"] if block["type"] == "tool_use"
        ]
        if names:  # past calls need a definition of their tools, even if no more calls may follow
            body["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in dict.fromkeys(names)]
            body["tool_choice"] = {"type": "none"}
        return
    schemas = strict_schemas(prompt.tools) if traits.strict else None
    if schemas is None:
        schemas = {}
        if any(tool.strict for tool in prompt.tools):
            ignored.append("strict")
    tools = []
    for index, tool in enumerate(prompt.tools):
        schema = schemas.get(index, tool.schema)
        if schema.get("type") != "object":
            schema = {**schema, "type": "object"}
        block: Body = {"name": tool.name, "input_schema": schema}
        if tool.description:
            block["description"] = tool.description
        if index in schemas:
            block["strict"] = True
        tools.append(_cached(block, tool.cache))
    body["tools"] = tools

    mode = prompt.tool_choice.mode if prompt.tool_choice is not None else ""
    choice: Body = {"type": "any" if mode == "required" else mode}
    if mode in ("required", "tool") and not made.forced_tools:
        choice["type"] = mode = "auto"
        ignored.append("tool_choice")
    if mode == "tool" and prompt.tool_choice is not None:
        choice["name"] = prompt.tool_choice.name
    if prompt.parallel_tools is False and mode != "none":
        choice["type"] = choice["type"] or "auto"
        choice["disable_parallel_tool_use"] = True
    if choice["type"]:
        body["tool_choice"] = choice


def add_sampling(prompt: Prompt, traits: Traits, made: Plan, body: Body, ignored: list[str]) -> None:
    """Add temperature, top_p and top_k if the model accepts them; with thinking, only values without an effect on
    it.
    """
    temperature, top_p, top_k = prompt.temperature, prompt.top_p, prompt.top_k
    if temperature is not None:
        if traits.sampling and not made.on:
            body["temperature"] = min(temperature, 1.0)
            if temperature > 1:
                ignored.append("temperature")
        elif temperature != 1:
            ignored.append("temperature")
    if top_p is not None:
        clash = traits.one_of_sampling and "temperature" in body
        if traits.sampling and not clash and (not made.on or top_p >= 0.95):
            body["top_p"] = top_p
        elif top_p != 1:
            ignored.append("top_p")
    if top_k is not None:
        if traits.sampling and not made.on:
            body["top_k"] = top_k
        else:
            ignored.append("top_k")


def _add_rest(prompt: Prompt, body: Body, ignored: list[str]) -> None:
    stop = [word for word in prompt.stop if word.strip()]
    if stop:
        body["stop_sequences"] = stop
    if len(stop) < len(prompt.stop):
        ignored.append("stop")
    if prompt.user and len(prompt.user) <= _MAX_USER:
        body["metadata"] = {"user_id": prompt.user}
    elif prompt.user:
        ignored.append("user")
    if tier := _TIERS.get(prompt.service_tier):
        body["service_tier"] = tier
    elif prompt.service_tier:
        ignored.append("service_tier")
    ignored += [
        name
        for name, value in (
            ("metadata", prompt.metadata or None),
            ("seed", prompt.seed),
            ("presence_penalty", prompt.presence_penalty or None),
            ("frequency_penalty", prompt.frequency_penalty or None),
        )
        if value is not None
    ]

"""Converse's demands on a conversation of valid shape, and the conversation as Anthropic would write it.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html, .../tool-use.html,
.../prompt-caching.html; the errors as they are reported from the API.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import msgspec

from tests.doubles import anthropic_rules, anthropic_shapes
from tests.doubles.answers import Json, Refused
from tests.doubles.shapes import Wrong, record

DEFAULT_LIMIT = 4096  # output tokens, where a request to a Claude sets no limit
_THINKING = ("thinking", "reasoning_config")  # fields of additionalModelRequestFields


def check(body: Json, model: str) -> None:
    """Refuse the requests that the API, or a Claude behind it, would refuse."""
    _check_roles(body["messages"])
    for index, message in enumerate(body["messages"]):
        _check_content(message, f"messages.{index}")
    _check_pairs(body["messages"])
    _check_tools(body)
    if re.search(r"anthropic|claude", model):
        _check_claude(body, model)


def _check_roles(messages: list[Json]) -> None:
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if not roles or roles[0] != "user":
        again = "Try again with a conversation that starts with a user message."
        raise Refused(400, f"A conversation must start with a user message. {again}")
    if any(one == other for one, other in pairwise(roles)):
        again = "Make sure the conversation alternates between user and assistant roles and try again."
        raise Refused(400, f"A conversation must alternate between user and assistant roles. {again}")


def _check_content(message: Json, where: str) -> None:
    if not message["content"]:
        again = "Add a ContentBlock object to the content field and try again."
        raise Refused(400, f"The content field in the Message object at {where} is empty. {again}")
    names = []
    for index, block in enumerate(message["content"]):
        if block.get("text") is not None and not block["text"].strip():
            again = "Add text to the text field, and try again."
            raise Refused(
                400, f"The text field in the ContentBlock object at {where}.content.{index} is blank. {again}"
            )
        misplaced = (
            ("toolUse", "reasoningContent") if message["role"] == "user" else ("toolResult", "image", "document")
        )
        for name in misplaced:
            if block.get(name) is not None:
                article = "can only be included in messages with role"
                role = "assistant" if message["role"] == "user" else "user"
                raise Refused(400, f"The {name} block at {where}.content.{index} {article} {role}.")
        if block.get("document"):
            names.append(block["document"]["name"])
    if names and not any(block.get("text") for block in message["content"]):
        raise Refused(400, f"A document at {where} must be accompanied by a text block in the same message.")
    if len({*names}) != len(names):
        raise Refused(400, f"Prompt contains duplicate document names at {where}.")


def _check_pairs(messages: list[Json]) -> None:
    called: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        results = [block["toolResult"]["toolUseId"] for block in message["content"] if block.get("toolResult")]
        if len(results) > len(called):
            exceeds = "exceeds the number of toolUse blocks of previous turn."
            raise Refused(400, f"The number of toolResult blocks at messages.{index}.content {exceeds}")
        missing = [each for each in called if each not in results]
        if missing:
            expected = f"Expected toolResult blocks at messages.{index}.content for the following Ids"
            raise Refused(400, f"{expected}: {', '.join(missing)}")
        called = [block["toolUse"]["toolUseId"] for block in message["content"] if block.get("toolUse")]
        if len({*called}) != len(called):
            raise Refused(400, f"The toolUse blocks at messages.{index}.content contain duplicate Ids: {called}")
    if called:
        expected = f"Expected toolResult blocks at messages.{len(messages)}.content for the following Ids"
        raise Refused(400, f"{expected}: {', '.join(called)}")


def _check_tools(body: Json) -> None:
    config = body.get("toolConfig") or {}
    used = any(
        block.get("toolUse") or block.get("toolResult") for each in body["messages"] for block in each["content"]
    )
    if used and not config:
        raise Refused(400, "The toolConfig field must be defined when using toolUse and toolResult content blocks.")
    specs = [tool["toolSpec"] for tool in config.get("tools", []) if tool.get("toolSpec")]
    names = [spec["name"] for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise Refused(400, f"The tools at toolConfig.tools contain duplicate names: {name}")
    for index, spec in enumerate(specs):
        if spec["inputSchema"]["json"].get("type") != "object":
            where = f"toolConfig.tools.{index}.toolSpec.inputSchema.json.type"
            raise Refused(400, f"The value at {where} must be one of the following: object.")
    wanted = ((config.get("toolChoice") or {}).get("tool") or {}).get("name")
    if wanted and wanted not in names:
        raise Refused(400, f"The tool {wanted} at toolConfig.toolChoice is not among toolConfig.tools.")


# --- Claude


def _check_claude(body: Json, model: str) -> None:
    fields = body.get("additionalModelRequestFields") or {}
    extra = {"thinking" if name in _THINKING else name: each for name, each in fields.items()}
    asked = as_anthropic(body)
    try:
        record(anthropic_shapes.EXTRA)(extra, ())
        anthropic_rules.check(asked | extra, model)
    except Wrong as wrong:
        raise Refused(400, f"The model returned the following errors: {anthropic_rules.worded(wrong)}") from None
    except Refused as refused:
        raise Refused(400, f"The model returned the following errors: {refused.message}") from None


def as_anthropic(body: Json) -> Json:
    """The request in Anthropic's form, as far as it is needed to check and to answer it."""
    config = body.get("inferenceConfig") or {}
    tools = body.get("toolConfig") or {}
    choice = tools.get("toolChoice") or {}
    asked: Json = {
        "messages": [{"role": each["role"], "content": _blocks(each["content"])} for each in body["messages"]],
        "system": _blocks(body.get("system") or []),
        "tools": _blocks(tools.get("tools") or []),
        "max_tokens": config.get("maxTokens") or DEFAULT_LIMIT,
        "stop_sequences": config.get("stopSequences") or [],
    }
    for name, theirs in (("temperature", "temperature"), ("topP", "top_p")):
        if config.get(name) is not None:
            asked[theirs] = config[name]
    if choice:
        kind = next(name for name in choice if choice[name] is not None)
        asked["tool_choice"] = {"type": kind} | ({"name": choice["tool"]["name"]} if kind == "tool" else {})
    output = body.get("outputConfig") or {}
    if output.get("effort"):
        asked["output_config"] = {"effort": output["effort"]}
    if output.get("textFormat"):
        schema = msgspec.json.decode(output["textFormat"]["structure"]["jsonSchema"]["schema"])
        asked.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
    return asked


def _blocks(content: list[Json]) -> list[Json]:
    """Content, or tools. A cache point becomes a mark on the block before it."""
    made: list[Json] = []
    for block in content:
        if block.get("cachePoint") is not None:
            mark = {"type": "ephemeral", "ttl": block["cachePoint"].get("ttl") or "5m"}
            made[-1:] = [made[-1] | {"cache_control": mark}] if made else []
        else:
            made += _block({name: each for name, each in block.items() if each is not None})
    return made


def _block(block: Json) -> list[Json]:
    [(kind, inner)] = block.items()
    match kind:
        case "text":
            return [{"type": "text", "text": inner}]
        case "image" | "document" | "video" | "audio":
            return [{"type": "image"}]
        case "searchResult":
            texts = [{"type": "text", "text": each["text"]} for each in inner["content"]]
            return [{"type": "search_result", "content": texts}]
        case "toolUse":
            return [{"type": "tool_use", "id": inner["toolUseId"], "name": inner["name"], "input": inner["input"]}]
        case "toolResult":
            failed = inner.get("status") == "error"
            content = _blocks(inner["content"])
            return [{"type": "tool_result", "tool_use_id": inner["toolUseId"], "content": content, "is_error": failed}]
        case "json":
            return [{"type": "text", "text": msgspec.json.encode(inner).decode()}]
        case "reasoningContent":
            return [_thought(inner)]
        case "toolSpec":
            strict = {"strict": True} if inner.get("strict") else {}
            return [{"name": inner["name"], "input_schema": inner["inputSchema"]["json"]} | strict]
        case "systemTool":
            return [{"name": inner["name"]}]
        case _:
            return [{"type": kind}]


def _thought(inner: Json) -> Json:
    if inner.get("redactedContent") is not None:
        return {"type": "redacted_thinking", "data": inner["redactedContent"]}
    shown: Any = inner["reasoningText"]
    return {"type": "thinking", "thinking": shown["text"], "signature": shown.get("signature") or ""}

"""The same conversation gets the same answer, with the same token counts, in every API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.doubles.routes import find

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"type": "string"}}, "additionalProperties": False}
TOOLS = {"get_weather": WEATHER, "get_time": TIME}
PNG = "iVBORw0KGgo="


@dataclass
class Case:
    """A conversation. A turn is a user's text, {"calls": ...} of the assistant, or {"results": ...} of tools."""

    turns: list[Any]
    system: str = ""
    tools: bool = False
    image: bool = False
    thinks: bool = False
    schema: bool = False
    limit: int = 2000
    stop: str = ""
    faults: str = ""


@dataclass
class Said:
    text: str
    calls: list[Any]
    cut: bool
    input: int
    output: int
    cached: int
    reasoning: int | None  # None where the API does not report it


CALLED = {"calls": {"c1": ("get_weather", {"city": "x", "days": 1}), "c2": ("get_time", {})}}
CASES = {
    "text": Case(["hello there"], system="Be brief."),
    "turns": Case(["first", "assistant: second", "third words"]),
    "image": Case(["what is this"], image=True),
    "tool": Case(["hello"], tools=True),
    "parallel": Case(["in parallel"], tools=True),
    "results": Case(["hello", CALLED, {"results": {"c1": "18 degrees", "c2": '{"hour": 3}'}}], tools=True),
    "thinking": Case(["hello there"], thinks=True),
    "schema": Case(["hello there"], schema=True),
    "length": Case(["hello there"], limit=2),
    "stop": Case(["hello there"], stop=" there"),
    "words": Case(["hello there"], faults="+words=30"),
    "cached": Case(["hello there you"], faults="+cached=2"),
}


# --- APIs: path, body, and the facts of the answer


def chat(case):
    messages: list[Any] = [{"role": "system", "content": case.system}] if case.system else []
    for turn in case.turns:
        match turn:
            case {"calls": calls}:
                function = [
                    {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
                    for id, (name, given) in calls.items()
                ]
                messages.append({"role": "assistant", "content": None, "tool_calls": function})
            case {"results": results}:
                messages += [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results.items()]
            case str():
                role, text = spoken(turn)
                messages.append({"role": role, "content": text})
    if case.image:
        url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        messages[-1]["content"] = [{"type": "text", "text": messages[-1]["content"]}, url]
    body: Any = {"model": "m" + case.faults, "messages": messages, "max_completion_tokens": case.limit}
    if case.tools:
        body["tools"] = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in TOOLS.items()]
    if case.thinks:
        body["reasoning_effort"] = "low"
    if case.schema:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}
    if case.stop:
        body["stop"] = case.stop

    def read(answer):
        choice, usage = answer["choices"][0], answer["usage"]
        calls = [call["function"] for call in choice["message"].get("tool_calls", ())]
        return Said(
            choice["message"]["content"] or "",
            [(call["name"], json.loads(call["arguments"])) for call in calls],
            choice["finish_reason"] == "length",
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            usage["completion_tokens_details"]["reasoning_tokens"],
        )

    return "/v1/chat/completions", body, read


def responses(case):
    items: list[Any] = []
    for turn in case.turns:
        match turn:
            case {"calls": calls}:
                items += [
                    {"type": "function_call", "call_id": id, "name": name, "arguments": json.dumps(given)}
                    for id, (name, given) in calls.items()
                ]
            case {"results": results}:
                items += [
                    {"type": "function_call_output", "call_id": id, "output": text} for id, text in results.items()
                ]
            case str():
                role, text = spoken(turn)
                items.append({"role": role, "content": text})
    if case.image:
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
        items[-1]["content"] = [{"type": "input_text", "text": items[-1]["content"]}, image]
    if case.stop or case.limit < 16:
        return None  # has no stop sequences, and no lower limit
    body: Any = {"model": "m" + case.faults, "input": items, "max_output_tokens": case.limit}
    if case.system:
        body["instructions"] = case.system
    if case.tools:
        body["tools"] = [{"type": "function", "name": n, "parameters": s, "strict": False} for n, s in TOOLS.items()]
    if case.thinks:
        body["reasoning"] = {"effort": "low"}
    if case.schema:
        body["text"] = {"format": {"type": "json_schema", "name": "w", "schema": WEATHER}}

    def read(answer):
        output, usage = answer["output"], answer["usage"]
        texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
        calls = [(i["name"], json.loads(i["arguments"])) for i in output if i["type"] == "function_call"]
        return Said(
            "".join(texts),
            calls,
            answer["status"] == "incomplete",
            usage["input_tokens"],
            usage["output_tokens"],
            usage["input_tokens_details"]["cached_tokens"],
            usage["output_tokens_details"]["reasoning_tokens"],
        )

    return "/v1/responses", body, read


def anthropic(case):
    messages: list[Any] = []
    for turn in case.turns:
        match turn:
            case {"calls": calls}:
                blocks = [
                    {"type": "tool_use", "id": id, "name": name, "input": given} for id, (name, given) in calls.items()
                ]
                messages.append({"role": "assistant", "content": blocks})
            case {"results": results}:
                blocks = [{"type": "tool_result", "tool_use_id": id, "content": text} for id, text in results.items()]
                messages.append({"role": "user", "content": blocks})
            case str():
                role, text = spoken(turn)
                messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    if case.image:
        source = {"type": "base64", "media_type": "image/png", "data": PNG}
        messages[-1]["content"].append({"type": "image", "source": source})
    body: Any = {"model": "m" + case.faults, "messages": messages, "max_tokens": case.limit}
    if case.system:
        body["system"] = case.system
    if case.tools:
        body["tools"] = [{"name": name, "input_schema": schema} for name, schema in TOOLS.items()]
    if case.thinks:
        body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    if case.schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": WEATHER}}
    if case.stop:
        body["stop_sequences"] = [case.stop]

    def read(answer):
        blocks, usage = answer["content"], answer["usage"]
        cached = usage["cache_read_input_tokens"]
        return Said(
            "".join(block["text"] for block in blocks if block["type"] == "text"),
            [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
            answer["stop_reason"] == "max_tokens",
            usage["input_tokens"] + cached,
            usage["output_tokens"],
            cached,
            usage["output_tokens_details"]["thinking_tokens"],
        )

    return "/v1/messages", body, read


def bedrock(case):
    _, body, read = anthropic(case)
    path = f"/model/{encoded(body.pop('model'))}/invoke"
    return path, body | {"anthropic_version": "bedrock-2023-05-31"}, read


def gemini(case):
    contents: list[Any] = []
    names = {
        id: name for turn in case.turns if isinstance(turn, dict) for id, (name, _) in turn.get("calls", {}).items()
    }
    for turn in case.turns:
        match turn:
            case {"calls": calls}:
                parts = [{"functionCall": {"name": name, "args": given}} for name, given in calls.values()]
                contents.append({"role": "model", "parts": parts})
            case {"results": results}:
                parts = [
                    {"functionResponse": {"name": names[id], "response": {"output": text}}}
                    for id, text in results.items()
                ]
                contents.append({"role": "user", "parts": parts})
            case str():
                role, text = spoken(turn)
                contents.append({"role": {"assistant": "model"}.get(role, role), "parts": [{"text": text}]})
    if case.image:
        contents[-1]["parts"].append({"inlineData": {"mimeType": "image/png", "data": PNG}})
    config: Any = {"maxOutputTokens": case.limit}
    body: Any = {"contents": contents, "generationConfig": config}
    if case.system:
        body["systemInstruction"] = {"parts": [{"text": case.system}]}
    if case.tools:
        body["tools"] = [
            {"functionDeclarations": [{"name": n, "parametersJsonSchema": schema} for n, schema in TOOLS.items()]}
        ]
    if case.thinks:
        config["thinkingConfig"] = {"thinkingBudget": 1024}
    if case.schema:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": WEATHER}
    if case.stop:
        config["stopSequences"] = [case.stop]

    def read(answer):
        candidate, usage = answer["candidates"][0], answer["usageMetadata"]
        calls = [part["functionCall"] for part in candidate["content"]["parts"] if "functionCall" in part]
        thoughts = usage.get("thoughtsTokenCount", 0)
        return Said(
            "".join(part.get("text", "") for part in candidate["content"]["parts"]),
            [(call["name"], call["args"]) for call in calls],
            candidate["finishReason"] == "MAX_TOKENS",
            usage["promptTokenCount"],
            usage["candidatesTokenCount"] + thoughts,
            usage.get("cachedContentTokenCount", 0),
            thoughts,
        )

    return f"/v1beta/models/{encoded('m' + case.faults)}:generateContent", body, read


def converse(case):
    messages: list[Any] = []
    for turn in case.turns:
        match turn:
            case {"calls": calls}:
                blocks = [
                    {"toolUse": {"toolUseId": id, "name": name, "input": given}} for id, (name, given) in calls.items()
                ]
                messages.append({"role": "assistant", "content": blocks})
            case {"results": results}:
                blocks = [{"toolResult": {"toolUseId": i, "content": [{"text": t}]}} for i, t in results.items()]
                messages.append({"role": "user", "content": blocks})
            case str():
                role, text = spoken(turn)
                messages.append({"role": role, "content": [{"text": text}]})
    if case.image:
        messages[-1]["content"].append({"image": {"format": "png", "source": {"bytes": PNG}}})
    config: Any = {"maxTokens": case.limit}
    body: Any = {"messages": messages, "inferenceConfig": config}
    if case.system:
        body["system"] = [{"text": case.system}]
    if case.tools:
        specs = [{"toolSpec": {"name": n, "inputSchema": {"json": schema}}} for n, schema in TOOLS.items()]
        body["toolConfig"] = {"tools": specs}
    if case.thinks:
        body["additionalModelRequestFields"] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    if case.schema:
        structure = {"jsonSchema": {"schema": json.dumps(WEATHER)}}
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    if case.stop:
        config["stopSequences"] = [case.stop]

    def read(answer):
        blocks, usage = answer["output"]["message"]["content"], answer["usage"]
        cached = usage.get("cacheReadInputTokens", 0)
        calls = [block["toolUse"] for block in blocks if "toolUse" in block]
        return Said(
            "".join(block.get("text", "") for block in blocks),
            [(call["name"], call["input"]) for call in calls],
            answer["stopReason"] == "max_tokens",
            usage["inputTokens"] + cached,
            usage["outputTokens"],
            cached,
            None,
        )

    return f"/model/{encoded('m' + case.faults)}/converse", body, read


def cohere(case):
    _, made, _ = chat(case)
    body = {"model": made["model"], "messages": made["messages"], "max_tokens": case.limit}
    for message in body["messages"]:
        if message["role"] == "assistant" and message["content"] is None:
            del message["content"]
    if case.tools:
        body["tools"] = made["tools"]
    if case.thinks:
        body["thinking"] = {"type": "enabled"}
    if case.schema:
        body["response_format"] = {"type": "json_object", "json_schema": WEATHER}
    if case.stop:
        body["stop_sequences"] = [case.stop]

    def read(answer):
        message, usage = answer["message"], answer["usage"]
        calls = [call["function"] for call in message.get("tool_calls", ())]
        plan = len(message.get("tool_plan", "").split())
        return Said(
            "".join(part["text"] for part in message.get("content", ()) if part["type"] == "text"),
            [(call["name"], json.loads(call["arguments"]) or {}) for call in calls],
            answer["finish_reason"] == "MAX_TOKENS",
            usage["tokens"]["input_tokens"],
            usage["tokens"]["output_tokens"] - plan,
            usage["cached_tokens"],
            None,
        )

    return "/v2/chat", body, read


DIALECTS = [responses, anthropic, bedrock, gemini, converse, cohere]


def spoken(turn: str) -> tuple[str, str]:
    return ("assistant", turn.removeprefix("assistant: ")) if turn.startswith("assistant: ") else ("user", turn)


def encoded(model: str) -> str:
    return model.replace("+", "%2B").replace("=", "%3D")


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
@pytest.mark.parametrize("name", CASES)
async def test_every_api_answers_as_openai_chat_does(mock, dialect, name):
    mock.headers = {"anthropic-version": "2023-06-01"}
    path, body, read = chat(CASES[name])
    expected = read(await mock.plain(path, body))
    asked = dialect(CASES[name])
    if asked is None:
        return
    path, body, read = asked
    if find(path)[0] is None:
        pytest.skip("is not spoken")
    said = read(await mock.plain(path, body))
    if said.reasoning is None:
        said.reasoning = expected.reasoning
    assert said == expected

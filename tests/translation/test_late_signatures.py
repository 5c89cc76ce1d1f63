"""Thought signatures that Gemini streams behind the part that they belong to, in an event of their own."""

import json

import pytest

from extproc.dialects import client_apis
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Destination

GEMINI = client_apis()["gemini_generate_content"]
LATE = {"text": "", "thoughtSignature": "bGF0ZQ=="}
SIGNED = "bGF0ZQ=="
THOUGHT = {"text": "Hm.", "thought": True}
CALL = {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}}
OTHER = {"functionCall": {"id": "c2", "name": "g", "args": {}}}


def said_messages(events):
    """The turn as Anthropic's SDKs gather it."""
    blocks = {}
    for event in events:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = dict(event["content_block"])
        elif event["type"] == "content_block_delta":
            block, delta = blocks[event["index"]], event["delta"]
            for kind, field in (("text", "text"), ("thinking", "thinking"), ("signature", "signature")):
                if delta["type"] == f"{kind}_delta":
                    block[field] = block.get(field, "") + delta[field]
            if delta["type"] == "input_json_delta":
                block["written"] = block.get("written", "") + delta["partial_json"]
    for block in blocks.values():
        if "written" in block:
            block["input"] = json.loads(block.pop("written"))
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": list(blocks.values())}]}


def said_chat(events):
    """The turn as OpenAI's SDKs gather it."""
    message, calls, blocks = {"role": "assistant", "content": ""}, {}, []
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            blocks += delta.get("thinking_blocks", [])
            for call in delta.get("tool_calls", []):
                known = calls.setdefault(call["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
                for field in ("id", "extra_content"):
                    if field in call:
                        known[field] = call[field]
                for field, text in call.get("function", {}).items():
                    known["function"][field] += text
    message |= {"thinking_blocks": blocks} if blocks else {}
    message |= {"tool_calls": list(calls.values())} if calls else {}
    return {"messages": [{"role": "user", "content": "q"}, message]}


def said_responses(events):
    """The items of the whole response, at its end."""
    return {"input": [{"role": "user", "content": "q"}, *events[-1]["response"]["output"]]}


SAID = {"anthropic_messages": said_messages, "openai_chat": said_chat, "openai_responses": said_responses}


def returned(api, *parts):
    """The parts of the model's turn that Gemini gets back after it has streamed `parts`, an event for each."""
    client, decoder = client_apis()[api], GEMINI.decoder()
    encoder = client.translation.encoder()
    chunks = [
        {"candidates": [{"content": {"role": "model", "parts": [part]}}], "modelVersion": "gemini-3-pro"}
        for part in parts
    ]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    events = [each for chunk in chunks for each in decoder.feed(json.dumps(chunk).encode(), "")]
    events += decoder.end()
    raw = b"".join(encoder.feed(event) for event in events)
    framing = SSE()
    framed = [*framing.feed(raw), *framing.end()]
    body = SAID[api]([json.loads(event.data) for event in framed if event.data and event.data != b"[DONE]"])
    prompt = client.translation.decode_request({"model": "m", "max_tokens": 99, **body})
    contents = GEMINI.encode_request(prompt, Destination("gemini-2.5-pro"))[0]["contents"]
    return [each for turn in contents if turn["role"] == "model" for each in turn["parts"] if not each.get("thought")]


@pytest.mark.parametrize("api", SAID)
@pytest.mark.parametrize(
    ("streamed", "back"),
    [
        ([{"text": "Hel"}, {"text": "lo."}, LATE], [{"text": "Hello.", "thoughtSignature": SIGNED}]),
        ([THOUGHT, {"text": "Hello."}, LATE], [{"text": "Hello.", "thoughtSignature": SIGNED}]),
        ([CALL, LATE], [{**CALL, "thoughtSignature": SIGNED}]),
        ([{"text": "Hello."}, CALL, LATE], [{"text": "Hello."}, {**CALL, "thoughtSignature": SIGNED}]),
        ([CALL, {"text": "Hello."}, LATE], [CALL, {"text": "Hello.", "thoughtSignature": SIGNED}]),
        ([CALL, OTHER, LATE], [{**CALL, "thoughtSignature": SIGNED}, OTHER]),  # Google signs the first
        ([CALL, LATE, OTHER], [{**CALL, "thoughtSignature": SIGNED}, OTHER]),
        (
            [{**CALL, "thoughtSignature": "b3du"}, {"text": "Hello."}, LATE],
            [{**CALL, "thoughtSignature": "b3du"}, {"text": "Hello.", "thoughtSignature": SIGNED}],
        ),
    ],
)
def test_a_late_signature_returns_to_its_part(api, streamed, back):
    found = returned(api, *streamed)
    order = {"text": 0, "functionCall": 1}  # messages of Chat Completions have their text in front of calls
    assert sorted(found, key=lambda part: order[next(iter(part))]) == sorted(
        back, key=lambda part: order[next(iter(part))]
    )

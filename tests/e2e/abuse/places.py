"""Every field of each API in which a client can put text, with a secret in it. Each value holds fields that replace
those of a good request.

Opaque data is scanned as it stands. A secret in base64 inside `encrypted_content`, a signature or redacted thinking is
not found; only its own provider could read it. Text files are found, because translations decode them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

SECRET = "AKIA" + "CANARY7CANARY7XX"
CARD = 4111111111111111
TEXT = f"my key is {SECRET}, keep it"
ESCAPED = (
    '{"key": "' + "".join(f"\\u{ord(letter):04x}" for letter in SECRET) + '"}'
)  # JSON text, like the arguments of a tool call
FILE = b64encode(TEXT.encode()).decode()
CACHE = {"type": "ephemeral"}

Place = Mapping[str, Any]

_KEYED = {"type": "object", "properties": {SECRET: {"type": "string"}}}
_SCHEMAS: Mapping[str, Any] = {
    "a description": {"type": "object", "properties": {"a": {"description": TEXT}}},
    "an enum": {"type": "object", "properties": {"a": {"enum": ["x", TEXT]}}},
    "a default": {"type": "object", "properties": {"a": {"default": {"b": [TEXT]}}}},
    "a pattern": {"type": "object", "properties": {"a": {"type": "string", "pattern": SECRET}}},
    "the name of a property": _KEYED,
    "the name of a property, deep": {"type": "object", "properties": {"a": {"items": [_KEYED]}}},
    "what is required": {"type": "object", "required": [SECRET]},
    "a number": {"type": "object", "properties": {"a": {"const": CARD}}},
    "$defs": {"type": "object", "$defs": {SECRET: {}}},
}


# --- responses


def _input(*items: Any) -> Place:
    return {"input": [{"role": "user", "content": "Hi"}, *items]}


def _part(**part: Any) -> Place:
    return _input({"role": "user", "content": [{"type": "input_text", "text": "a"}, part]})


_CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
_CUSTOM = {"type": "custom_tool_call", "call_id": "c2", "name": "c", "input": "x"}
_FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}

RESPONSES: Mapping[str, Place] = (
    {
        "input": {"input": TEXT},
        "instructions": {"instructions": TEXT},
        "a message": _input({"role": "user", "content": TEXT}),
        "a message with a type": _input({"type": "message", "role": "user", "content": TEXT}),
        "a system message": _input({"role": "system", "content": TEXT}),
        "a developer message": _input({"role": "developer", "content": [{"type": "input_text", "text": TEXT}]}),
        "an earlier answer": _input({"role": "assistant", "content": [{"type": "output_text", "text": TEXT}]}),
        "an annotation": _input(
            {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": [{"url": TEXT}]}]}
        ),
        "an earlier refusal": _input({"role": "assistant", "content": [{"type": "refusal", "refusal": TEXT}]}),
        "a role": _input({"role": SECRET, "content": "a"}),
        "a part": _part(type="input_text", text=TEXT),
        "a part with a cache mark": _part(type="input_text", text=TEXT, prompt_cache_breakpoint={"ttl": "1h"}),
        "a part nobody knows": _part(type="new", new={"deep": [{"er": TEXT}]}),
        "the type of a part": _part(type=SECRET),
        "the address of an image": _part(type="input_image", image_url=f"https://example.com/{SECRET}"),
        "an uploaded image": _part(type="input_image", file_id=SECRET),
        "the name of a file": _part(type="input_file", filename=f"{SECRET}.pdf", file_data="AAAA"),
        "the address of a file": _part(type="input_file", file_url=f"https://example.com/{SECRET}"),
        "an uploaded file": _part(type="input_file", file_id=SECRET),
        "a file of text": _part(type="input_file", filename="a.txt", file_data=f"data:text/plain;base64,{FILE}"),
        "a file of text, bare": _part(type="input_file", filename="a.md", file_data=FILE),
        "a file in plain": _part(type="input_file", filename="a.txt", file_data=TEXT),
        "the format of audio": _part(type="input_audio", input_audio={"data": "AAAA", "format": SECRET}),
        "arguments of a call": _input(_CALL | {"arguments": json.dumps({"key": TEXT})}),
        "arguments with escapes": _input(_CALL | {"arguments": ESCAPED}),
        "arguments, the name of one": _input(_CALL | {"arguments": json.dumps({SECRET: 1})}),
        "the name of a call": _input(_CALL | {"name": SECRET}),
        "the id of a call": _input(_CALL | {"call_id": SECRET}),
        "a result": _input(_CALL, {"type": "function_call_output", "call_id": "c1", "output": TEXT}),
        "a result with escapes": _input(_CALL, {"type": "function_call_output", "call_id": "c1", "output": ESCAPED}),
        "a result in parts": _input(
            _CALL,
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": TEXT}]},
        ),
        "a file in a result": _input(
            _CALL,
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [{"type": "input_file", "filename": "a.txt", "file_data": f"data:text/plain;base64,{FILE}"}],
            },
        ),
        "input of a custom call": _input(_CUSTOM | {"input": TEXT}),
        "a custom result": _input(_CUSTOM, {"type": "custom_tool_call_output", "call_id": "c2", "output": TEXT}),
        "reasoning, its summary": _input(
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": TEXT}]}
        ),
        "reasoning, its content": _input(
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": TEXT}]}
        ),
        "reasoning, encrypted, as it stands": _input(
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SECRET}
        ),
        "an item nobody knows": _input({"type": "new", "text": [TEXT]}),
        "a field of an item nobody knows": _input({"role": "user", "content": "a", "new": {"a": TEXT}}),
        "a call of a shell": _input(
            {"type": "local_shell_call", "call_id": "c", "action": {"command": ["echo", TEXT]}}
        ),
        "a search": _input({"type": "web_search_call", "id": "ws", "action": {"type": "search", "query": TEXT}}),
        "more tools": _input({"type": "additional_tools", "tools": [_FUNCTION | {"description": TEXT}]}),
        "a reference": _input({"type": "item_reference", "id": SECRET}),
        "a generated image, its prompt": _input(
            {"type": "image_generation_call", "id": "ig", "result": "AAAA", "revised_prompt": TEXT}
        ),
        "a tool's name": {"tools": [_FUNCTION | {"name": SECRET}]},
        "a tool's description": {"tools": [_FUNCTION | {"description": TEXT}]},
        "a custom tool's description": {"tools": [{"type": "custom", "name": "c", "description": TEXT}]},
        "a custom tool's grammar": {
            "tools": [
                {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": TEXT}}
            ]
        },
        "a hosted tool's address": {
            "tools": [{"type": "mcp", "server_label": "a", "server_url": f"https://{SECRET}.test"}]
        },
        "a hosted tool's header": {"tools": [{"type": "mcp", "server_label": "a", "headers": {"x": SECRET}}]},
        "the name of a hosted tool's header": {
            "tools": [{"type": "mcp", "server_label": "a", "headers": {SECRET: "x"}}]
        },
        "the choice of a tool": {"tools": [_FUNCTION], "tool_choice": {"type": "function", "name": SECRET}},
        "the name of a format": {"text": {"format": {"type": "json_schema", "name": SECRET, "schema": {}}}},
        "metadata": {"metadata": {"note": TEXT}},
        "the name of metadata": {"metadata": {SECRET: "x"}},
        "user": {"user": SECRET},
        "safety_identifier": {"safety_identifier": SECRET},
        "prompt_cache_key": {"prompt_cache_key": SECRET},
        "service_tier": {"service_tier": SECRET},
        "include": {"include": [SECRET]},
        "a stored prompt": {"prompt": {"id": "pmpt_1", "variables": {"a": TEXT}}},
        "the name of a variable": {"prompt": {"id": "pmpt_1", "variables": {SECRET: "a"}}},
        "an earlier response": {"previous_response_id": SECRET},
        "a conversation": {"conversation": {"id": SECRET}},
        "a field nobody knows": {"new_in_2030": {"a": {"b": [TEXT]}}},
        "the name of a field": {SECRET: 1},
        "a number nobody knows": {"new_in_2030": [CARD]},
    }
    | {f"a tool's schema: {name}": {"tools": [_FUNCTION | {"parameters": schema}]} for name, schema in _SCHEMAS.items()}
    | {
        f"a format's schema: {name}": {"text": {"format": {"type": "json_schema", "name": "n", "schema": schema}}}
        for name, schema in _SCHEMAS.items()
    }
)


OPENAI_ONLY = frozenset(
    ("a reference", "a stored prompt", "the name of a variable", "an earlier response", "a conversation")
)
"""State that OpenAI keeps. Such a request is refused before guardrails run where the target has another API."""


# --- messages, and token counts of messages


def _content(*blocks: Any) -> Place:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def _turn(*blocks: Any) -> Place:
    """An earlier answer, followed by `more`."""
    return {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": list(blocks)},
            {"role": "user", "content": "Go on"},
        ]
    }


def _result(content: Any, **fields: Any) -> Place:
    return _content({"type": "tool_result", "tool_use_id": "t1", "content": content, **fields})


def _document(**source: Any) -> dict[str, Any]:
    return {"type": "document", "source": source}


_TOOL = {"name": "f", "input_schema": {"type": "object"}}
_USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
_SAID = {"type": "text", "text": TEXT}
_FOUND = {"type": "search_result", "title": "a", "source": "b", "content": [{"type": "text", "text": "c"}]}

MESSAGES: Mapping[str, Place] = (
    {
        "a message": {"messages": [{"role": "user", "content": TEXT}]},
        "a role": {"messages": [{"role": SECRET, "content": "a"}]},
        "system": {"system": TEXT},
        "a system block": {"system": [{"type": "text", "text": "a"}, _SAID]},
        "a system block with a cache mark": {"system": [_SAID | {"cache_control": CACHE}]},
        "a system message in between": {
            "messages": [{"role": "user", "content": "a"}, {"role": "system", "content": TEXT}]
        },
        "a block": _content({"type": "text", "text": "a"}, _SAID),
        "a block with a cache mark": _content(_SAID | {"cache_control": CACHE}),
        "a cache mark itself": _content({"type": "text", "text": "a", "cache_control": {"type": SECRET}}),
        "a block nobody knows": _content({"type": "new", "new": {"deep": [{"er": TEXT}]}}),
        "a text among blocks": _content(TEXT),
        "an earlier answer": _turn(_SAID),
        "a citation": _turn({"type": "text", "text": "a", "citations": [{"cited_text": TEXT}]}),
        "thinking": _turn({"type": "thinking", "thinking": TEXT, "signature": "AAAA"}),
        "a signature, as it stands": _turn({"type": "thinking", "thinking": "a", "signature": SECRET}),
        "redacted thinking, as it stands": _turn({"type": "redacted_thinking", "data": SECRET}),
        "input of a tool": _turn(_USE | {"input": {"key": TEXT}}),
        "input of a tool, deep": _turn(_USE | {"input": {"a": [{"b": [TEXT]}]}}),
        "input of a tool, a name": _turn(_USE | {"input": {SECRET: 1}}),
        "input of a tool, a number": _turn(_USE | {"input": {"card": CARD}}),
        "input of a tool, a number with a point": _turn(_USE | {"input": {"card": float(CARD)}}),
        "the name of a tool that was called": _turn(_USE | {"name": SECRET}),
        "the id of a call": _turn(_USE | {"id": SECRET}),
        "a call of a server's tool": _turn(
            {"type": "server_tool_use", "id": "s", "name": "x", "input": {"query": TEXT}}
        ),
        "a result": _result(TEXT),
        "a result with escapes": _result(ESCAPED),
        "a result's block": _result([_SAID]),
        "a result's block with a cache mark": _result([_SAID | {"cache_control": CACHE}]),
        "a result that failed": _result([_SAID], is_error=True),
        "a document in a result": _result([_document(type="text", media_type="text/plain", data=TEXT)]),
        "a document in base64 in a result": _result([_document(type="base64", media_type="text/plain", data=FILE)]),
        "what was found, in a result": _result([_FOUND | {"content": [_SAID]}]),
        "a result in a result": _result([{"type": "tool_result", "tool_use_id": "t2", "content": [_SAID]}]),
        "a document": _content(_document(type="text", media_type="text/plain", data=TEXT)),
        "a document of blocks": _content(_document(type="content", content=[_SAID])),
        "a document of a string": _content(_document(type="content", content=TEXT)),
        "a document in base64": _content(_document(type="base64", media_type="text/plain", data=FILE)),
        "a document's address": _content(_document(type="url", url=f"https://example.com/{SECRET}")),
        "an uploaded document": _content(_document(type="file", file_id=SECRET)),
        "a document's title": _content(
            _document(type="base64", media_type="application/pdf", data="AAAA") | {"title": TEXT}
        ),
        "a document's context": _content(
            _document(type="base64", media_type="application/pdf", data="AAAA") | {"context": TEXT}
        ),
        "an image's address": _content(
            {"type": "image", "source": {"type": "url", "url": f"https://example.com/{SECRET}"}}
        ),
        "an image's type": _content(
            {"type": "image", "source": {"type": "base64", "media_type": SECRET, "data": "AAAA"}}
        ),
        "an image that is none": _content(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}}
        ),
        "what was found": _content(_FOUND | {"content": [_SAID]}),
        "what was found, its title": _content(_FOUND | {"title": TEXT}),
        "what was found, its source": _content(_FOUND | {"source": f"https://example.com/{SECRET}"}),
        "a field of a message nobody knows": {"messages": [{"role": "user", "content": "a", "new": [TEXT]}]},
        "a tool's name": {"tools": [_TOOL | {"name": SECRET}]},
        "a tool's description": {"tools": [_TOOL | {"description": TEXT}]},
        "a tool's description with a cache mark": {"tools": [_TOOL | {"description": TEXT, "cache_control": CACHE}]},
        "a tool's example": {"tools": [_TOOL | {"input_examples": [{"a": TEXT}]}]},
        "a tool's example, a name": {"tools": [_TOOL | {"input_examples": [{SECRET: "a"}]}]},
        "a server's tool": {"tools": [{"type": "web_search_20250305", "name": "x", "allowed_domains": [SECRET]}]},
        "the choice of a tool": {"tools": [_TOOL], "tool_choice": {"type": "tool", "name": SECRET}},
        "metadata": {"metadata": {"user_id": SECRET}},
        "metadata nobody knows": {"metadata": {"new": TEXT}},
        "the name of metadata": {"metadata": {SECRET: "x"}},
        "stop_sequences": {"stop_sequences": ["a", TEXT]},
        "mcp_servers": {
            "mcp_servers": [{"type": "url", "name": "a", "url": "https://a.test", "authorization_token": SECRET}]
        },
        "container": {"container": {"id": SECRET}},
        "service_tier": {"service_tier": SECRET},
        "a field nobody knows": {"new_in_2030": {"a": {"b": [TEXT]}}},
        "the name of a field": {SECRET: 1},
    }
    | {f"a tool's schema: {name}": {"tools": [_TOOL | {"input_schema": schema}]} for name, schema in _SCHEMAS.items()}
    | {
        f"a format's schema: {name}": {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
        for name, schema in _SCHEMAS.items()
    }
)


# --- completions, and the newer fields of chats

COMPLETIONS: Mapping[str, Place] = {
    "prompt": {"prompt": TEXT},
    "prompts": {"prompt": ["a", TEXT]},
    "tokens": {"prompt": [1, 2, 3]},  # unreadable for the gateway, so they are refused
    "lists of tokens": {"prompt": [[1], [2]]},
    "a text among tokens": {"prompt": [[1], TEXT]},
    "suffix": {"suffix": TEXT},
    "stop": {"stop": TEXT},
    "stops": {"stop": ["a", TEXT]},
    "user": {"user": SECRET},
    "logit_bias": {"logit_bias": {SECRET: 1}},
    "stream_options": {"stream": True, "stream_options": {"x": TEXT}},
    "a field nobody knows": {"new_in_2030": {"a": {"b": [TEXT]}}},
    "the name of a field": {SECRET: 1},
}


def _called(arguments: str) -> Place:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "b"},
        ]
    }


def _chat_file(**file: str) -> Place:
    return {"messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}


CHATS: Mapping[str, Place] = {
    "arguments with escapes": _called(ESCAPED),
    "arguments, the name of one": _called(json.dumps({SECRET: 1})),
    "arguments, the name of one with escapes": _called(
        ESCAPED.replace('"key"', '"a"').replace(": ", ":1,").replace("}", ":2}")
    ),
    "a file of text": _chat_file(filename="a.txt", file_data=f"data:text/plain;base64,{FILE}"),
    "a file of text, bare": _chat_file(filename="a.txt", file_data=FILE),
    "thinking that came back": {
        "messages": [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": "b",
                "thinking_blocks": [{"type": "thinking", "thinking": TEXT, "signature": "AAAA"}],
            },
            {"role": "user", "content": "c"},
        ]
    },
    "logit_bias": {"logit_bias": {SECRET: 1}},
    "the name of metadata": {"metadata": {SECRET: "x"}},
    "the name of a field": {SECRET: 1},
} | {
    f"a tool's schema: {name}": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
    }
    for name, schema in _SCHEMAS.items()
}

CHAT: Place = {"messages": [{"role": "user", "content": "Hi"}]}
# API -> its path, a good request, the models to ask (translated and passed through), the places
TABLES: Mapping[str, tuple[str, Place, tuple[str, ...], Mapping[str, Place]]] = {
    "responses": ("/v1/responses", {"input": "Hi"}, ("stub", "gpt"), RESPONSES),
    "messages": ("/v1/messages", {"max_tokens": 50, **CHAT}, ("stub", "claude"), MESSAGES),
    "count_tokens": ("/v1/messages/count_tokens", CHAT, ("claude",), MESSAGES),
    "completions": ("/v1/completions", {"prompt": "Hi"}, ("gpt",), COMPLETIONS),
    "chats": ("/v1/chat/completions", CHAT, ("stub", "claude"), CHATS),
}

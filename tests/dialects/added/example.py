"""A client API whose path names the model and says whether the answer is streamed: the minimum of a new dialect.

Its requests are a small part of Gemini's. Tests add it to the dialects and remove it again, see `tests/conftest.py`.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, read_integer
from extproc.dialects._conversation import count, effort_of, inner, last_said, pieces
from extproc.dialects._effort import asked
from extproc.dialects._replies import openai as replies  # noqa: F401
from extproc.dialects._usual import observe_edges, said  # noqa: F401
from extproc.words.api import AnswerFacts, ClientTranslation, Endpoints, Naming, Offers
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Fields, Text, strings
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.messages import Delta, Ended, Message, OutputFormat, Prompt, TextPart, Tool, ToolResult

_SPEAKERS = {"systemInstruction": "system", "tools": "definition"}
_HOLD_TEXT = ("text", "parts", "functionResponse", "response", "result")


name, family = "example", "chat"
endpoints = Endpoints(
    paths={
        "/v1example/models/{model}:generateContent": "chat",
        "/v1example/models/{model}:streamGenerateContent": "chat",
    }
)
fields = Fields(
    model=None,
    fixed=("contents",),
    output_limits=("maxOutputTokens",),
    needs={
        "images": ("contents",),
        "files": ("contents",),
        "tools": ("tools",),
        "json_schema": ("responseSchema",),
    },
    spoken=frozenset(("contents", "systemInstruction")),
    files=frozenset(("data",)),
    opaque=frozenset(("data", "thoughtSignature")),
    inside=frozenset(("role", "parts", "text")),
    data=frozenset(("args", "parameters")),
)
answers = AnswerFacts()


def read(body, endpoint=NO_ENDPOINT):
    if not endpoint.model:
        raise Refusal(INVALID_REQUEST, "Say which model in the path.", param="model")
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents or not all(isinstance(turn, dict) for turn in contents):
        raise Refusal(INVALID_REQUEST, "'contents' must be a list of objects.", param="contents")
    ask = Ask(endpoint.model, endpoint.pattern.endswith(":streamGenerateContent"))
    ask.output_field = "maxOutputTokens"
    ask.max_output_tokens = read_integer(body, "maxOutputTokens", 1, MAX_TOKENS)
    ask.thinking = thinking(body)
    for turn in contents:
        for part in turn["parts"] if isinstance(turn.get("parts"), list) else ():
            _read_part(part, ask)
    for need, (field, *_) in fields.needs.items():
        if need in ("tools", "json_schema") and body.get(field):
            ask.needs[need] = field
            ask.added_tokens = ADDED_TOKENS
    return ask


def thinking(body):
    return asked(body.get("thinkingLevel"))


def conversation(body):
    last, result = last_said(body.get("contents"), _HOLD_TEXT, _is_result)
    return Conversation(
        asked=last,
        turns=count(body.get("contents")),
        result=result,
        system=pieces(body.get("systemInstruction"), _HOLD_TEXT),
        tools=count(inner(body, "tools", "functionDeclarations")),
        shaped=isinstance(body.get("responseSchema"), dict),
        effort=effort_of(body.get("thinkingLevel")),
    )


def texts(body):
    for key, value in body.items():
        if key == "contents":
            for index, turn in enumerate(value):
                role = "tool" if _is_result(turn) else "assistant" if turn.get("role") == "model" else "user"
                yield from strings(turn, role, f"contents[{index}]")
        elif isinstance(value, str):
            yield Text("request", key, body, key)
        else:
            yield from strings(value, _SPEAKERS.get(key, "request"), key)


def observe(data, report, tree=None):
    report.output_bytes += len(data)
    return False


def path(destination, stream):
    return f"/models/{quote(destination.model, safe='')}:{'streamGenerateContent' if stream else 'generateContent'}"


def smallest(model):
    return {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


def decode_request(body):
    system, schema = pieces(body.get("systemInstruction"), _HOLD_TEXT), body.get("responseSchema")
    return Prompt(
        "",
        [Message("user", [_part(part) for part in turn["parts"]]) for turn in body["contents"]],
        [TextPart(text) for text in system],
        tools=[
            Tool(tool["name"], tool["description"], tool["parameters"])
            for tool in (body.get("tools") or {}).get("functionDeclarations", ())
        ],
        format=OutputFormat(schema) if schema else None,
        max_tokens=body.get("maxOutputTokens"),
        effort=effort_of(body.get("thinkingLevel")),
    )


def encode_answer(answer):
    text = "".join(part.text for part in answer.choices[0].parts if isinstance(part, TextPart))
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}], "modelVersion": answer.model}


def encode_problem(status, problem):
    return {"error": {"code": status, "message": problem.message}}


class _Encoder:
    def feed(self, event):
        if isinstance(event, Delta) and event.kind == "text":
            text = {"candidates": [{"content": {"parts": [{"text": event.text}], "role": "model"}}]}
            return b"data: %b\n\n" % json.dumps(text).encode()
        return b"data: {}\n\n" if isinstance(event, Ended) else b""


def _read_part(part, ask):
    if not isinstance(part, dict):
        return
    if (data := inner(part, "inlineData", "data")) is not None and isinstance(data, str):
        ask.needs["images"] = "contents"
        _media.add_image_data(ask, data)
    if isinstance(inner(part, "fileData", "fileUri"), str):
        picture = inner(part, "fileData", "mimeType") == "image/png"
        ask.needs["images" if picture else "files"] = "contents"
        if picture:
            _media.add_image(ask, None, "image")
        else:
            ask.add_unseen("file")


def _is_result(turn):
    parts = turn.get("parts")
    return isinstance(parts, list) and any(isinstance(part, dict) and "functionResponse" in part for part in parts[-8:])


def _part(part):
    if "functionResponse" in part:
        said = part["functionResponse"]
        return ToolResult("", [TextPart(said["response"]["result"])], name=said["name"])
    return TextPart(part.get("text", ""))


translation = ClientTranslation(decode_request, encode_answer, encode_problem, _Encoder)
offers = Offers(thinking=thinking, naming=Naming(path=path))

"""The shape of requests to Gemini, on its own API and on Vertex: protocol buffers as JSON, so a null counts as absent.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching#Content and #Schema,
https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/Schema; the official SDK's types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from tests.doubles.answers import Json
from tests.doubles.shapes import (
    Check,
    Path,
    an_array,
    an_object,
    anything,
    array,
    boolean,
    integer,
    mapping,
    matching,
    number,
    one_of,
    record,
    string,
    text,
    union,
)

_OPAQUE = {"args", "response", "parametersJsonSchema", "responseJsonSchema", "labels", "partMetadata"}
_OPAQUE |= {"default", "example"}
_INT32 = integer(-(2**31), 2**31 - 1)
_TYPES = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")


def camel(value: Any) -> Any:
    """Write the names of fields in camel case. Both cases are accepted. Names that are data stay."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    written = {}
    for name, each in value.items():
        key = re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
        if key == "properties" and isinstance(each, dict):
            written[key] = {inner: camel(schema) for inner, schema in each.items()}
        else:
            written[key] = each if key in _OPAQUE else camel(each)
    return written


def snake(path: Path) -> Path:
    """Write a path as error messages have it."""
    return tuple(
        re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), str(s)) if isinstance(s, str) else s for s in path
    )


def message(fields: Mapping[str, Check]) -> Check:
    return record(fields, nulls=True)


def _int64(value: Any, path: Path) -> None:
    integer()(int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value, path)


def _schema(*, vertex: bool) -> Check:
    """A subset of OpenAPI's schemas. Vertex accepts more of JSON Schema."""

    def inner(value: Any, path: Path) -> None:
        check(value, path)

    bounds = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
    fields: dict[str, Check] = {
        "type": matching(lambda each: each.upper() in _TYPES, "Type"),
        "format": string,
        "title": string,
        "description": string,
        "nullable": boolean,
        "enum": array(string),
        "items": inner,
        "properties": mapping(inner),
        "required": array(string),
        "propertyOrdering": array(string),
        "anyOf": array(inner),
        "minimum": number(),
        "maximum": number(),
        "pattern": string,
        "example": anything,
        "default": anything,
        **dict.fromkeys(bounds, _int64),
    }
    if vertex:
        fields |= {"additionalProperties": anything, "ref": string, "defs": mapping(inner)}
    check = message(fields)
    return check


def _is_bytes(value: str) -> bool:
    """Base64 in either alphabet, padded or not."""
    return bool(re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", value)) and len(value.rstrip("=")) % 4 != 1


_BYTES = matching(_is_bytes, "TYPE_BYTES")
_BLOB = message({"mimeType!": text(), "data!": _BYTES, "displayName": string})
_FILE = message({"mimeType": text(), "fileUri!": text(), "displayName": string})
_SIGNED: dict[str, Check] = {
    "thought": boolean,
    "thoughtSignature": _BYTES,
    "videoMetadata": an_object,
    "mediaResolution": an_object,
    "partMetadata": an_object,
}
_RESPONSE = {
    "id": string,
    "name!": text(),
    "response!": an_object,
    "parts": array(message({"inlineData": _BLOB, "fileData": _FILE})),
    "willContinue": boolean,
    "scheduling": string,
}
_PART = union(
    {
        "text": string,
        "inlineData": _BLOB,
        "fileData": _FILE,
        "functionCall": message({"id": string, "name!": text(), "args": an_object}),
        "functionResponse": message(_RESPONSE),
        "executableCode": an_object,
        "codeExecutionResult": an_object,
        "toolCall": an_object,
        "toolResponse": an_object,
    },
    _SIGNED,
)


CONTENT = message({"role": string, "parts": array(_PART)})
_SERVER_TOOLS = (
    "googleSearch",
    "googleSearchRetrieval",
    "codeExecution",
    "urlContext",
    "googleMaps",
    "fileSearch",
    "computerUse",
    "retrieval",
    "enterpriseWebSearch",
)
_MODES = ("AUTO", "ANY", "NONE", "VALIDATED")


def _generation(schema: Check) -> Check:
    return message(
        {
            "stopSequences": array(text(), most=5),
            "responseMimeType": one_of("text/plain", "application/json", "text/x.enum"),
            "responseSchema": schema,
            "responseJsonSchema": anything,
            "responseModalities": array(string),
            "candidateCount": integer(1, 8),
            "maxOutputTokens": integer(1, 2**31 - 1),
            "temperature": number(0, 2),
            "topP": number(0, 1),
            "topK": number(1),
            "seed": _INT32,
            "presencePenalty": number(-2, 2),
            "frequencyPenalty": number(-2, 2),
            "responseLogprobs": boolean,
            "logprobs": integer(0, 20),
            "thinkingConfig": message(
                {
                    "includeThoughts": boolean,
                    "thinkingBudget": integer(-1, 2**31 - 1),
                    "thinkingLevel": one_of("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"),
                }
            ),
            "speechConfig": an_object,
            "imageConfig": an_object,
            "mediaResolution": string,
            "audioTimestamp": boolean,
            "enableEnhancedCivicAnswers": boolean,
            "routingConfig": an_object,
        }
    )


@cache
def generate(*, vertex: bool) -> Check:
    """The body of generateContent and streamGenerateContent."""
    schema = _schema(vertex=vertex)
    declaration = {
        "name!": string,
        "description": string,
        "parameters": schema,
        "parametersJsonSchema": an_object,
        "response": anything,
        "responseJsonSchema": anything,
        "behavior": string,
    }
    tool = {"functionDeclarations": array(message(declaration)), **dict.fromkeys(_SERVER_TOOLS, an_object)}
    calling = {"mode": one_of(*_MODES), "allowedFunctionNames": array(string)}
    return message(
        {
            "model": string,
            "contents!": array(CONTENT),
            "systemInstruction": CONTENT,
            "tools": array(message(tool)),
            "toolConfig": message({"functionCallingConfig": message(calling), "retrievalConfig": an_object}),
            "safetySettings": an_array,
            "generationConfig": _generation(schema),
            "cachedContent": text(),
            "serviceTier": string,
            **({"labels": mapping(string)} if vertex else {"store": boolean}),
        }
    )


def found(body: Json, *path: str) -> Any:
    """The value at the end of a path of objects, or None."""
    at: Any = body
    for name in path:
        at = at.get(name) if isinstance(at, dict) else None
    return at

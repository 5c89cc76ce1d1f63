"""The shape of requests to Cohere's Chat and Embed: fields, types, and required fields.

Sources: https://docs.cohere.com/reference/chat, .../reference/embed; the official SDK
"""

from __future__ import annotations

from tests.doubles.shapes import (
    an_array,
    an_object,
    array,
    boolean,
    either,
    integer,
    matching,
    number,
    one_of,
    record,
    string,
    tagged,
)

MOST_TEXTS = 96

_IMAGE_URL = matching(
    lambda url: url.startswith(("https://", "http://", "data:image/")), "image url must be a web URL or a data URI"
)
_IMAGE = record({"url!": _IMAGE_URL, "detail": one_of("auto", "low", "high")}, nulls=True)
_TEXT = record({"type!": string, "text!": string}, nulls=True)
_GIVEN = {
    "text": _TEXT,
    "image_url": record({"type!": string, "image_url!": _IMAGE}, nulls=True),
}
_SAID = {
    "text": _TEXT,
    "thinking": record({"type!": string, "thinking!": string}, nulls=True),
}
_DOCUMENT = record({"data!": either(("object", an_object), ("string", string)), "id": string}, nulls=True)
_FOUND = {
    "text": _TEXT,
    "document": record({"type!": string, "document!": _DOCUMENT}, nulls=True),
}
_CALL = record(
    {
        "id!": string,
        "type!": string,
        "function!": record({"name!": string, "arguments!": string}, nulls=True),
    },
    nulls=True,
)
_MESSAGE = tagged(
    "role",
    {
        "system": record(
            {
                "role!": string,
                "content!": either(("string", string), ("array", array(tagged("type", {"text": _TEXT})))),
            },
            nulls=True,
        ),
        "user": record(
            {"role!": string, "content!": either(("string", string), ("array", array(tagged("type", _GIVEN))))},
            nulls=True,
        ),
        "assistant": record(
            {
                "role!": string,
                "content": either(("string", string), ("array", array(tagged("type", _SAID)))),
                "tool_plan": string,
                "tool_calls": array(_CALL),
                "citations": an_array,
            },
            nulls=True,
        ),
        "tool": record(
            {
                "role!": string,
                "tool_call_id": string,
                "content!": either(("string", string), ("array", array(tagged("type", _FOUND)))),
            },
            nulls=True,
        ),
    },
)
_FUNCTION = record({"name!": string, "description": string, "parameters!": an_object}, nulls=True)

CHAT = record(
    {
        "model!": string,
        "messages!": array(_MESSAGE),
        "stream": boolean,
        "tools": array(record({"type!": one_of("function"), "function!": _FUNCTION}, nulls=True)),
        "strict_tools": boolean,
        "tool_choice": one_of("REQUIRED", "NONE"),
        "documents": array(either(("string", string), ("object", _DOCUMENT))),
        "citation_options": record({"mode": one_of("ENABLED", "DISABLED", "FAST", "ACCURATE", "OFF")}, nulls=True),
        "response_format": tagged(
            "type",
            {
                "text": record({"type!": string}, nulls=True),
                "json_object": record({"type!": string, "json_schema": an_object, "schema": an_object}, nulls=True),
            },
        ),
        "safety_mode": string,
        "max_tokens": integer(),
        "stop_sequences": array(string),
        "temperature": number(),
        "seed": integer(0, 2**64 - 1),
        "frequency_penalty": number(),
        "presence_penalty": number(),
        "k": number(),
        "p": number(),
        "logprobs": boolean,
        "thinking": record({"type": one_of("enabled", "disabled"), "token_budget": integer()}, nulls=True),
        "priority": integer(),
    },
    nulls=True,
)

_EMBEDDED = {
    "text": _TEXT,
    "image_url": record({"type!": string, "image_url!": record({"url!": _IMAGE_URL}, nulls=True)}, nulls=True),
}
EMBED = record(
    {
        "model!": string,
        "input_type": string,
        "texts": array(string),
        "images": array(string),
        "inputs": array(record({"content!": array(tagged("type", _EMBEDDED), least=1)}, nulls=True)),
        "max_tokens": integer(),
        "output_dimension": integer(),
        "embedding_types": array(one_of("float", "int8", "uint8", "binary", "ubinary", "base64")),
        "truncate": one_of("NONE", "START", "END"),
        "priority": integer(),
    },
    nulls=True,
)

"""The shape of requests to Amazon Bedrock's Converse. A null counts as absent; a union has exactly one member.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html; the service model of the SDK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tests.doubles.shapes import (
    Check,
    Path,
    Wrong,
    an_object,
    anything,
    array,
    base64,
    boolean,
    either,
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

_NAME = matching(
    lambda each: bool(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each)),
    "Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+ and have length less than or equal to 64",
)
_ID = matching(
    lambda each: bool(re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", each)),
    "Member must satisfy regular expression pattern: [a-zA-Z0-9_.:-]+ and have length less than or equal to 64",
)
_FILE = matching(
    lambda each: bool(re.fullmatch(r"[a-zA-Z0-9\s()\[\]-]{1,200}", each)) and not re.search(r"\s\s", each),
    "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, parentheses, and "
    "square brackets. The name can't contain more than one consecutive whitespace character.",
)


def structure(fields: Mapping[str, Check]) -> Check:
    return record(fields, nulls=True)


def _json_text(value: Any, path: Path) -> None:
    string(value, path)
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        raise Wrong(path, "value", "The schema is not valid JSON.", value) from None


_CACHE = structure({"type!": one_of("default"), "ttl": one_of("5m", "1h")})
_S3 = structure(
    {"uri!": matching(lambda uri: uri.startswith("s3://"), "Member must begin with s3://"), "bucketOwner": string}
)
_CITATIONS = structure({"enabled!": boolean})
_IMAGE = structure(
    {"format!": one_of("png", "jpeg", "gif", "webp"), "source!": union({"bytes": base64, "s3Location": _S3})}
)
_DOCUMENT = structure(
    {
        "format": one_of("pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"),
        "name!": _FILE,
        "source!": union(
            {"bytes": base64, "s3Location": _S3, "text": text(), "content": array(union({"text": text()}), least=1)}
        ),
        "context": string,
        "citations": _CITATIONS,
    }
)
_CLIP = structure({"format!": string, "source!": union({"bytes": base64, "s3Location": _S3})})
_FOUND = structure(
    {"source!": string, "title!": string, "content!": array(structure({"text!": string})), "citations": _CITATIONS}
)
_RESULT = structure(
    {
        "toolUseId!": _ID,
        "content!": array(
            union(
                {
                    "json": either(("object", an_object), ("array", anything)),
                    "text": string,
                    "image": _IMAGE,
                    "document": _DOCUMENT,
                    "video": _CLIP,
                    "searchResult": _FOUND,
                }
            )
        ),
        "status": one_of("success", "error"),
        "type": string,
    }
)
_BLOCK = union(
    {
        "text": string,
        "image": _IMAGE,
        "document": _DOCUMENT,
        "video": _CLIP,
        "audio": _CLIP,
        "toolUse": structure({"toolUseId!": _ID, "name!": _NAME, "input!": an_object, "type": string}),
        "toolResult": _RESULT,
        "guardContent": an_object,
        "cachePoint": _CACHE,
        "reasoningContent": union(
            {"reasoningText": structure({"text!": string, "signature": string}), "redactedContent": base64}
        ),
        "citationsContent": an_object,
        "searchResult": _FOUND,
    }
)
_TOOL = union(
    {
        "toolSpec": structure(
            {
                "name!": _NAME,
                "description": text(),
                "inputSchema!": union({"json": an_object}),
                "strict": boolean,
            }
        ),
        "systemTool": structure({"name!": _NAME}),
        "cachePoint": _CACHE,
    }
)

CONVERSE = structure(
    {
        "messages!": array(structure({"role!": one_of("user", "assistant", "system"), "content!": array(_BLOCK)})),
        "system": array(union({"text": text(), "guardContent": an_object, "cachePoint": _CACHE})),
        "inferenceConfig": structure(
            {
                "maxTokens": integer(1),
                "temperature": number(0, 1),
                "topP": number(0, 1),
                "stopSequences": array(text(), most=2500),
            }
        ),
        "toolConfig": structure(
            {
                "tools!": array(_TOOL, least=1),
                "toolChoice": union({"auto": record({}), "any": record({}), "tool": structure({"name!": _NAME})}),
            }
        ),
        "guardrailConfig": an_object,
        "additionalModelRequestFields": an_object,
        "additionalModelResponseFieldPaths": array(text(), most=10),
        "promptVariables": an_object,
        "requestMetadata": mapping(string),
        "performanceConfig": structure({"latency": one_of("standard", "optimized")}),
        "serviceTier": structure({"type!": one_of("priority", "default", "flex", "reserved")}),
        "outputConfig": structure(
            {
                "textFormat": structure(
                    {
                        "type!": one_of("json_schema"),
                        "structure!": union(
                            {"jsonSchema": structure({"schema!": _json_text, "name": string, "description": string})}
                        ),
                    }
                ),
                "effort": text(0, 16),
            }
        ),
    }
)

"""The JSON schemas that OpenAI accepts with `strict: true`, for structured output and tools.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_REFUSED = frozenset(
    [
        "allOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "minProperties",
        "maxProperties",
        "contains",
        "minContains",
        "maxContains",
        "unevaluatedItems",
        "uniqueItems",
        "minLength",
        "maxLength",
    ]
)
_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"])

Context = tuple[str, ...]


def problem(schema: Any) -> str:
    """The error in a strict schema, in OpenAI's words; empty if it is accepted."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        found = schema.get("type") if isinstance(schema, dict) else None
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{found}\"'."
    for each, context in _all(schema, ()):
        wrong = _wrong(each)
        if wrong:
            return f"In context={context}, {wrong}"
    return ""


def _all(schema: Any, context: Context) -> Iterator[tuple[Any, Context]]:
    yield schema, context
    if not isinstance(schema, dict):
        return
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            for key, each in schema[name].items():
                yield from _all(each, (*context, name, key))
    if "items" in schema:
        yield from _all(schema["items"], (*context, "items"))
    for index, each in enumerate(schema["anyOf"] if isinstance(schema.get("anyOf"), list) else ()):
        yield from _all(each, (*context, "anyOf", str(index)))


def _wrong(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "schema must be an object."
    refused = next((name for name in schema if name in _REFUSED), None)
    if refused:
        return f"'{refused}' is not permitted."
    if not {"type", "$ref", "anyOf", "enum", "const"} & {*schema}:
        return "schema must have a 'type' key."
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or properties:
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false."
        required = schema.get("required")
        missing = next((name for name in properties if not isinstance(required, list) or name not in required), None)
        if missing is not None:
            every = "'required' is required to be supplied and to be an array including every key in properties."
            return f"{every} Missing '{missing}'."
    if kind == "array" and "items" not in schema:
        return "array schema missing items."
    if str(schema.get("format", "date")) not in _FORMATS:
        return f"'{schema['format']}' is not a valid format."
    return ""

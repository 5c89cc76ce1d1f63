"""The JSON schemas that Anthropic's structured outputs and strict tools accept.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs (JSON Schema limitations)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.doubles.answers import Refused

_KEYWORDS = frozenset(
    [
        "type",
        "title",
        "description",
        "default",
        "examples",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "$ref",
        "$defs",
        "definitions",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "format",
        "pattern",
        "$schema",
        "$id",
        "$comment",
    ]
)
_FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid", "text"]
)


def check_schema(schema: Any, where: str) -> None:
    """Refuse schemas that the API does not accept."""
    for each in _all(schema):
        wrong = _wrong(each)
        if wrong:
            raise Refused(400, f"{where}: {wrong}")
    if _is_recursive(schema):
        raise Refused(400, f"{where}: Circular reference detected in schema definitions")


def _all(schema: Any) -> Iterator[Any]:
    yield schema
    if not isinstance(schema, dict):
        return
    if "items" in schema:
        yield from _all(schema["items"])
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            for each in schema[name].values():
                yield from _all(each)
    for name in ("anyOf", "allOf"):
        if isinstance(schema.get(name), list):
            for each in schema[name]:
                yield from _all(each)


def _wrong(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "a schema must be an object"
    kind = schema.get("type")
    unknown = sorted({*schema} - _KEYWORDS)
    if unknown:
        return f"For '{kind}' type, properties {', '.join(unknown)} are not supported"
    if (kind == "object" or "properties" in schema) and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    if schema.get("minItems", 0) not in (0, 1):
        return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    if str(schema.get("format", "text")) not in _FORMATS:
        return f"For 'string' type, format '{schema['format']}' is not supported"
    values = schema.get("enum", [])
    if not isinstance(values, list) or any(isinstance(each, dict | list) for each in values):
        return "enum values must be primitive"
    if not str(schema.get("$ref", "#")).startswith("#"):
        return "external $ref is not supported"
    return ""


def _is_recursive(schema: Any) -> bool:
    """Whether a definition leads back to itself."""
    if not isinstance(schema, dict):
        return False
    edges: dict[str, set[str]] = {"#": {ref for ref in _refs(schema) if ref == "#"}}
    for name in ("$defs", "definitions"):
        definitions = schema.get(name)
        for key, each in definitions.items() if isinstance(definitions, dict) else ():
            edges[f"#/{name}/{key}"] = {*_refs(each)}
    left = set(edges)
    while free := {each for each in left if not edges[each] & left}:
        left -= free
    return bool(left)


def _refs(schema: Any) -> Iterator[str]:
    return (str(each["$ref"]) for each in _all(schema) if isinstance(each, dict) and "$ref" in each)

"""Google's own schemas, converted to JSON Schema.

They are a subset of OpenAPI 3.0: types are in upper case, null is a flag, and whole numbers may be strings.

Source: https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCHEMAS_BY_NAME = frozenset(("properties", "defs", "$defs"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_INNER = frozenset(("items", "additionalProperties", "not"))
_WHOLE = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_NAMES = {"defs": "$defs", "ref": "$ref"}
_LEFT_OUT = frozenset(("nullable", "propertyOrdering"))


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of the same meaning. A JSON Schema is unchanged."""
    made: dict[str, Any] = {}
    for name, value in schema.items():
        key = _NAMES.get(name, name)
        if name in _LEFT_OUT or (name == "format" and value == "enum"):
            continue
        if name == "type":
            made[key] = _type(value)
        elif name == "example":
            made["examples"] = [value]
        elif name in _SCHEMAS_BY_NAME and isinstance(value, dict):
            made[key] = {inner: _at(one) for inner, one in value.items()}
        elif name in _LISTS and isinstance(value, list):
            made[key] = [_at(one) for one in value]
        elif name in _INNER:
            made[key] = _at(value)
        elif name in _WHOLE and isinstance(value, str) and value.isdecimal() and len(value) < 20:
            made[key] = int(value)
        else:
            made[key] = value
    if schema.get("nullable") is True:
        _allow_null(made)
    return made


def _at(value: Any) -> Any:
    return json_schema(value) if isinstance(value, dict) else value


def _type(value: Any) -> Any:
    if isinstance(value, list):
        return [_type(one) for one in value]
    return value.lower() if isinstance(value, str) else value


def _allow_null(made: dict[str, Any]) -> None:
    if isinstance(kind := made.get("type"), str):
        made["type"] = [kind, "null"]
        if isinstance(values := made.get("enum"), list) and None not in values:
            made["enum"] = [*values, None]
    elif isinstance(branches := made.get("anyOf"), list):
        made["anyOf"] = [*branches, {"type": "null"}]

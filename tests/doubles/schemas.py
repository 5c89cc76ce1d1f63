"""JSON documents that satisfy a JSON schema: structured output and the arguments of tool calls."""

from __future__ import annotations

import math
from typing import Any

from tests.doubles.answers import Json

_FORMATS = {
    "date-time": "2024-01-01T00:00:00Z",
    "date": "2024-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "stub@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/stub",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def satisfy(schema: Any) -> Any:
    """Make the smallest document that satisfies a JSON schema, optional fields left out below the top."""
    return _Stub(schema).value(schema, 0)


class _Stub:
    """A schema while a document is made for it.

    From `_PLAIN_DEPTH` on the simplest branch is taken, which ends the usual recursions (lists of nodes, next or null).
    A schema that only an infinite document satisfies ends at `_DEPTH` or after `_VALUES`, with a null.
    """

    _PLAIN_DEPTH = 5
    _DEPTH = 40
    _VALUES = 2000

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = self._VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > self._DEPTH:
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        match self._type(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return math.ceil(_number(schema, 1))
            case "number":
                return _number(schema, 0.1)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema)

    def _resolved(self, schema: Any, depth: int) -> Json:
        """Follow $ref, pick a branch of anyOf or oneOf and merge allOf, until none is left at this level."""
        merged: Json = dict(schema) if isinstance(schema, dict) else {}
        for _ in range(self._DEPTH):
            if "$ref" in merged:
                parts = [self._pointed(merged.pop("$ref"))]
            elif branches := merged.pop("anyOf", None) or merged.pop("oneOf", None):
                parts = [self._branch(branches, depth)]
            elif isinstance(parts := merged.pop("allOf", None), list):
                pass
            else:
                return merged
            for part in parts:
                merged = _merged(merged, part)
        return {"type": "null"}

    def _pointed(self, reference: Any) -> Any:
        at = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            at = at.get(name) if isinstance(at, dict) else None
        return at

    def _branch(self, branches: Any, depth: int) -> Any:
        if not isinstance(branches, list):
            return {}
        if depth < self._PLAIN_DEPTH:
            return branches[0]
        return next((branch for branch in branches if branch == {"type": "null"}), branches[-1])

    def _type(self, schema: Json, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            deep = depth >= self._PLAIN_DEPTH and "null" in kind
            kind = "null" if deep else kind[0] if kind else None
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else None
        return kind.lower() if isinstance(kind, str) else kind  # Gemini writes OBJECT

    def _object(self, schema: Json, depth: int) -> Json:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        if not isinstance(required, list):
            required = list(properties) if depth == 0 else []
        return {name: self.value(properties.get(name), depth + 1) for name in required if isinstance(name, str)}

    def _array(self, schema: Json, depth: int) -> list[Any]:
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        least = _bound(schema, "minItems", 0)
        most = _bound(schema, "maxItems", self._VALUES)
        usual = 1 if depth < self._PLAIN_DEPTH else 0
        wanted = int(max(0, min(max(least, len(first), usual), most, self._VALUES)))
        items = [*first[:wanted], *[schema.get("items")] * (wanted - len(first))]
        return [self.value(item, depth + 1) for item in items]


def _merged(one: Json, other: Any) -> Json:
    if not isinstance(other, dict):
        return one
    merged = one | other
    if isinstance(one.get("properties"), dict) and isinstance(other.get("properties"), dict):
        merged["properties"] = one["properties"] | other["properties"]
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = one["required"] + other["required"]
    return merged


def _bound(schema: Json, name: str, default: float) -> float:
    value = schema.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 10**15:
        return default
    return value


def _number(schema: Json, step: float) -> float:
    """A number, or the nearest one that is within the bounds and a multiple as required."""
    low = max(_bound(schema, "minimum", -math.inf), _bound(schema, "exclusiveMinimum", -math.inf) + step)
    high = min(_bound(schema, "maximum", math.inf), _bound(schema, "exclusiveMaximum", math.inf) - step)
    value = max(low, min(1, high))
    multiple = _bound(schema, "multipleOf", 0)
    return math.ceil(value / multiple) * multiple if multiple > 10**-9 else value


def _string(schema: Json) -> str:
    text = _FORMATS.get(str(schema.get("format")), "stub")
    least = int(min(_bound(schema, "minLength", 0), 10_000))
    most = int(min(_bound(schema, "maxLength", 10_000), 10_000))
    return text.ljust(least, "x")[: max(most, 0)]

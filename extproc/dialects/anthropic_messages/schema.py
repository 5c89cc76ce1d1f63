"""JSON schemas as Anthropic takes them for structured outputs and strict tools: without the keywords it cannot enforce.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs (JSON Schema limitations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc.words.messages import Tool

STRICT_TOOLS = 20
"""Most strict tools in a request."""
OPTIONAL, UNIONS = 24, 16
"""Most optional properties, and most properties of several types, over all strict schemas of a request."""

_UNENFORCED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("maxItems", "uniqueItems", "minContains", "maxContains", "contains", "minProperties", "maxProperties"),
        *("patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "unevaluatedProperties"),
        *("unevaluatedItems", "if", "then", "else", "not"),
    )
)
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"))
_SCHEMAS_BY_NAME = frozenset(("properties", "$defs", "definitions"))
_LISTS_OF_SCHEMAS = frozenset(("anyOf", "allOf", "oneOf"))


def strict_schemas(tools: Sequence[Tool]) -> dict[int, dict[str, Any]] | None:
    """Fitted schemas of the strict tools, by the tools' indices. None if they cannot be strict: too many tools, too
    many properties, or objects with arbitrary properties.
    """
    fitter = Fitter()
    schemas = {index: fitter.fit(tool.schema) for index, tool in enumerate(tools) if tool.strict}
    return None if len(schemas) > STRICT_TOOLS or fitter.too_much or fitter.closed else schemas


class Fitter:
    """Fits schemas, and counts the properties that the API limits over all schemas."""

    __slots__ = ("closed", "optional", "unions")

    def __init__(self) -> None:
        self.optional = 0
        self.unions = 0
        self.closed = False  # True: an object with arbitrary properties was closed

    @property
    def too_much(self) -> bool:
        return self.optional > OPTIONAL or self.unions > UNIONS

    def fit(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema without keywords that the API cannot enforce. Objects are closed; other constraints are added to
        the description, which the model reads.
        """
        fitted: dict[str, Any] = {}
        words: list[str] = []
        for key, value in schema.items():
            if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
                fitted[key] = {name: self._at(inner) for name, inner in value.items()}
            elif key in _LISTS_OF_SCHEMAS and isinstance(value, list):
                fitted["anyOf" if key == "oneOf" else key] = [self._at(inner) for inner in value]
            elif key == "items":
                fitted[key] = self._at(value)
            elif (
                key in _UNENFORCED
                or (key == "format" and not (isinstance(value, str) and value in _FORMATS))
                or (key == "minItems" and value not in (0, 1))
            ):
                words.append(f"{key}: {value}")
            else:
                fitted[key] = value
        kind = fitted.get("type")
        if kind == "object" or "properties" in fitted or (isinstance(kind, list) and "object" in kind):
            properties, required = fitted.get("properties"), fitted.get("required")
            more = schema.get("additionalProperties", not properties)
            self.closed |= more is True or isinstance(more, dict)
            fitted["additionalProperties"] = False
            if isinstance(properties, dict):
                self.optional += len(properties) - (len(required) if isinstance(required, list) else 0)
        if "anyOf" in fitted or isinstance(kind, list):
            self.unions += 1
        if words:
            before = fitted.get("description")
            fitted["description"] = " ".join([*([before] if isinstance(before, str) else []), f"({', '.join(words)})"])
        return fitted

    def _at(self, inner: Any) -> Any:
        return self.fit(inner) if isinstance(inner, dict) else inner

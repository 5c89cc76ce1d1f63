"""OpenAI's requirements for schemas of strict tools. Other APIs allow optional properties and open objects.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def can_be_strict(schema: Mapping[str, Any]) -> bool:
    """True when every object of the schema is closed, and all properties are required. An empty schema stands for any
    object.
    """
    waiting: list[Any] = [schema or {"type": "object"}]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            properties, required = node.get("properties"), node.get("required")
            properties = properties if isinstance(properties, dict) else {}
            if properties or node.get("type") == "object":
                if node.get("additionalProperties") is not False:
                    return False
                names = {name for name in (required if isinstance(required, list) else ()) if isinstance(name, str)}
                if not properties.keys() <= names:
                    return False
            waiting += properties.values()
            waiting += [node.get("items"), node.get("anyOf"), *_values(node.get("$defs"))]
    return True


def _values(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else []

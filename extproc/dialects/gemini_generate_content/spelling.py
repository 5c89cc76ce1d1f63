"""Names of fields, in the one spelling that the rest of the gateway reads.

Google's APIs are protocol buffers as JSON: each field can be written in camel case or as in the definition, with
underscores, and base64 in either alphabet, with or without padding. The gateway reads camel case and plain base64; a
request in another spelling is written anew before anything reads it.

Source: https://protobuf.dev/programming-guides/json/ (field names, bytes)
"""

from __future__ import annotations

import re
from typing import Any

from extproc.words.errors import INVALID_REQUEST, Refusal

_DATA = frozenset(
    (
        *("args", "response", "parametersJsonSchema", "responseJsonSchema", "labels", "partMetadata"),
        *("default", "example", "enum", "required"),
    )
)
"""Fields whose content is data: names in it belong to the client."""
_NAMED = frozenset(("properties", "defs", "$defs"))
"""Fields that hold schemas by names of the client's."""
_UNDERSCORE = re.compile(r"(?<=[A-Za-z0-9])_([a-z0-9])")
_PLAIN = str.maketrans("-_", "+/")


def camel(name: str) -> str:
    """A name in camel case."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def snake(name: str) -> str:
    """A name with underscores."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def spelled(body: dict[str, Any]) -> dict[str, Any]:
    """See `Dialect.spelled`."""
    changed = False
    waiting: list[Any] = [body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += [item for item in node if isinstance(item, dict | list)]
            continue
        if any("_" in name for name in node):
            changed |= _rename(node)
        for name, value in node.items():
            if isinstance(value, dict | list):
                if name in _NAMED and isinstance(value, dict):
                    waiting += [schema for schema in value.values() if isinstance(schema, dict)]
                elif name not in _DATA:
                    waiting.append(value)
            elif name == "data" and isinstance(value, str) and (plain := base64(value)) != value:
                node[name], changed = plain, True
    return dict(body) if changed else body


def base64(text: str) -> str:
    """Base64 in its plain alphabet, with padding."""
    if "-" in text or "_" in text:
        text = text.translate(_PLAIN)
    return text + "=" * (-len(text) % 4) if len(text) % 4 > 1 else text


def _rename(node: dict[str, Any]) -> bool:
    """Write the names of one object in camel case, in place. True where there was another."""
    fields = list(node.items())
    names = [camel(name) for name, _ in fields]
    if names == [name for name, _ in fields]:
        return False
    node.clear()
    for name, (given, value) in zip(names, fields, strict=True):
        if name in node:
            message = f"The body has the field {name!r} in two spellings: send one."
            raise Refusal(INVALID_REQUEST, message[:200], param=given[:64])
        node[name] = value
    return True


def check(holder: dict[str, Any], known: frozenset[str], where: str) -> None:
    """Raises Refusal (400) where `holder` names a field that some servers could take for one of `known`."""
    for name in holder:
        if name not in known and (meant := _folded(known).get(name.replace("_", "").casefold())) is not None:
            message = f"'{where}' has a field that some servers take for {meant!r}: write {meant!r}."
            raise Refusal(INVALID_REQUEST, message, param=where)


def _folded(known: frozenset[str]) -> dict[str, str]:
    return {name.casefold(): name for name in known}

"""Field names in the spelling that the gateway reads.

Google's APIs are protocol buffers as JSON. A field name may be in camel case or with underscores, and base64 in either
alphabet, with or without padding. The gateway reads camel case and standard base64. A request in another spelling is
rewritten before any stage reads it.

Source: https://protobuf.dev/programming-guides/json/ (field names, bytes)
"""

from __future__ import annotations

import operator
import re
from typing import Any

from extproc.words.errors import INVALID_REQUEST, Refusal

_DATA = frozenset(
    (
        *("args", "response", "parametersJsonSchema", "responseJsonSchema", "labels", "partMetadata"),
        "metadata",  # names a request in a batch
        *("default", "example", "enum", "required"),
    )
)
"""Fields whose content is data: names in it are the client's."""
_NAMED = frozenset(("properties", "defs", "$defs"))
"""Fields of schemas under the client's names."""
_LISTS = frozenset(("contents", "parts", "tools", "functionDeclarations", "safetySettings"))
"""Lists that may be given as their only item: Google's servers read an object as a list with it."""
_UNDERSCORE = re.compile(r"(?<=[A-Za-z0-9])_([a-z0-9])")
_PLAIN = str.maketrans("-_", "+/")


def camel(name: str) -> str:
    """A name in camel case."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def snake(name: str) -> str:
    """A name with underscores."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def spelled(body: dict[str, Any]) -> dict[str, Any]:
    """See `Naming.spelled`. `body` is unchanged."""
    return _object(body)


def _object(node: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    same = True
    for given, value in node.items():
        name = camel(given) if "_" in given else given
        if name in made:
            message = f"The body has the field {name!r} in two spellings: send one."
            raise Refusal(INVALID_REQUEST, message[:200], param=given[:64])
        made[name] = new = _value(name, value)
        same = same and new is value and name == given
    return node if same else made


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if name in _DATA:
            return value
        if name not in _NAMED:
            return [_object(value)] if name in _LISTS else _object(value)
        made = {key: _value("", schema) for key, schema in value.items()}
        return value if all(made[key] is value[key] for key in value) else made
    if isinstance(value, list) and name not in _DATA:
        items = [_value("", item) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if name == "data" and isinstance(value, str):
        return base64(value)
    return value


def base64(text: str) -> str:
    """Base64 in its standard alphabet, with padding."""
    if "-" in text or "_" in text:
        text = text.translate(_PLAIN)
    return text + "=" * (-len(text) % 4) if len(text) % 4 > 1 else text


def check(holder: dict[str, Any], known: frozenset[str], where: str) -> None:
    """Refuse (400) a field of `holder` that some servers could take for one of `known`."""
    for name in holder:
        if name not in known and (meant := _folded(known).get(name.replace("_", "").casefold())) is not None:
            message = f"'{where}' has a field that some servers take for {meant!r}: write {meant!r}."
            raise Refusal(INVALID_REQUEST, message, param=where)


def _folded(known: frozenset[str]) -> dict[str, str]:
    return {name.casefold(): name for name in known}

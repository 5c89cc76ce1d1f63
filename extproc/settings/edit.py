"""Changes of single values in the text of a settings file, which keep its comments and its form."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from extproc.settings.document import Document

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def with_value(text: str, path: Sequence[str | int], value: Any) -> str:
    """`text` with the value at `path`, which may be new in a mapping that exists. In a list a name stands for the entry
    of that `name`. Raises ConfigError for text that is no mapping, ValueError for a path that is not there.
    """
    node = Document(text, "").root
    where = ".".join(map(str, path))
    for at, part in enumerate(path):
        found = _below(node, part)
        if found is None:
            if at == len(path) - 1 and isinstance(part, str) and isinstance(node, yaml.MappingNode):
                return _inserted(text, node, part, value)
            raise ValueError(f"{where} is not in this file")
        node = found
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{where} is not a single value")  # noqa: TRY004 - the caller names the path
    return text[: node.start_mark.index] + _written(value) + text[node.end_mark.index :]


def difference(before: str, after: str, file: str) -> str:
    """The lines that differ, as `diff -u` shows them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), file, file, lineterm="", n=2)
    return "\n".join(lines)


def _below(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode):
        if isinstance(part, int):
            return node.value[part] if 0 <= part < len(node.value) else None
        named = (item for item in node.value if isinstance(item, yaml.MappingNode))
        return next((item for item in named if getattr(_below(item, "name"), "value", None) == part), None)
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(part)), None)
    return None


def _inserted(text: str, node: yaml.MappingNode, key: str, value: Any) -> str:
    """The text with one more key in a mapping: before its second key, so that the first still names it."""
    line = f"{_written(key)}: {_written(value)}"
    if node.flow_style or not node.value:
        if not node.value:
            at = node.start_mark.index + 1
            return text[:at] + line + text[at:]
        at = node.value[0][1].end_mark.index
        return f"{text[:at]}, {line}{text[at:]}"
    place = node.value[min(1, len(node.value) - 1)][0].start_mark
    return f"{text[: place.index]}{line}\n{' ' * place.column}{text[place.index :]}"


def _written(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)

"""The words for errors of the filter YAML: the expected kind of value, or the name that was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import isclass
from typing import Any, get_args

from extproc import guardrails
from extproc.words.values import Section, meant

_EXPECTED: Mapping[str, str] = {
    "bool_parsing": "true or false is expected",
    "bool_type": "true or false is expected",
    "date_from_datetime_parsing": "a date is expected: 2027-01-31",
    "decimal_parsing": "a number is expected, without a unit",
    "dict_type": "a mapping is expected: {NAME: …}",
    "float_parsing": "a number is expected, without a unit",
    "float_type": "a number is expected, without a unit",
    "int_parsing": "a whole number is expected",
    "int_type": "a whole number is expected",
    "mapping_type": "a mapping is expected: {NAME: …}",
    "missing": "this setting is required",
    "model_attributes_type": "a mapping is expected: {name: …, kind: …}",
    "sequence_str": "a list is expected: put the value in brackets, [ ]",
    "string_type": "text is expected; put it in quotes",
    "union_tag_not_found": "this setting is required",
}
"""Sentences in place of pydantic's, by the type of the error."""
_MOST_NAMES = 12  # most settings of a section that a message names
_SLIPS = (
    (r"\$\{?\w+\}|\benv: ", "a secret is written env:NAME, without a space"),
    (r"(?:^\s*|[:\[{,-] +)[*@%`]", "put text that begins with * @ % or ` in quotes"),
)
"""Patterns of lines that are not YAML, with the probable mistake."""


def explain(error: Any, root: type[Section]) -> tuple[Sequence[str | int], str]:
    """The keys that lead to the setting of an error of pydantic, and its text. `root` is the section of the file."""
    return _path(error), _message(error, root)


def slip(line: str) -> str:
    """The remedy for a line that is not YAML, if the mistake is a common one."""
    return next((f"; {told}" for pattern, told in _SLIPS if re.search(pattern, line)), "")


def _path(error: Any) -> Sequence[str | int]:
    path = list(error["loc"])
    return [*path, "kind"] if error["type"].startswith("union_tag") else path


def _sections(path: Sequence[str | int], root: type[Section]) -> Sequence[type[Section]]:
    """The sections that a place in the file may be."""
    found: Sequence[type[Section]] = (root,)
    for part in path:
        types = [
            section.model_fields[part].annotation if isinstance(part, str) and part in section.model_fields else None
            for section in found
        ]
        found = [each for type in types for each in _sections_of(type)] or found
    return found


def _sections_of(type: Any) -> Sequence[type[Section]]:
    if type is guardrails.OneKind:
        return list(guardrails.kinds().values())
    if isclass(type) and issubclass(type, Section):
        return [type]
    return [section for each in get_args(type) for section in _sections_of(each)]


def _message(error: Any, root: type[Section]) -> str:
    """The text of an error. It never shows the value: a key may stand where a name was meant."""
    found: str = error["type"]
    if found == "extra_forbidden":
        *where, name = _path(error)
        names = sorted({name for section in _sections(where, root) for name in section.model_fields})
        hint = (
            "another kind has it"
            if name in names
            else meant(str(name), names) or (f"there are {', '.join(names)}" if len(names) <= _MOST_NAMES else "")
        )
        return "there is no such setting" + (f"; {hint}" if hint else "")
    if found == "is_instance_of" and error["ctx"].get("class") == "Sequence":
        many = isinstance(error["input"], dict)
        return f"a list is expected: {'begin each entry with a dash' if many else 'put the value in brackets, [ ]'}"
    if found == "model_type":
        fields = [section.model_fields for section in _sections(_path(error), root)[:1]]
        names = [name for section in fields for name, field in section.items() if field.is_required()]
        names = names or [name for section in fields for name in [*section][:1]]
        return "a mapping is expected" + (f": {{{', '.join(f'{name}: …' for name in names)}}}" if names else "")
    if found == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        hint = meant(str(error["input"]), known)
        return f"one of {', '.join(known)} is expected{f'; {hint}' if hint else ''}"
    if found == "union_tag_invalid":
        kinds = sorted(error["ctx"]["expected_tags"].replace("'", "").split(", "))
        tag = error["ctx"]["tag"]
        hint = meant(tag, kinds)
        return f"there is no kind '{tag}'; {f'{hint} There' if hint else 'there'} are {', '.join(kinds)}"
    if found in _EXPECTED:
        return _EXPECTED[found]
    message: str = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]

"""JSON Schema for text from models, with a limit on the work: schemas may come from clients.

The vocabulary is that of 2020-12 (https://json-schema.org/draft/2020-12/json-schema-validation) without `$dynamicRef`,
`unevaluated…` and references to other documents, and with the tuples of older drafts (`items` as a list). `format` is
no constraint, as in the standard. Patterns are RE2. Libraries for JSON Schema bound neither the steps of a schema whose
references multiply nor the time of a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import re2

from extproc.guardrails._patterns import compile_pattern, readable

MOST_STEPS = 100_000
"""Comparisons of a part of a text with a part of a schema, for one text. About a microsecond each."""
_MOST_PARTS = 20_000  # objects and lists of a schema
_DEPTH = 128  # levels of references and of values

_UNSUPPORTED = frozenset(
    (
        *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor"),
        *("unevaluatedItems", "unevaluatedProperties", "dependencies"),
    )
)
_NOTES = frozenset(
    (
        *("$schema", "$id", "id", "$comment", "$defs", "definitions", "$vocabulary", "title", "description", "default"),
        *(
            "examples",
            "example",
            "deprecated",
            "readOnly",
            "writeOnly",
            "format",
            "contentEncoding",
            "contentMediaType",
        ),
        *("contentSchema", "strict", "then", "else", "minContains", "maxContains", "additionalItems"),
    )
)
"""Keywords that constrain nothing by themselves."""

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: type(value) is int or (type(value) is float and value.is_integer()),
}


class SchemaError(ValueError):
    """A schema that cannot be checked. The message names the keyword."""


class Schema:
    """A schema, checked and ready. With `strict`, keywords that JSON Schema does not know are refused. Without
    `patterns` its patterns count as matched: they come from somebody else.
    """

    def __init__(self, document: Any, *, strict: bool, patterns: bool) -> None:
        self._root = document
        self._patterns = patterns
        self._compiled: dict[str, re2._Regexp] = {}
        self._targets: dict[str, Any] = {}
        self._check(document, strict=strict)

    def broken(self, value: Any) -> str:
        """The keyword that `value` breaks; empty for a valid value. Raises TimeoutError for too much work."""
        return _Run(self).broken(self._root, value, 0)

    def matches(self, pattern: str, text: str) -> bool:
        return not self._patterns or self._compiled[pattern].search(text) is not None

    def target(self, reference: str) -> Any:
        """The part of the schema that a reference names, which was looked up before."""
        return self._targets[reference]

    def _place(self, reference: str) -> Any:
        node = self._root
        if not reference.startswith("#") or (reference[1:] and reference[1] != "/"):
            raise SchemaError(f"$ref: {reference[:64]!r} is no place in the schema")
        for step in reference[2:].split("/") if reference[1:] else ():
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            else:
                raise SchemaError(f"$ref: {reference[:64]!r} is no place in the schema")
        return node

    # --- checking the schema itself

    def _check(self, document: Any, *, strict: bool) -> None:
        waiting, seen, count = [(document, 0)], set[int](), 0
        while waiting:
            node, depth = waiting.pop()
            if isinstance(node, bool):
                continue
            if not isinstance(node, dict):
                raise SchemaError("a schema is an object, true or false")
            if id(node) in seen:
                continue
            seen.add(id(node))
            if (count := count + 1) > _MOST_PARTS or depth > _DEPTH:
                raise SchemaError("the schema is too large or too deep")
            for name, value in node.items():
                if name in _UNSUPPORTED:
                    raise SchemaError(f"{name}: this keyword is not supported")
                if name not in _KEYWORDS and name not in _NOTES and strict and not str(name).startswith("x-"):
                    raise SchemaError(f"{str(name)[:64]!r} is no keyword of JSON Schema")
                waiting += [(part, depth + 1) for part in self._parts(name, value)]

    def _parts(self, name: str, value: Any) -> Sequence[Any]:
        """The schemas in a keyword. Raises SchemaError for a value of the wrong kind."""
        wanted = _SHAPES.get(name)
        if wanted is not None and not wanted(value):
            raise SchemaError(f"{name}: the value has the wrong type")
        if name == "$ref":
            self._targets[value] = self._place(value)
            return [self._targets[value]]
        if name == "$id" and value and self._root.get("$id") != value:
            raise SchemaError("$id: only at the top of the schema")
        if name in ("pattern", "patternProperties") and self._patterns:
            for pattern in [value] if name == "pattern" else value:
                try:
                    readable(name, pattern)
                except ValueError as error:
                    raise SchemaError(str(error)) from None
                self._compiled[pattern] = compile_pattern(pattern)
        if name in _SCHEMA:
            return [value] if not isinstance(value, list) else value
        if name in _SCHEMAS:
            return value if isinstance(value, list) else list(value.values())
        return ()


class _Run:
    """One check of one value."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._left = MOST_STEPS

    def step(self, count: int = 1) -> None:
        self._left -= count
        if self._left < 0:
            raise TimeoutError("too many steps")

    def fits(self, node: Any, value: Any, depth: int) -> bool:
        return not self.broken(node, value, depth)

    def broken(self, node: Any, value: Any, depth: int) -> str:
        """The keyword of `node` that `value` breaks, or one below it."""
        if isinstance(node, bool):
            self.step()
            return "" if node else "false"
        self.step(1 + len(node))
        if depth > _DEPTH:
            raise TimeoutError("too many levels")
        for name, wanted in node.items():
            check = _KEYWORDS.get(name)
            if check is not None and (found := check(self, node, wanted, value, depth + 1)):
                return name if found is True else str(found)
        return ""

    def equal(self, one: Any, other: Any) -> bool:
        """JSON's equality: 1 and 1.0 are equal, 1 and true are not."""
        self.step()
        if isinstance(one, bool) or isinstance(other, bool):
            return one is other
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self.equal(value, other[name]) for name, value in one.items())
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self.equal, one, other))
        return bool(one == other)


# --- keywords: each gives true, or the keyword below, where the value breaks it

_Found = bool | str


def _type(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    run.step(len(wanted))
    return not any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _enum(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    return not any(run.equal(one, value) for one in wanted)


def _number(breaks: Callable[[Any, Any], bool]) -> Callable[..., _Found]:
    def check(_run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
        return _TYPES["number"](value) and breaks(value, wanted)

    return check


def _multiple(value: Any, wanted: Any) -> bool:
    if isinstance(value, int) and isinstance(wanted, int):
        return value % wanted != 0
    try:
        share = value / wanted
    except OverflowError:
        return True
    return not math.isfinite(share) or abs(share - round(share)) > 1e-9 * max(1.0, abs(share))


def _size(kind: type[str | list[Any] | dict[str, Any]], breaks: Callable[[int, Any], bool]) -> Callable[..., _Found]:
    def check(_run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
        return isinstance(value, kind) and breaks(len(value), wanted)

    return check


def _pattern(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    run.step(len(value) // 1000 if isinstance(value, str) else 0)
    return isinstance(value, str) and not run.schema.matches(wanted, value)


def _items(run: _Run, node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    if not isinstance(value, list):
        return False
    if isinstance(wanted, list):  # of older drafts
        found = _first(run, wanted, value, depth)
        return found or _each(run, node.get("additionalItems", True), value[len(wanted) :], depth)
    return _each(run, wanted, value[len(node.get("prefixItems", ())) :], depth)


def _prefix(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    return isinstance(value, list) and _first(run, wanted, value, depth)


def _first(run: _Run, wanted: Any, value: Any, depth: int) -> _Found:
    for one, item in zip(wanted, value, strict=False):
        if found := run.broken(one, item, depth):
            return found
    return False


def _each(run: _Run, wanted: Any, values: Any, depth: int) -> _Found:
    for item in values if wanted is not True else ():
        if found := run.broken(wanted, item, depth):
            return found
    return False


def _contains(run: _Run, node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    if not isinstance(value, list):
        return False
    count = sum(run.fits(wanted, item, depth) for item in value)
    return not node.get("minContains", 1) <= count <= node.get("maxContains", math.inf)


def _unique(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    if not wanted or not isinstance(value, list):
        return False
    seen: dict[str, list[Any]] = {}
    for item in value:
        alike = seen.setdefault(_mark(item), [])
        if any(run.equal(item, other) for other in alike):
            return True
        alike.append(item)
    return False


def _mark(value: Any) -> str:
    """The same for equal values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{type(value).__name__}{len(value)}" if isinstance(value, dict | list) else repr(value)


def _required(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    run.step(len(wanted))
    return isinstance(value, dict) and any(name not in value for name in wanted)


def _properties(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    if isinstance(value, dict):
        for name, item in value.items():
            run.step()
            if name in wanted and (found := run.broken(wanted[name], item, depth)):
                return found
    return False


def _pattern_properties(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    if isinstance(value, dict) and run.schema._patterns:  # noqa: SLF001
        for pattern, schema in wanted.items():
            for name, item in value.items():
                run.step()
                if run.schema.matches(pattern, name) and (found := run.broken(schema, item, depth)):
                    return found
    return False


def _additional(run: _Run, node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    if not isinstance(value, dict) or wanted is True:
        return False
    known, patterns = node.get("properties", {}), node.get("patternProperties", ())
    for name, item in value.items():
        run.step()
        if name in known or any(run.schema.matches(pattern, name) for pattern in patterns):
            continue
        if found := run.broken(wanted, item, depth):
            return True if wanted is False else found
    return False


def _names(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    return isinstance(value, dict) and _each(run, wanted, value, depth)


def _dependent_required(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    if isinstance(value, dict):
        for name in value:
            others = wanted.get(name, ())
            run.step(1 + len(others))
            if any(other not in value for other in others):
                return True
    return False


def _dependent_schemas(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    if isinstance(value, dict):
        for name in value:
            run.step()
            if name in wanted and (found := run.broken(wanted[name], value, depth)):
                return found
    return False


def _all(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    for schema in wanted:
        if found := run.broken(schema, value, depth):
            return found
    return False


def _any(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    return not any(run.fits(schema, value, depth) for schema in wanted)


def _one(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    return sum(run.fits(schema, value, depth) for schema in wanted) != 1


def _not(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    return run.fits(wanted, value, depth)


def _if(run: _Run, node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    follows = "then" if run.fits(wanted, value, depth) else "else"
    return run.broken(node.get(follows, True), value, depth)


def _ref(run: _Run, _node: Any, wanted: Any, value: Any, depth: int) -> _Found:
    return run.broken(run.schema.target(wanted), value, depth)


_KEYWORDS: Mapping[str, Callable[..., _Found]] = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "const": lambda run, _node, wanted, value, _depth: not run.equal(wanted, value),
    "multipleOf": _number(_multiple),
    "maximum": _number(lambda value, wanted: value > wanted),
    "exclusiveMaximum": _number(lambda value, wanted: value >= wanted),
    "minimum": _number(lambda value, wanted: value < wanted),
    "exclusiveMinimum": _number(lambda value, wanted: value <= wanted),
    "maxLength": _size(str, lambda size, wanted: size > wanted),
    "minLength": _size(str, lambda size, wanted: size < wanted),
    "maxItems": _size(list, lambda size, wanted: size > wanted),
    "minItems": _size(list, lambda size, wanted: size < wanted),
    "maxProperties": _size(dict, lambda size, wanted: size > wanted),
    "minProperties": _size(dict, lambda size, wanted: size < wanted),
    "pattern": _pattern,
    "items": _items,
    "prefixItems": _prefix,
    "contains": _contains,
    "uniqueItems": _unique,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "allOf": _all,
    "anyOf": _any,
    "oneOf": _one,
    "not": _not,
    "if": _if,
}

_SCHEMA = frozenset(
    ("items", "additionalItems", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else")
)
_SCHEMAS = frozenset(
    (
        *("prefixItems", "properties", "patternProperties", "dependentSchemas", "allOf", "anyOf", "oneOf"),
        *("$defs", "definitions"),
    )
)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and value in _TYPES


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return _TYPES["number"](value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "type": lambda value: all(map(_is_type, value if isinstance(value, list) else [value])),
    "enum": _is_list,
    "required": _is_names,
    "$ref": lambda value: isinstance(value, str),
    "$id": lambda value: isinstance(value, str),
    "pattern": lambda value: isinstance(value, str),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "uniqueItems": lambda value: isinstance(value, bool),
    "dependentRequired": lambda value: _is_object(value) and all(map(_is_names, value.values())),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), _is_number),
    **dict.fromkeys(
        (
            *("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"),
            *("minContains", "maxContains"),
        ),
        _is_size,
    ),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"), _is_object),
    **dict.fromkeys(("prefixItems", "allOf", "anyOf", "oneOf"), _is_list),
}

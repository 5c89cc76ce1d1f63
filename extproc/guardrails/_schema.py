"""JSON Schema for text from models, with a limit on the work: schemas may come from clients.

The vocabulary is that of 2020-12 (https://json-schema.org/draft/2020-12/json-schema-validation) without `$dynamicRef`,
`unevaluated…` and references to other documents, and with the tuples of older drafts (`items` as a list). `format` is
no constraint, as in the standard. Patterns are RE2. Libraries for JSON Schema bound neither the steps of a schema whose
references multiply nor the time of a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import re2

from extproc.guardrails._patterns import compile_pattern, readable

MOST_STEPS = 100_000
"""Most comparisons of a part of a text with a part of a schema, for one text. Each takes about a microsecond."""
_MOST_PARTS = 20_000  # most objects and lists of a schema
_DEPTH = 128  # most levels of references and of values

_UNSUPPORTED = frozenset((
    "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor", "unevaluatedItems",
    "unevaluatedProperties", "dependencies",
))  # fmt: skip
_NOTES = frozenset((
    "$schema", "$id", "id", "$comment", "$defs", "definitions", "$vocabulary", "title", "description", "default",
    "examples", "example", "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType",
    "contentSchema", "strict", "then", "else", "minContains", "maxContains", "additionalItems",
))  # fmt: skip
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


class UncheckableSchemaError(ValueError):
    """A schema that cannot be checked. The message names the keyword."""


class Schema:
    """A schema, checked and ready. `strict` refuses keywords unknown to JSON Schema. `patterns=False` ignores regexes,
    because a client wrote the schema.
    """

    def __init__(self, document: Any, *, strict: bool, patterns: bool) -> None:
        self._root = document
        self.patterns = patterns
        self._compiled: dict[str, re2._Regexp] = {}
        self._targets: dict[str, Any] = {}
        self._check(document, strict=strict)

    def broken(self, value: Any) -> str:
        """The keyword that `value` breaks; empty for a valid value. Raises TimeoutError for too much work."""
        return _Run(self).broken(self._root, value, 0)

    def matches(self, pattern: str, text: str) -> bool:
        return not self.patterns or self._compiled[pattern].search(text) is not None

    def target(self, reference: str) -> Any:
        """The part of the schema that a reference names, resolved when the schema was checked."""
        return self._targets[reference]

    def _place(self, reference: str) -> Any:
        node = self._root
        if not reference.startswith("#") or (reference[1:] and reference[1] != "/"):
            raise UncheckableSchemaError(f"$ref: {reference[:64]!r} is no place in the schema")
        for step in reference[2:].split("/") if reference[1:] else ():
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            else:
                raise UncheckableSchemaError(f"$ref: {reference[:64]!r} is no place in the schema")
        return node

    # --- checking the schema itself

    def _check(self, document: Any, *, strict: bool) -> None:
        waiting, seen, count = [(document, 0)], set[int](), 0
        while waiting:
            node, depth = waiting.pop()
            if isinstance(node, bool):
                continue
            if not isinstance(node, dict):
                raise UncheckableSchemaError("a schema is an object, true or false")
            if id(node) in seen:
                continue
            seen.add(id(node))
            if (count := count + 1) > _MOST_PARTS or depth > _DEPTH:
                raise UncheckableSchemaError("the schema is too large or too deep")
            for name, value in node.items():
                if name in _UNSUPPORTED:
                    raise UncheckableSchemaError(f"{name}: this keyword is not supported")
                if name not in _KEYWORDS and name not in _NOTES and strict and not str(name).startswith("x-"):
                    raise UncheckableSchemaError(f"{str(name)[:64]!r} is no keyword of JSON Schema")
                waiting += [(part, depth + 1) for part in self._parts(name, value)]

    def _parts(self, name: str, value: Any) -> Sequence[Any]:
        """The schemas in a keyword. Raises SchemaError for a value of the wrong kind."""
        wanted = _SHAPES.get(name)
        if wanted is not None and not wanted(value):
            raise UncheckableSchemaError(f"{name}: the value has the wrong type")
        if name == "$ref":
            self._targets[value] = self._place(value)
            return [self._targets[value]]
        if name == "$id" and value and self._root.get("$id") != value:
            raise UncheckableSchemaError("$id: only at the top of the schema")
        if name in ("pattern", "patternProperties") and self.patterns:
            for pattern in [value] if name == "pattern" else value:
                try:
                    readable(name, pattern)
                except ValueError as error:
                    raise UncheckableSchemaError(str(error)) from None
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
        """The keyword in `node`, or in a schema below it, that `value` breaks."""
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


# --- keywords: each function returns True, or the keyword of a schema below, if the value breaks it

_Found = bool | str
_Pairs = Iterator[tuple[Any, Any]]
"""Schemas, each with the value that has to fit it."""


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
    """A key that is equal for equal values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{type(value).__name__}{len(value)}" if isinstance(value, dict | list) else repr(value)


def _required(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    run.step(len(wanted))
    return isinstance(value, dict) and any(name not in value for name in wanted)


def _dependent_required(run: _Run, _node: Any, wanted: Any, value: Any, _depth: int) -> _Found:
    if isinstance(value, dict):
        for name in value:
            others = wanted.get(name, ())
            run.step(1 + len(others))
            if any(other not in value for other in others):
                return True
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


# --- keywords that say which schemas parts of the value have to fit


def _each(pairs: Callable[[_Run, Any, Any, Any], _Pairs]) -> Callable[..., _Found]:
    def check(run: _Run, node: Any, wanted: Any, value: Any, depth: int) -> _Found:
        for schema, part in pairs(run, node, wanted, value):
            if found := run.broken(schema, part, depth):
                return found if wanted is not False else True
        return False

    return check


def _items(_run: _Run, node: Any, wanted: Any, value: Any) -> _Pairs:
    if isinstance(value, list):
        tuple_ = wanted if isinstance(wanted, list) else ()  # the tuple form of older drafts
        rest = node.get("additionalItems", True) if isinstance(wanted, list) else wanted
        yield from zip(tuple_, value, strict=False)
        if rest is not True:
            yield from ((rest, item) for item in value[len(tuple_ or node.get("prefixItems", ())) :])


def _properties(run: _Run, _node: Any, wanted: Any, value: Any) -> _Pairs:
    for name, item in value.items() if isinstance(value, dict) else ():
        run.step()
        if name in wanted:
            yield wanted[name], item


def _pattern_properties(run: _Run, _node: Any, wanted: Any, value: Any) -> _Pairs:
    if isinstance(value, dict) and run.schema.patterns:
        for pattern, schema in wanted.items():
            for name, item in value.items():
                run.step()
                if run.schema.matches(pattern, name):
                    yield schema, item


def _additional(run: _Run, node: Any, wanted: Any, value: Any) -> _Pairs:
    if isinstance(value, dict) and wanted is not True:
        known, patterns = node.get("properties", {}), node.get("patternProperties", ())
        for name, item in value.items():
            run.step()
            if name not in known and not any(run.schema.matches(pattern, name) for pattern in patterns):
                yield wanted, item


def _dependent_schemas(run: _Run, _node: Any, wanted: Any, value: Any) -> _Pairs:
    for name in value if isinstance(value, dict) else ():
        run.step()
        if name in wanted:
            yield wanted[name], value


_KEYWORDS: Mapping[str, Callable[..., _Found]] = {
    "$ref": _each(lambda run, _node, wanted, value: iter([(run.schema.target(wanted), value)])),
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
    "items": _each(_items),
    "prefixItems": _each(
        lambda _run, _node, wanted, value: zip(wanted, value if isinstance(value, list) else (), strict=False)
    ),
    "contains": _contains,
    "uniqueItems": _unique,
    "required": _required,
    "properties": _each(_properties),
    "patternProperties": _each(_pattern_properties),
    "additionalProperties": _each(_additional),
    "propertyNames": _each(
        lambda _run, _node, wanted, value: (
            (wanted, name) for name in (value if isinstance(value, dict) and wanted is not True else ())
        )
    ),
    "dependentRequired": _dependent_required,
    "dependentSchemas": _each(_dependent_schemas),
    "allOf": _each(lambda _run, _node, wanted, value: ((schema, value) for schema in wanted)),
    "anyOf": _any,
    "oneOf": _one,
    "not": _not,
    "if": _if,
}

_SCHEMA = frozenset((
    "items", "additionalItems", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else",
))  # fmt: skip
_SCHEMAS = frozenset((
    "prefixItems", "properties", "patternProperties", "dependentSchemas", "allOf", "anyOf", "oneOf", "$defs",
    "definitions",
))  # fmt: skip


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and value in _TYPES


_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "type": lambda value: all(map(_is_type, value if isinstance(value, list) else [value])),
    "required": _is_names,
    "multipleOf": lambda value: _TYPES["number"](value) and value > 0,
    "uniqueItems": _is(bool),
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_is_names, value.values())),
    **dict.fromkeys(("$ref", "$id", "pattern"), _is(str)),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), _TYPES["number"]),
    **dict.fromkeys(
        (
            "minContains",
            "maxContains",
            *(f"{end}{of}" for end in ("min", "max") for of in ("Length", "Items", "Properties")),
        ),
        lambda value: type(value) is int and value >= 0,
    ),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"), _is(dict)),
    **dict.fromkeys(("enum", "prefixItems", "allOf", "anyOf", "oneOf"), _is(list)),
}
"""Shapes of the values of keywords."""

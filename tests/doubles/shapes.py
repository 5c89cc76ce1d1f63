"""Tables that describe the shape of a JSON document, and exact errors for one that does not fit.

A `Check` raises `Wrong`; each API puts it into its own words.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

Path = tuple[str | int, ...]
Check = Callable[[Any, Path], None]


class Wrong(Exception):  # noqa: N818 - it is worded by the dialect
    """An error at a place. `problem` is missing, unknown, type (`expected` is a type) or value (a sentence)."""

    def __init__(self, path: Path, problem: str, expected: str = "", got: Any = None) -> None:
        super().__init__(path, problem, expected)
        self.path = path
        self.problem = problem
        self.expected = expected
        self.got = got

    def at(self, separator: str = ".", index: str = ".%d") -> str:
        """Write the path: `messages.0.content`, or with an index of [%d], `messages[0].content`."""
        steps = [index % step if isinstance(step, int) else separator + step for step in self.path]
        return "".join(steps).removeprefix(separator)


def kind(value: Any) -> str:
    """Name a value's type in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _is(wanted: str) -> Check:
    def check(value: Any, path: Path) -> None:
        if kind(value) != wanted:
            raise Wrong(path, "type", wanted, value)

    return check


string = _is("string")
boolean = _is("boolean")
anything: Check = lambda _value, _path: None  # noqa: E731
an_object = _is("object")
an_array = _is("array")


def text(least: int = 1, most: int = 1_000_000_000) -> Check:
    def check(value: Any, path: Path) -> None:
        string(value, path)
        if len(value) < least:
            raise Wrong(path, "value", f"String should have at least {least} character{'s' * (least != 1)}", value)
        if len(value) > most:
            raise Wrong(path, "value", f"String should have at most {most} characters", value)

    return check


def matching(allowed: Callable[[str], bool], sentence: str) -> Check:
    """Strings with a property."""

    def check(value: Any, path: Path) -> None:
        string(value, path)
        if not allowed(value):
            raise Wrong(path, "value", sentence, value)

    return check


def _bounded(kinds: tuple[str, ...], least: float, most: float) -> Check:
    def check(value: Any, path: Path) -> None:
        if kind(value) not in kinds:
            raise Wrong(path, "type", kinds[-1], value)
        if value < least:
            raise Wrong(path, "value", f"Input should be greater than or equal to {least}", value)
        if value > most:
            raise Wrong(path, "value", f"Input should be less than or equal to {most}", value)

    return check


def integer(least: int = -(2**63), most: int = 2**63 - 1) -> Check:
    return _bounded(("integer",), least, most)


def number(least: float = -1e300, most: float = 1e300) -> Check:
    return _bounded(("integer", "number"), least, most)


def one_of(*values: str) -> Check:
    listed = ", ".join(f"'{value}'" for value in values[:-1])
    sentence = f"Input should be {listed} or '{values[-1]}'" if listed else f"Input should be '{values[0]}'"
    return matching(values.__contains__, sentence)


def array(check: Check, least: int = 0, most: int = 1_000_000) -> Check:
    def check_all(value: Any, path: Path) -> None:
        an_array(value, path)
        if len(value) < least:
            raise Wrong(path, "value", f"List should have at least {least} item{'s' * (least != 1)}", value)
        if len(value) > most:
            raise Wrong(path, "value", f"List should have at most {most} items", value)
        for index, each in enumerate(value):
            check(each, (*path, index))

    return check_all


def mapping(check: Check) -> Check:
    def check_all(value: Any, path: Path) -> None:
        an_object(value, path)
        for name, each in value.items():
            check(each, (*path, name))

    return check_all


def record(fields: Mapping[str, Check], *, nulls: bool = False, open: bool = False) -> Check:
    """An object with these fields: `name!` is required, `name?` may be null; with `nulls` all may. `open` allows
    further fields.
    """
    table = {name.rstrip("!?"): (check, nulls or name.endswith("?")) for name, check in fields.items()}
    required = [name[:-1] for name in fields if name.endswith("!")]

    def check(value: Any, path: Path) -> None:
        an_object(value, path)
        for name in required:
            if value.get(name) is None and (nulls or name not in value):
                raise Wrong((*path, name), "missing")
        for name, each in value.items():
            if name not in table:
                if open:
                    continue
                raise Wrong((*path, name), "unknown", got=each)
            inner, nullable = table[name]
            if each is not None or not nullable:
                inner(each, (*path, name))

    return check


def tagged(key: str, kinds: Mapping[str, Check], default: str | None = None) -> Check:
    """An object whose field `key` selects one of these shapes."""

    def check(value: Any, path: Path) -> None:
        an_object(value, path)
        tag = value.get(key)
        tag = default if tag is None else tag
        if tag is None:
            raise Wrong((*path, key), "missing")
        if not isinstance(tag, str) or tag not in kinds:
            names = ", ".join(f"'{name}'" for name in kinds)
            raise Wrong(path, "value", f"Input tag {tag!r} found using '{key}' does not match any of: {names}", value)
        kinds[tag](value, path)

    return check


def union(members: Mapping[str, Check], shared: Mapping[str, Check] | None = None) -> Check:
    """An object with exactly one of these members, which may have the shared fields too. Null counts as absent."""
    fields = record({**members, **(shared or {})}, nulls=True)

    def check(value: Any, path: Path) -> None:
        fields(value, path)
        present = [name for name in members if value.get(name) is not None]
        if len(present) != 1:
            raise Wrong(
                path, "value", f"exactly one of {', '.join(members)} must be set, not {present or 'none'}", value
            )

    return check


def either(*checks: tuple[str, Check]) -> Check:
    """A check for each type of value: `either(("string", string), ("array", array(BLOCK)))`."""
    table = dict(checks)

    def check(value: Any, path: Path) -> None:
        found = table.get(kind(value))
        if found is None:
            raise Wrong(path, "type", next(iter(table)), value)
        found(value, path)

    return check


def _is_base64(value: str) -> bool:
    try:
        b64decode(value, validate=True)
    except ValueError:
        return False
    return bool(value)


base64 = matching(_is_base64, "Invalid base64 data")

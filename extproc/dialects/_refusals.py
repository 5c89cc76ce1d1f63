"""Refusals (400) of requests that violate their API, or that no translation can express."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from extproc.wire.framing import shapes
from extproc.words.errors import INVALID_REQUEST, UNSUPPORTED_BY_TARGETS, Refusal

T = TypeVar("T")


def wrong(message: str, where: str) -> Refusal:
    """The refusal of a field that violates the API."""
    return Refusal(INVALID_REQUEST, message, param=where)


def unsupported(message: str, where: str) -> Refusal:
    """The refusal of a field that no translation can express."""
    return Refusal(UNSUPPORTED_BY_TARGETS, message, param=where)


def string(value: Any, where: str) -> str:
    """A text. Raises Refusal (400)."""
    if not isinstance(value, str):
        raise wrong(f"'{where}' must be a string.", where)
    return value


def optional_string(value: Any, where: str) -> str:
    """An optional text; empty when absent. Raises Refusal (400)."""
    return "" if value is None else string(value, where)


def fields(value: Any, where: str) -> dict[str, Any]:
    """An object. Raises Refusal (400)."""
    if not isinstance(value, dict):
        raise wrong(f"'{where}' must be an object.", where)
    return value


def optional_fields(value: Any, where: str) -> dict[str, Any]:
    """An optional object; empty when absent. Raises Refusal (400)."""
    return {} if value is None else fields(value, where)


def optional_list(value: Any, where: str) -> list[Any]:
    """An optional list; empty when absent. Raises Refusal (400)."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(f"'{where}' must be a list.", where)
    return value


def convert(body: Mapping[str, Any], shape: type[T]) -> T:
    """`body` converted to `shape`. Raises Refusal (400) with the field's name."""
    try:
        return shapes.convert(body, shape)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        path = where.rstrip("`").removeprefix("$").lstrip(".")
        what = what.replace("`", "")
        said = f"'{path}': {what[0].lower()}{what[1:]}." if path else f"{what}."
        raise Refusal(INVALID_REQUEST, said[:500], param=path[:200] or None) from None
    except RecursionError:
        raise Refusal(INVALID_REQUEST, "The body is nested too deeply.") from None

"""Requests that the neutral form carries whole, so that a cached answer serves clients of other APIs too.

A room's `plain.py` lists every field and value of such requests. Any other one makes a request one of its API alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from extproc.wire.framing import shapes

WORD = Annotated[str, Meta(min_length=1)]
NOTHING = Annotated[list[Any], Meta(max_length=0)]
EFFORTS = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
MODES = Literal["auto", "none", "required"]


def one(tag: tuple[str, str] | None = None, /, may: Mapping[str, Any] | None = None, **must: Any) -> Any:
    """The type of an object with the fields `must`, and `may`, which can be null or absent. `tag`, a field and its
    value, tells the objects of a union apart.
    """
    fields: list[Any] = [*must.items(), *((name, kind | None, None) for name, kind in (may or {}).items())]
    field, value = tag or (None, None)
    return msgspec.defstruct("Form", fields, forbid_unknown_fields=True, tag_field=field, tag=value)


def many(kind: Any, *, least: int = 0, most: int | None = None) -> Any:
    """The type of a list of `kind` with so many entries."""
    return Annotated[list[kind], Meta(min_length=least, max_length=most)]


TEXT_FORM = one(("type", "text"))
OBJECT_FORM = one(("type", "json_object"))


def read(value: Any, form: Any) -> Any:
    """`value` as an object of the type `form`; None where it has another form. Never raises."""
    try:
        return shapes.convert(value, form)
    except (msgspec.ValidationError, RecursionError):
        return None

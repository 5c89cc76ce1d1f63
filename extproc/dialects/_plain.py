"""Requests that the neutral form expresses completely, so that a cached answer can serve clients of other APIs.

A room's `plain.py` lists every field and value of such requests. A request with any other field or value is specific to
its API.
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
    """Type of an object with the required fields `must`, and the fields `may`, which can be null or absent. `tag`, a
    field and its value, distinguishes objects of a union.
    """
    fields: list[Any] = [*must.items(), *((name, kind | None, None) for name, kind in (may or {}).items())]
    field, value = tag or (None, None)
    return msgspec.defstruct("Form", fields, forbid_unknown_fields=True, tag_field=field, tag=value)


def many(kind: Any, *, least: int = 0, most: int | None = None) -> Any:
    """Type of a list of `kind`, with limits for its length."""
    return Annotated[list[kind], Meta(min_length=least, max_length=most)]


TEXT_FORM = one(("type", "text"))
OBJECT_FORM = one(("type", "json_object"))


def read(value: Any, form: Any) -> Any:
    """`value` converted to the type `form`; None for another form. Never raises."""
    try:
        return shapes.convert(value, form)
    except (msgspec.ValidationError, RecursionError):
        return None

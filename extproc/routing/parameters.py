"""Changes of a request's fields at one target: `override`, `default` and `remove` of the settings.

No target may change a field of `fixed_fields`: routing, guardrails, budgets and the reading of the answer rely on them.
A change of any field of `output_limits` applies to the field that the client's API knows. Both sets are computed on
first use: loading all dialects is a quarter of the time of `extproc check`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from extproc.dialects import fixed_fields, output_limits
from extproc.words.contract import place
from extproc.words.exchange import Changes

MAX_CHANGES = 1024
"""Most bytes of JSON of one target's changes, including those of its virtual models: they travel in a header."""


def compile_changes(override: Mapping[str, Any], default: Mapping[str, Any], remove: Sequence[str]) -> Changes:
    """The changes of one target. Raises ValueError when a field is fixed, named twice, or of the wrong type."""
    given: list[tuple[str, Literal["set", "default", "remove"], Any]] = [
        *((name, "set", value) for name, value in override.items()),
        *((name, "default", value) for name, value in default.items()),
        *((name, "remove", None) for name in remove),
    ]
    names: set[str] = set()
    for name, _, value in given:
        if _is_fixed(name):
            raise ValueError(f"{name!r} cannot be changed by a target")
        if name in names:
            raise ValueError(f"{name!r} stands in more than one of override, default and remove")
        if name in output_limits() and names & set(output_limits()):
            raise ValueError(f"{name!r} is another name of a field that also stands here")
        if name in output_limits() and value is not None and not (type(value) is int and value >= 1):
            raise ValueError(f"{name!r} must be a whole number of at least 1")
        names.add(name)
    size = len(encode(given))
    if size > MAX_CHANGES:
        raise ValueError(f"the changes of a target have {size} bytes of JSON, at most {MAX_CHANGES}")
    return tuple(given)


def _is_fixed(name: str) -> bool:
    """True for a fixed field, a part of a fixed field, and an object that holds one."""
    return any(
        name == fixed or name.startswith(f"{fixed}.") or fixed.startswith(f"{name}.") for fixed in fixed_fields()
    )


def encode(value: Any) -> bytes:
    """The value as JSON. Raises ValueError for a value that JSON cannot express, such as a date that YAML made of
    2026-01-01.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_refuse).encode()


def compose(outer: Changes, inner: Changes) -> Changes:
    """Both changes in one, the outer virtual model's first."""
    result = {_field(name): (name, action, value) for name, action, value in outer}
    for name, action, value in inner:
        key = _field(name)
        before = result.get(key)
        if action != "default" or before is None:
            result[key] = (name, action, value)
        elif before[1] == "remove":  # the field was removed, so the default always applies
            result[key] = (name, "set", value)
        elif before[2] is None:  # null counts as absent
            result[key] = (name, before[1], value)
    return tuple(result.values())


def apply(changes: Changes, body: Mapping[str, Any], output_field: str | None) -> tuple[dict[str, Any], list[str]]:
    """Fields to set in `body`, and fields to remove from it. `output_field` is the API's name of the output limit;
    None: the request has no limit to change.
    """
    fields: dict[str, Any] = {}
    removed: list[str] = []
    for name, action, value in changes:
        here = output_field if name in output_limits() else name
        if here is None:
            continue
        holder, key = place(body, here)
        if action == "remove":
            if key in holder:
                removed.append(here)
        elif action == "set" or holder.get(key) is None:
            fields[here] = value
    return fields, removed


def output_limit(changes: Changes, asked: int | None) -> int | None:
    """The limit of the output after `changes`, where the client asked for `asked`."""
    for name, action, value in changes:
        if name in output_limits():
            if action == "remove":
                asked = None
            elif action == "set" or asked is None:
                asked = value
    return asked


def _field(name: str) -> str:
    """The common name of a field with several names."""
    return output_limits()[0] if name in output_limits() else name


def _refuse(value: Any) -> Any:
    raise ValueError(f"{value} is not JSON; put it in quotes")

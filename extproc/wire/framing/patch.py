"""Fields of a body set or removed, while the rest of it stays as it was, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.wire.framing.multipart import is_form, patched
from extproc.words import contract

decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""The fields of a JSON object, each still the bytes it came in."""
_encode = msgspec.json.encode


def patch(body: bytes, edits: Mapping[str, Any], removed: Sequence[str] = ()) -> bytes:
    """`body`, a JSON object or a form, with some of its fields set or removed, each named as in `contract.place`; the
    others stay as they were, byte for byte.
    """
    if is_form(body):
        return patched(body, edits, removed)
    fields: dict[str, Any] = decode_fields(body)
    for outer in {name.partition(".")[0] for name in (*edits, *removed) if "." in name}:
        fields[outer] = _opened(fields.get(outer))
    return _encode(contract.changed(fields, edits, removed))


def _opened(value: msgspec.Raw | None) -> dict[str, Any]:
    """The fields of an object in a body; none where it is absent or another value."""
    try:
        return {} if value is None else decode_fields(value)
    except msgspec.DecodeError:
        return {}

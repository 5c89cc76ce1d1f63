"""Costs written into the JSON of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def with_cost(data: bytes, cost: str, places: Sequence[Sequence[str]]) -> bytes:
    """The JSON `data` with `cost` in the usage object at the first of `places` that has one; unchanged without such an
    object.
    """
    for place in places:
        try:
            return _encode(_inserted(_fields(data), place, msgspec.Raw(cost.encode())))
        except (KeyError, msgspec.DecodeError):
            continue
    return data


def _inserted(fields: Mapping[str, msgspec.Raw], place: Sequence[str], cost: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    """Fields with `cost` in the object at `place`. Bytes outside the path to it do not change."""
    if not place:
        return {**fields, "cost": cost}
    inner = _inserted(_fields(fields[place[0]]), place[1:], cost)
    return {**fields, place[0]: msgspec.Raw(_encode(inner))}

"""Patches of a body: some values are set or removed, and all other bytes stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from extproc.wire.framing.multipart import is_form, patched
from extproc.words import contract

decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Decodes a JSON object to its fields, each as its original bytes."""
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode

Changes = Mapping[tuple[int, Any], Any]
"""New values, by the id() of the object or list that holds each, and the key in it."""


def patch(body: bytes, edits: Mapping[str, Any], removed: Sequence[str] = ()) -> bytes:
    """`body`, a JSON object or a form, with some fields set or removed; all other fields keep their bytes. A field is
    named as in `contract.place`.
    """
    if is_form(body):
        return patched(body, edits, removed)
    fields: dict[str, Any] = decode_fields(body)
    for outer in {name.partition(".")[0] for name in (*edits, *removed) if "." in name}:
        fields[outer] = _opened(fields.get(outer))
    return _encode(contract.changed(fields, edits, removed))


def fields_at(body: bytes, *path: str) -> dict[str, msgspec.Raw]:
    """The fields of the object at a path in a JSON body, each as its original bytes; none where no object is."""
    found = decode_fields(body)
    for name in path:
        found = _opened(found.get(name))
    return found


def _opened(value: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """The fields of an object in a body; none for an absent value or another type."""
    try:
        return {} if value is None else decode_fields(value)
    except msgspec.DecodeError:
        return {}


def replaced(body: bytes, tree: dict[str, Any], changed: Mapping[str, Any]) -> bytes:
    """`body`, whose JSON is `tree`, with other top-level values; None removes a field. Changes `tree` in place."""
    removed = [name for name, value in changed.items() if value is None]
    edits = {name: value for name, value in changed.items() if value is not None}
    for name in removed:
        del tree[name]
    tree.update(edits)
    return patch(body, edits, removed)


def rewritten(body: bytes, tree: Any, changes: Changes) -> bytes:
    """`body`, whose JSON is `tree`, after `changes`. All other strings and numbers keep their bytes. Changes `tree` in
    place.
    """
    if is_form(body):
        fields = {key: new for (holder, key), new in changes.items() if holder == id(tree)}
        tree.update(fields)
        return patched(body, fields)
    touched = _on_the_way(tree, {holder for holder, _ in changes})
    return _rewrite(msgspec.Raw(body), tree, changes, touched)


def _on_the_way(tree: Any, holders: Collection[int]) -> set[int]:
    """Ids of `holders` and of all objects and lists around them."""
    parents: dict[int, int] = {}
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list):
                parents[id(child)] = id(node)
                waiting.append(child)
    found: set[int] = set()
    for holder in holders:
        at: int | None = holder
        while at is not None and at not in found:
            found.add(at)
            at = parents.get(at)
    return found


def _rewrite(raw: msgspec.Raw, node: Any, changes: Changes, touched: Collection[int]) -> bytes:
    pieces: Any = decode_fields(raw) if isinstance(node, dict) else _decode_items(raw)
    for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if (id(node), key) in changes:
            node[key] = new = changes[id(node), key]
            pieces[key] = msgspec.Raw(_encode(new))
        elif id(child) in touched and isinstance(child, dict | list):
            pieces[key] = msgspec.Raw(_rewrite(pieces[key], child, changes, touched))
    return _encode(pieces)

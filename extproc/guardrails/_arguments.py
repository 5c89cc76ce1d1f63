"""Arguments of a tool call, by their names at any depth, in every form in which a tool may read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.guardrails._normal import normalised
from extproc.guardrails._unwrap import inner
from extproc.wire.framing.json import InvalidJSON, parse

_DEPTH = 64  # most levels of arguments
_INSIDE = 3  # most levels of JSON inside a string
_MOST = 10_000  # most values of one call

FREE = "input"
"""Name of the argument of tools that take free text instead of JSON."""


class Unreadable(ValueError):  # noqa: N818
    """Arguments that are no JSON, or that two readers could take differently: a key twice, values without number."""


def read(text: str, *, json: bool) -> Any:
    """The arguments as a tree. Unless `json` is true, text becomes the single argument FREE. Raises Unreadable."""
    try:
        return parse(text.encode("utf-8", "surrogatepass"), _DEPTH, _MOST)
    except InvalidJSON as error:
        if json:
            raise Unreadable(str(error)) from None
        return {FREE: text}


def named(tree: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of every field at any depth, also of JSON inside strings. Names have their plain form, in lower
    case. Raises Unreadable for too many values.
    """
    waiting, count = [(tree, _INSIDE)], 0
    while waiting:
        node, inside = waiting.pop()
        if (count := count + 1) > _MOST:
            raise Unreadable("too many values")
        if isinstance(node, dict):
            for name, value in node.items():
                yield plain(name), value
                waiting.append((value, inside))
        elif isinstance(node, list):
            waiting += [(value, inside) for value in node]
        elif isinstance(node, str) and inside and (within := _inside(node)) is not None:
            waiting.append((within, inside - 1))


def plain(name: str) -> str:
    """A name without disguises, in lower case."""
    return normalised(name).casefold()


def scalars(value: Any) -> Iterator[Any]:
    """The strings, numbers, words and nulls below a value."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += reversed(node.values())
        elif isinstance(node, list):
            waiting += reversed(node)
        else:
            yield node


def leaves(value: Any) -> list[str]:
    """The strings, numbers and words below a value, as text."""
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in scalars(value) if each is not None]


def forms(value: Any) -> Iterator[str]:
    """The texts that a value may be read as: each string in it; all strings joined by spaces, as a command's words;
    these without disguises; these decoded once.
    """
    texts = leaves(value)
    if len(texts) > 1:
        texts.append(" ".join(texts))
    for text in texts:
        yield text
        if (simple := normalised(text)) is not text:
            yield simple
        for decoded, _ in inner(text):
            yield decoded


def _inside(text: str) -> Any:
    """The JSON in a string; None if the string is not JSON. Raises Unreadable for ambiguous JSON."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return parse(text.encode("utf-8", "surrogatepass"), _DEPTH, _MOST)
    except InvalidJSON as error:
        if "twice" in str(error):
            raise Unreadable(str(error)) from None
        return None

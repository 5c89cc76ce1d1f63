"""Characters in the texts of a definition that people do not see but models read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_FLAGS = re.compile("\U0001f3f4(?:\U000e0067\U000e0062(?:{}|{}|{}))\U000e007f".format(
    *("".join(chr(0xE0000 + ord(letter)) for letter in land) for land in ("eng", "sct", "wls"))
))  # fmt: skip
"""Flags of England, Scotland and Wales: the emoji that are made of tags."""
_JOINERS = "\u200c\u200d"
_SHOWN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Visible format characters: signs in front of numbers (Unicode: Prepended_Concatenation_Mark)."""
_JOINING = (
    *("ARABIC", "BENGALI", "DEVANAGARI", "GUJARATI", "GURMUKHI", "KANNADA", "KHMER", "MALAYALAM", "MANDAIC"),
    *("MONGOLIAN", "MYANMAR", "NKO", "ORIYA", "SINHALA", "SYRIAC", "TAMIL", "TELUGU", "TIBETAN"),
)
"""Scripts whose spelling needs joiners (Unicode Standard, chapters 9 and 12)."""


def invisible(value: Any) -> bool:
    """True if a text at or below `value`, or the name of a field, has invisible characters: format characters, tags,
    variation selectors beyond those of emoji. Joiners in emoji and in scripts that need them are allowed.
    """
    return any(_hides(text) for text in texts(value))


def texts(value: Any) -> Iterator[str]:
    """All texts at or below `value`, names of fields included."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            waiting += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            waiting += node


def _hides(text: str) -> bool:
    if text.isascii() and text.isprintable():
        return False
    text = _FLAGS.sub("", text)
    for at, char in enumerate(text):
        if char in _JOINERS:
            if not _joins(text, at):
                return True
        elif _selects(char):
            if at and _selects(text[at - 1]):
                return True  # a row of selectors can encode hidden bytes
        elif "\U000e0000" <= char <= "\U000e0fff" or (unicodedata.category(char) == "Cf" and char not in _SHOWN):
            return True
    return False


def _selects(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f"


def _joins(text: str, at: int) -> bool:
    """True for a joiner between two emoji, or after a letter of a script that is spelled with joiners."""
    before = text[at - 1] if at else ""
    if before and before not in _JOINERS and unicodedata.name(before, "").partition(" ")[0] in _JOINING:
        return True
    emoji = text[:at].rstrip("\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")[-1:]
    return text[at] == "\u200d" and _pictures(emoji) and _pictures(text[at + 1 : at + 2])


def _pictures(char: str) -> bool:
    return bool(char) and unicodedata.category(char) == "So"

"""Text without disguises, for searching. Masks edit the text as it was written.

Each character is replaced on its own, so the normal form of a text's beginning never changes with what follows:
compatible forms (NFKD: full-width, styled letters, ligatures), without combining marks, invisible and tag characters,
and with letters that look like Latin ones in their place.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_LOOK_ALIKES: Final = dict(
    zip(
        # Cyrillic, Greek, Armenian and other letters of Unicode's confusables.txt that look like one of ASCII
        "аеорсухіјѕһԁԛԝӏѵԍԌАВЕКМНОРСТХІЈЅҮΑΒΕΖΗΙΚΜΝΟΡΤΥΧαιουνρκօոսհɑɡɩʏıℓ‐‑‒–—−⁃․‚／：；＠",  # noqa: RUF001
        "aeopcyxijshdqwlvgGABEKMHOPCTXIJSYABEZHIKMNOPTYXaiouvpkonuhagiyil-------.,/:;@",
        strict=True,
    )
)
_MARKS = frozenset(("Mn", "Me", "Cf"))
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u034f\u17b4\u17b5\u2800")  # invisible characters that count as letters
_foreign = re.compile(r"[^\x00-\x7f]+")
_TAGS = range(0xE0020, 0xE007F)  # invisible copies of ASCII


class _Table(dict[int, str]):
    """Code points with their replacements, computed at first use. At most as large as Unicode."""

    def __missing__(self, code: int) -> str:
        if code in _TAGS:
            found = chr(code - 0xE0000)
        else:
            found = "".join(
                _LOOK_ALIKES.get(part, part)
                for part in unicodedata.normalize("NFKD", chr(code))
                if part not in _FILLERS and unicodedata.category(part) not in _MARKS
            )
        self[code] = found
        return found


_table = _Table()


def normalised(text: str) -> str:
    """`text` without disguises; the same object if it has no disguises."""
    if text.isascii():
        return text
    found = _foreign.sub(lambda match: match[0].translate(_table), text)  # ASCII is skipped for speed
    return text if found == text else found


def offsets(text: str) -> list[int]:
    """For each character of `normalised(text)` its index in `text`, and the length of `text` at the end."""
    found: list[int] = []
    last = 0
    for match in _foreign.finditer(text):
        found.extend(range(last, match.start()))
        last = match.end()
        for index in range(match.start(), last):
            found.extend((index,) * len(_table[ord(text[index])]))
    found.extend(range(last, len(text) + 1))
    return found


def reach(text: str, count: int) -> int:
    """Characters at the end of `text` that hold the last `count` characters of `normalised(text)`."""
    at = len(text)
    while count > 0 and at > 0:
        at -= 1
        count -= len(_table[ord(text[at])])
    return len(text) - at

"""Words of a client about the cache, in the header `x-ai-cache`: a comma-separated list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from extproc.words.values import seconds

_WORDS = ("off", "exact", "refresh")


@dataclass(slots=True, frozen=True)
class Wish:
    """One client's wish. `ttl` is in seconds; `misread`: the header also has a word unknown to the cache."""

    word: Literal["", "off", "exact", "refresh"] = ""
    ttl: float | None = None
    misread: bool = False


NONE = Wish()


def wish(header: str | None) -> Wish:
    """The wish in a header. An unknown word or an unreadable time changes nothing."""
    if not header:
        return NONE
    word, ttl, misread = "", None, False
    for said in header.lower().split(","):
        name, _, value = said.strip().partition("=")
        if name in _WORDS and not value:
            word = word if word == "off" else name
        elif name == "ttl" and (found := _ttl(value.strip())) is not None:
            ttl = found
        elif said.strip():
            misread = True
    return Wish(cast('Literal["", "off", "exact", "refresh"]', word), ttl, misread)


def _ttl(value: str) -> float | None:
    try:
        found = seconds(value)
    except ValueError:
        return None
    return found if found > 0 else None

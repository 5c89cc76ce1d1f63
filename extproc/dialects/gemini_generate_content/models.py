"""Differences between families of Gemini models, read from a model's name: thinking by level or by budget, and features
that some refuse.

Sources: https://ai.google.dev/gemini-api/docs/thinking (levels, budgets and their ranges),
https://ai.google.dev/gemini-api/docs/thought-signatures (models that insist on signatures),
https://ai.google.dev/gemini-api/docs/structured-output (JSON beside tools, from Gemini 3 on).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple


class Model(NamedTuple):
    """`least` and `most` are the range of its thinking budget."""

    thinking: Literal["", "budget", "level"] = ""
    known: bool = False  # True: a missing thinking level means that it cannot think, not that its abilities are unknown
    off: bool = False  # True: its thinking can be turned off, or down to the level MINIMAL
    least: int = 0
    most: int = 0
    penalties: bool = False
    signed_calls: bool = False  # a call of a tool without its thought signature is an error
    media_results: bool = False  # tools may answer with images and files
    json_beside_tools: bool = True  # the answer may have to be JSON where there are tools


_LATEST = (99, 0)  # version of an alias such as gemini-flash-latest: the newest there is


@lru_cache(maxsize=256)
def capabilities(name: str) -> Model:
    """The abilities of a model, by its name with or without a prefix such as `models/`."""
    name = name.rpartition("/")[2].lower()
    version = _version(name)
    if version is None:
        return Model()
    if version >= (3, 0):
        minimal = "flash" in name and version < (3, 7)
        return Model("level", known=True, off=minimal, signed_calls=True, media_results=True)
    if version == (2, 5):
        if "pro" in name:
            return Model("budget", known=True, least=128, most=32768, json_beside_tools=False)
        least = 512 if "lite" in name else 1
        return Model("budget", known=True, off=True, least=least, most=24576, json_beside_tools=False)
    return Model(known=True, penalties=True, json_beside_tools=False)


def _version(name: str) -> tuple[int, int] | None:
    family, _, rest = name.partition("-")
    if family != "gemini":
        return None
    major, dot, minor = rest.partition("-")[0].partition(".")
    if major.isdecimal() and (minor.isdecimal() or not dot):
        return int(major[:4]), int(minor[:4] or 0)
    return _LATEST if rest.endswith("-latest") else None

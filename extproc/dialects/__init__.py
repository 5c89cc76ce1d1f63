"""One API's JSON, a file each: what a request asks for, where its text is, what an answer reports.

A dialect is found by the paths it serves. It interprets only what the gateway needs; everything else passes through.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from extproc.words.dialect import Dialect
from extproc.words.errors import INVALID_REQUEST, Refusal

MAX_TOKENS = 1_000_000_000
"""A token count above this is not believed, from a client or from a provider."""


_name = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}").fullmatch
_MOST_NAMES = 32


def read_model(body: Mapping[str, Any]) -> str:
    """The `model` field. Raises Refusal (400)."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(INVALID_REQUEST, "Say which model: 'model' must be a string.", param="model")
    return model


def read_integer(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """An optional whole number; null counts as absent. Raises Refusal (400)."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise Refusal(INVALID_REQUEST, f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return value


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """An optional boolean; null counts as absent. Raises Refusal (400)."""
    value = body.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise Refusal(INVALID_REQUEST, f"'{name}' must be true or false.", param=name)
    return value


def safe_names(names: Iterable[str]) -> list[str]:
    """Names of fields as they may stand in a header, each once and the first few: a client chose some of them."""
    return list(dict.fromkeys(name if _name(name) else "other" for name in names))[:_MOST_NAMES]


def token_count(value: Any) -> int | None:
    """A provider's token count, or None when it cannot be believed."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def text_size(text: str | None) -> int:
    """The bytes of a text in UTF-8."""
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


@cache
def dialects() -> Mapping[str, Dialect]:
    """Every dialect in this package, by the name of its module."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}").DIALECT for name in names}


@cache
def by_path() -> Mapping[str, Dialect]:
    """The dialect that serves a path."""
    return {path: dialect for dialect in dialects().values() for path in dialect.paths}

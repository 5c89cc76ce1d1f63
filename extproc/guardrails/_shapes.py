"""Shapes of text from the data files of `_tables`, as published by vendors, authorities and registries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

_TABLES = Path(__file__).parent / "_tables"


class Shapes(msgspec.Struct):
    """Fields of every file: the day of the last comparison with its sources, and named pieces of patterns."""

    date: dt.date
    shorthands: Mapping[str, str]

    def expanded(self, pattern: str) -> str:
        """The pattern with each `<name>` replaced by its piece. A piece may use pieces below it in the file."""
        for name, piece in self.shorthands.items():
            pattern = pattern.replace(f"<{name}>", piece)
        return pattern


Table = TypeVar("Table", bound=Shapes)


def read(name: str, kind: type[Table]) -> Table:
    """The file of that name. Raises msgspec.ValidationError if the file does not fit its type."""
    return msgspec.yaml.decode((_TABLES / f"{name}.yaml").read_bytes(), type=kind)

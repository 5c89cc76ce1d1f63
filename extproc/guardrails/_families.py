"""Families of credentials, from `_tables/secrets.yaml`. To add one, write an entry there with the vendor's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from extproc.guardrails import _checks
from extproc.guardrails._shapes import Shapes, read


@dataclass(slots=True, frozen=True)
class VendorCredentials:
    """Credentials of one vendor. `check` gets the matched text; `source` is a page about the format."""

    name: str
    patterns: Sequence[str]
    source: str
    check: Callable[[str], bool]


class _Named(msgspec.Struct):
    """A value assigned to a name that contains one of the given words: `WORDS_key = "value"`."""

    near: str
    value: str


class _Family(msgspec.Struct):
    source: str
    patterns: Sequence[str | _Named]
    check: str = "varied"


class _Secrets(Shapes):
    families: Mapping[str, _Family]

    def pattern(self, written: str | _Named) -> str:
        if isinstance(written, str):
            return self.expanded(written)
        name, value = rf"(?i:(?:{written.near})[\w .-]{{0,32}})<is>", self.expanded(written.value)
        return self.expanded(rf"{name}(?P<v>{value})(?:[^A-Za-z0-9_+/=-]|$)")


def _families() -> Sequence[VendorCredentials]:
    table = read("secrets", _Secrets)
    return [
        VendorCredentials(name, tuple(map(table.pattern, one.patterns)), one.source, getattr(_checks, one.check))
        for name, one in table.families.items()
    ]


FAMILIES: Final = _families()

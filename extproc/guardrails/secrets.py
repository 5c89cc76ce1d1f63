"""Credentials in text: keys, tokens, private keys, and passwords in URLs, of the families in `_tables/secrets.yaml`. To
add one, write an entry there with the vendor's page.

Controls: OWASP LLM02:2026 (sensitive information disclosure), LLM08:2026 (hidden context exposure); MITRE ATLAS T0055
(unsecured credentials), T0056, T0057 (data leakage); FINOS AIGF ri-1, ri-29 / mi-1, mi-6, mi-23.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import msgspec
from pydantic import Field, field_validator

from extproc.guardrails import GuardrailSettings, _checks
from extproc.guardrails._shapes import Shapes, read
from extproc.guardrails._table import Allow, AllowSettings, Table, TextKind

_LONGEST = 512
_run = re.compile(r"[^\s\"'`<>]*").match
_key_marker = re.compile(r"-----[BE][A-Z0-9 ]{0,60}-{0,5}[A-Za-z0-9+/=\s\\\"]{0,80}").fullmatch


class _Named(msgspec.Struct):
    """A value assigned to a name that contains one of the given words: `WORDS_key = "value"`."""

    near: str
    value: str


class _Family(msgspec.Struct):
    """Credentials of one vendor. `check` gets the matched text; `source` is a page about the format."""

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


def _checked(check: Callable[[str], bool], before: str, found: str) -> int:  # noqa: ARG001
    return len(found) if check(found) else 0


_TABLE: Final = read("secrets", _Secrets)
FAMILIES: Final = [
    TextKind(name, tuple(map(_TABLE.pattern, one.patterns)), partial(_checked, getattr(_checks, one.check)))
    for name, one in _TABLE.families.items()
]


class SecretsSettings(GuardrailSettings):
    """A guardrail that finds credentials: keys, tokens, private keys, passwords in URLs."""

    kind: Literal["secrets"] = Field(description="Kind of the guardrail. `secrets`: credentials of known families.")
    skip: Sequence[str] = Field(
        (),
        max_length=100,
        description="Families that are not searched, such as `assignment` (random values assigned to names like "
        "`password`) or `jwt`. Default: none.",
    )

    allow: AllowSettings = Field(
        AllowSettings(), description="Credentials that are no finding, such as those of tests. Default: none."
    )

    @field_validator("skip")
    @classmethod
    def _known(cls, value: Sequence[str]) -> Sequence[str]:
        for name in value:
            if name not in _TABLE.families:
                raise ValueError(f"{name} is not a family. Families: {', '.join(sorted(_TABLE.families))}")
        return value

    def build(self) -> Secrets:
        return Secrets(self.skip, Allow(self.allow))


class Secrets(Table):
    """Finds credentials. A finding's kind is the name of its family."""

    max_match = _LONGEST

    def __init__(self, skip: Collection[str] = (), allow: Allow | None = None) -> None:
        super().__init__([family for family in FAMILIES if family.name not in skip], allow)

    def hold(self, text: str) -> int:
        """Holds the last word, and the beginning of a private key, or of its end mark."""
        tail = text[-_LONGEST:]
        held = _run(tail[::-1])
        marker = max(tail.rfind("-----B"), tail.rfind("-----E"))
        begun = len(tail) - marker if marker >= 0 and _key_marker(tail, marker) else 0
        return max(held.end() if held else 0, begun)


SETTINGS = SecretsSettings

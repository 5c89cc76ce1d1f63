"""Credentials in text: keys, tokens, private keys, and passwords in URLs, of the families in `_families.py`.

Controls: OWASP LLM02 (sensitive information disclosure), LLM07 (system prompt leakage); MITRE ATLAS T0055 (unsecured
credentials), T0057 (data leakage); FINOS AIGF ri-1, ri-29 / mi-1, mi-6, mi-23.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field, field_validator

from extproc.guardrails import Finding, GuardrailSettings
from extproc.guardrails._families import FAMILIES
from extproc.guardrails._patterns import Covered, compiled
from extproc.guardrails._unwrap import inner

_NAMES = frozenset(family.name for family in FAMILIES)
_LONGEST = 512
_run = re.compile(r"[^\s\"'`<>]*").match
_key_marker = re.compile(r"-----[BE][A-Z0-9 ]{0,60}-{0,5}[A-Za-z0-9+/=\s\\\"]{0,80}").fullmatch


class SecretsSettings(GuardrailSettings):
    """A guardrail that finds credentials: keys, tokens, private keys, passwords in URLs."""

    kind: Literal["secrets"] = Field(description="Kind of the guardrail. `secrets`: credentials of known families.")
    skip: Sequence[str] = Field(
        (),
        max_length=100,
        description="Families that are not searched, such as `assignment` (random values assigned to names like "
        "`password`) or `jwt`. Default: none.",
    )

    @field_validator("skip")
    @classmethod
    def _known(cls, value: Sequence[str]) -> Sequence[str]:
        for name in value:
            if name not in _NAMES:
                raise ValueError(f"{name} is not a family. Families: {', '.join(sorted(_NAMES))}")
        return value

    def build(self) -> Secrets:
        return Secrets(self.skip)


class Secrets:
    """Finds credentials. A finding's kind is the name of its family."""

    max_match = _LONGEST

    def __init__(self, skip: Collection[str] = ()) -> None:
        families = [family for family in FAMILIES if family.name not in skip]
        self._families = [family for family in families for _ in family.patterns]
        self._patterns = compiled(tuple([pattern for family in families for pattern in family.patterns]))

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        covered = Covered(len(text))
        found = self._search(text, covered)
        for content, span in inner(text):
            if (inside := self._search(content, Covered(len(content)))) and covered.take(*span):
                found.append(Finding(inside[0].kind, span))
        return found

    def _search(self, text: str, covered: Covered) -> list[Finding]:
        """Of findings that overlap, the one of the first family in the table stays."""
        found: list[Finding] = []
        for index, (start, end) in self._patterns.search(text):
            family = self._families[index]
            if family.check(text[start:end]) and covered.take(start, end):
                found.append(Finding(family.name, (start, end)))
        return found

    def hold(self, text: str) -> int:
        """The last word, and the beginning of a private key, or of its end."""
        tail = text[-_LONGEST:]
        held = _run(tail[::-1])
        marker = max(tail.rfind("-----B"), tail.rfind("-----E"))
        begun = len(tail) - marker if marker >= 0 and _key_marker(tail, marker) else 0
        return max(held.end() if held else 0, begun)


SETTINGS = SecretsSettings

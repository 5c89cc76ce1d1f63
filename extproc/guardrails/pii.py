"""Personal data in text: e-mail addresses, cards, IBANs, identity numbers, telephone numbers, IP addresses; and dates
of birth and postal addresses in context.

Controls: OWASP LLM02:2026 (sensitive information disclosure); MITRE ATLAS T0057 (data leakage); FINOS AIGF ri-1,
ri-29 / mi-1, mi-6, mi-23.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from extproc.guardrails import GuardrailSettings
from extproc.guardrails._personal import PASSPORTS, types
from extproc.guardrails._table import Allow, AllowSettings, Table

_LONGEST = 256
_HELD = 120  # characters in which a number, or an address that begins with a number, may still grow

_Type = Literal[
    "email",
    "iban",
    "card",
    "us_ssn",
    "passport",
    "licence",
    "national_id",
    "ip",
    "date_of_birth",
    "bank_account",
    "phone",
    "address",
]
_Region = Literal["au", "br", "ca", "cn", "eu", "in", "jp", "uk", "us"]

# Pattern for a reversed text, whose matches begin at the text's end. A forward search takes a hundred times as long.
_number = re.compile(r"[^\n!?;]*\d\S*(?:\s[\w'.-]*[^\W\d_]){0,4}").match  # a number with words before it
_words = re.compile(r"\S*(?:\s,?[\w'.-]*[^\W\d_]){0,5}").match
_bracket = re.compile(r"[\[({<]").search
_at = re.compile(r"\S+\s?[\[({<]\s?(?:a(?:t.*)?)?\Z").search


class PiiSettings(GuardrailSettings):
    """A guardrail that finds personal data."""

    kind: Literal["pii"] = Field(description="Kind of the guardrail. `pii`: personal data.")
    types: Sequence[_Type] = Field(
        (),
        description="Types of personal data to find. Default: all. With fewer types there are fewer false findings.",
    )
    regions: Sequence[_Region] = Field(
        (),
        description="Regions of passports and driving licences, which differ between countries. Default: all.",
    )

    allow: AllowSettings = Field(AllowSettings(), description="Personal data that is no finding. Default: none.")

    def build(self) -> Pii:
        return Pii(self.types, self.regions, Allow(self.allow))


class Pii(Table):
    """Finds personal data. A finding's kind is its type."""

    max_match = _LONGEST

    def __init__(self, names: Sequence[str] = (), regions: Sequence[str] = (), allow: Allow | None = None) -> None:
        super().__init__(
            [one for one in types(tuple(regions) or tuple(PASSPORTS)) if not names or one.name in names], allow
        )

    def hold(self, text: str) -> int:
        """Holds the last word, and words and numbers that may still become one finding."""
        tail = text[-_HELD:]
        turned = tail[::-1]
        held = max(match.end() if (match := growing(turned)) else 0 for growing in (_number, _words))
        if _bracket(tail) and (match := _at(tail)):
            held = max(held, len(match[0]))
        return held


SETTINGS = PiiSettings

"""Patterns of the user's own, in RE2: for any pattern, time grows in proportion to the text.

Controls: OWASP LLM02:2026 (sensitive information disclosure), FINOS AIGF ri-1 / mi-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field, field_validator

from extproc.guardrails import Detector, Finding, GuardrailSettings
from extproc.guardrails._patterns import compiled, readable


class RegexSettings(GuardrailSettings):
    """A guardrail that looks for patterns in the text of requests."""

    kind: Literal["regex"] = Field(description="Kind of the guardrail. `regex`: RE2 patterns.")
    patterns: Mapping[str, str] = Field(
        min_length=1,
        max_length=256,
        description="RE2 patterns to find, by a name of your choice. At most 256 patterns of 4096 characters.",
    )
    longest: int = Field(
        256,
        ge=1,
        le=16384,
        description="Length in characters of the longest match of any pattern, 1 to 16384. A streamed answer is held "
        "back this far from its end, so a smaller number makes it smoother. Of a longer match the beginning may leave.",
    )

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, pattern in value.items():
            readable(name, pattern)
        return value

    def build(self) -> Regex:
        return Regex(self.patterns, self.longest)


class Regex(Detector):
    """Finds every match of every pattern."""

    cost = 0.2

    def __init__(self, patterns: Mapping[str, str], longest: int = 256) -> None:
        self.max_match = longest
        self._names = [*patterns]
        self.patterns = tuple(patterns.values())
        self._patterns = compiled(self.patterns, group="")

    def find(self, text: str, role: str, where: str) -> Iterator[Finding]:  # noqa: ARG002
        return (Finding(self._names[index], span) for index, span in self._patterns.search(text))


SETTINGS = RegexSettings

"""Microsoft Presidio: personal data, found by its analyzer, and replaced by its anonymizer or by the gateway.

https://microsoft.github.io/presidio/api-docs/api-docs.html: POST /analyze gives entities with their places in code
points; POST /anonymize gives the text with the entities replaced.

Controls: OWASP LLM02:2026; MITRE ATLAS T0057; FINOS AIGF ri-1, ri-29 / mi-1, mi-6, mi-23.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, StringConstraints, model_validator

from extproc.guardrails import Finding
from extproc.guardrails._base import Ruling
from extproc.guardrails._remote import (
    Around,
    Context,
    Found,
    MaskingSettings,
    Passage,
    PassagePart,
    changes,
    gathered,
    kind_name,
    parts,
)
from extproc.wire.outbound.service import Failure, Service, Url, bearer
from extproc.words.values import SecretRef

_PIECE = 20_000  # characters that are analysed together
_Entity = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class PresidioSettings(MaskingSettings):
    """A guardrail that asks a Presidio analyzer for personal data."""

    kind: Literal["presidio"] = Field(
        description="Kind of the guardrail. `presidio`: personal data, found by a Presidio analyzer."
    )
    url: Url = Field(description="Address of the Presidio analyzer. The gateway posts to `/analyze` there.")
    anonymizer_url: Url | None = Field(
        None,
        description="Address of a Presidio anonymizer, whose replacements are used in the place of `style`. The "
        "gateway posts to `/anonymize` there, where `action` is `mask`. Default: the gateway replaces the findings.",
    )
    anonymizers: Annotated[Mapping[str, Mapping[str, Any]], Field(max_length=64)] = Field(
        default_factory=dict,
        description="Operators for the anonymizer, by entity or `DEFAULT`: `{DEFAULT: {type: replace, new_value: X}}`.",
    )
    key: SecretRef | None = Field(
        None, description="Key that both services get as `authorization: Bearer …`, as `env:NAME` or `file:/path`."
    )
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")] = Field(
        "en", description="Language of the text, for the analyzer."
    )
    entities: Annotated[Sequence[_Entity], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Entities to find, for example `[PERSON, EMAIL_ADDRESS]`. Default: all of the analyzer."
    )
    score: float = Field(0.5, ge=0, le=1, description="Lowest score of a finding that counts, 0 to 1.")

    @model_validator(mode="after")
    def _one_mask(self) -> PresidioSettings:
        if self.anonymizer_url is not None and self.style != "label":
            raise ValueError("give anonymizer_url or style: both say what takes the place of a finding")
        if self.anonymizers and self.anonymizer_url is None:
            raise ValueError("anonymizers: only with anonymizer_url")
        return self

    def asks(self, around: Around) -> str:  # noqa: ARG002
        return " and ".join(filter(None, (self.url, self.anonymizer_url)))

    def connect(self, around: Around) -> Presidio:  # noqa: ARG002
        return Presidio(self)


class _Entry(msgspec.Struct):
    entity_type: str
    start: int
    end: int
    score: float


class _Anonymized(msgspec.Struct):
    text: str


class Presidio:
    """Finds entities."""

    def __init__(self, settings: PresidioSettings) -> None:
        self._settings = settings
        self._analyzer = Service(settings.url, settings)
        url = settings.anonymizer_url if settings.action == "mask" else None
        self._anonymizer = None if url is None else Service(url, settings)
        self.services = (self._analyzer,) if self._anonymizer is None else (self._analyzer, self._anonymizer)

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:  # noqa: ARG002
        headers = bearer(self._settings.key)
        return await gathered(
            passages, [partial(self._find, part, headers, deadline) for part in parts(passages, _PIECE)]
        )

    async def _find(self, part: PassagePart, headers: Mapping[str, str], deadline: float) -> Sequence[Found]:
        settings = self._settings
        body: dict[str, Any] = {"text": part.text, "language": settings.language, "score_threshold": settings.score}
        if settings.entities is not None:
            body["entities"] = settings.entities
        entries = await self._analyzer.json("/analyze", body, list[_Entry], deadline, headers)
        entries = [entry for entry in entries if entry.score >= settings.score]
        if any(not 0 <= entry.start <= entry.end <= len(part.text) for entry in entries):
            raise Failure("bad_answer")
        if self._anonymizer is None or not entries:
            return [
                (part.number, Finding(kind_name(one.entity_type), part.span(one.start, one.end), one.score))
                for one in entries
            ]
        body = {"text": part.text, "analyzer_results": entries}
        if settings.anonymizers:
            body["anonymizers"] = settings.anonymizers
        said = await self._anonymizer.json("/anonymize", body, _Anonymized, deadline, headers)
        rulings = changes(part.text, said.text, "anonymized")
        return [(part.number, replace(one, kind=_kind(one, entries), span=part.span(*one.span))) for one in rulings]


def _kind(ruling: Ruling, entries: Sequence[_Entry]) -> str:
    """The kind of the entity that a replacement replaced."""
    start, end = ruling.span
    return kind_name(next((one.entity_type for one in entries if one.start < end and start < one.end), ruling.kind))


SETTINGS = PresidioSettings

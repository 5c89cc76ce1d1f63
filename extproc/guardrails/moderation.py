"""OpenAI's moderation API, at any provider of the settings that serves it.

https://platform.openai.com/docs/api-reference/moderations: POST /v1/moderations with a list of texts; a result for
each, with a flag and a score for each category.

Controls: OWASP LLM02:2026; FINOS AIGF mi-3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from pydantic import Field

from extproc.guardrails import Finding
from extproc.guardrails._remote import Around, Context, Found, JudgingSettings, Passage, PassagePart, batches, gathered
from extproc.upstream.providers import ProviderSettings
from extproc.wire.outbound.service import Failure, Service, key_of
from extproc.words.values import ModelName, Name

_PIECE = 20_000  # characters that are judged together
_MOST = 32  # texts in one call

_Category = Annotated[str, Field(min_length=1, max_length=64)]


class ModerationSettings(JudgingSettings):
    """A guardrail that asks OpenAI's moderation API."""

    kind: Literal["moderation"] = Field(description="Kind of the guardrail. `moderation`: OpenAI's moderation API.")
    provider: Name = Field(
        description="Provider, a key of `providers`, whose moderation API is asked. Its address and `api_key` are used."
    )
    model: ModelName = Field("omni-moderation-latest", description="Name of the moderation model at the provider.")
    categories: Annotated[Sequence[_Category], Field(min_length=1, max_length=64)] | None = Field(
        None, description="Categories that count, for example `[hate, self-harm/intent]`. Default: all."
    )
    thresholds: Annotated[Mapping[_Category, Annotated[float, Field(gt=0, le=1)]], Field(max_length=64)] = Field(
        default_factory=dict,
        description="Lowest score that counts, by category, above 0 to 1. A category that is not named here counts "
        "where the provider flags it.",
    )

    def asks(self, around: Around) -> str:
        provider = around.providers.get(self.provider)
        return "" if provider is None else provider.url.geturl()

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:
        provider = around.providers.get(self.provider)
        if provider is None:
            yield "provider", f"there is no provider {self.provider!r}"
        elif "openai_chat" not in provider.provider.dialects:
            yield "provider", f"{self.provider!r} does not speak OpenAI's API"
        elif provider.credentials is not None:
            yield "provider", f"{self.provider!r} has no api_key: tokens of a cloud are known to Envoy alone"

    def connect(self, around: Around) -> Moderation:
        return Moderation(self, around.providers[self.provider])


class _Result(msgspec.Struct):
    categories: dict[str, bool | None]
    category_scores: dict[str, float | None]
    flagged: bool


class _Answer(msgspec.Struct):
    results: list[_Result]


class Moderation:
    """Finds whole texts, by category."""

    def __init__(self, settings: ModerationSettings, provider: ProviderSettings) -> None:
        self._settings = settings
        self._provider = provider
        self._service = Service(provider.url.geturl(), settings, ca=provider.tls_ca)
        self._query = f"?{urlencode(provider.query)}" if provider.query else ""
        self.services = (self._service,)

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:  # noqa: ARG002
        headers = dict(self._provider.headers)
        if (credential := self._provider.credential) is not None:
            headers[credential.header] = credential.prefix + key_of(self._provider.api_key)
        calls = [partial(self._judge, batch, headers, deadline) for batch in batches(passages, _PIECE, _MOST)]
        return await gathered(passages, calls)

    async def _judge(
        self, batch: Sequence[PassagePart], headers: Mapping[str, str], deadline: float
    ) -> Sequence[Found]:
        body = {"model": self._settings.model, "input": [part.text for part in batch]}
        said = await self._service.json("/moderations" + self._query, body, _Answer, deadline, headers)
        if len(said.results) != len(batch):
            raise Failure("bad_answer")
        return [(part.number, name) for part, one in zip(batch, said.results, strict=True) for name in self._bad(one)]

    def _bad(self, result: _Result) -> Sequence[str]:
        wanted, limits = self._settings.categories, self._settings.thresholds
        bad = []
        for category in {*result.categories, *result.category_scores, *limits}:
            if wanted is not None and category not in wanted:
                continue
            if (limit := limits.get(category)) is None:
                counts = bool(result.categories.get(category))
            elif (score := result.category_scores.get(category)) is None:
                raise Failure("bad_answer")  # a setting limits a score that the model does not give
            else:
                counts = score >= limit
            if counts:
                bad.append(category)
        if not bad and result.flagged and not result.categories:
            bad.append("flagged")
        return sorted(bad)


SETTINGS = ModerationSettings

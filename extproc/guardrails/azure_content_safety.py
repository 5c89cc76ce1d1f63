"""Azure AI Content Safety: harm by category and severity, blocklists, and Prompt Shields.

https://learn.microsoft.com/en-us/rest/api/contentsafety/text-operations: POST text:analyze and text:shieldPrompt. Both
take 10,000 characters.

Controls: OWASP LLM01:2026; FINOS AIGF mi-3, mi-17; MITRE ATLAS T0051, T0054.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, StringConstraints, model_validator

from extproc.guardrails import Finding
from extproc.guardrails._remote import (
    Around,
    Context,
    Found,
    JudgingSettings,
    Passage,
    PassagePart,
    batches,
    gathered,
    most_text,
)
from extproc.upstream.credentials.oauth import TokenError
from extproc.upstream.credentials.tokens import CloudToken
from extproc.upstream.providers import Credentials
from extproc.wire.outbound.service import Failure, Service, Url, key_of
from extproc.words.values import SecretRef

_PIECE = 10_000  # characters
_VERSION = "2024-09-01"
_TOOLS = ("tool", "function")

_Category = Literal["hate", "self_harm", "sexual", "violence"]
_NAMES = {"hate": "Hate", "self_harm": "SelfHarm", "sexual": "Sexual", "violence": "Violence"}
_Severity = Annotated[int, Field(ge=1, le=7)]
_Blocklist = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._~-]{1,64}$")]


class AzureContentSafetySettings(JudgingSettings):
    """A guardrail that asks Azure AI Content Safety."""

    kind: Literal["azure_content_safety"] = Field(
        description="Kind of the guardrail. `azure_content_safety`: Azure AI Content Safety."
    )
    url: Url = Field(description="Address of the resource, `https://NAME.cognitiveservices.azure.com`.")
    key: SecretRef | None = Field(
        None, description="Key of the resource, as `env:NAME` or `file:/path`. Give this or `credentials`."
    )
    credentials: Credentials | None = Field(
        None, description="Entra application that requests tokens, under `azure`, as providers have it."
    )
    severity: Annotated[Mapping[_Category, _Severity], Field(max_length=4)] = Field(
        {"hate": 4, "self_harm": 4, "sexual": 4, "violence": 4},
        description="Lowest severity that counts, 1 to 7, by category: `hate`, `self_harm`, `sexual`, `violence`. A "
        "category that is not named does not count. `{}` asks for no category.",
    )
    blocklists: Annotated[Sequence[_Blocklist], Field(max_length=10)] = Field(
        (), description="Names of blocklists of the resource. Each match counts."
    )
    shield_prompt: bool = Field(
        False,
        description="Ask Prompt Shields too, about requests: attacks by the user, and attacks in results of tools.",
    )
    max_text: int = most_text(100_000)

    @model_validator(mode="after")
    def _one_credential(self) -> AzureContentSafetySettings:
        if (self.key is None) == (self.credentials is None):
            raise ValueError("give key or credentials, one of them")
        if self.credentials is not None and self.credentials.azure is None:
            raise ValueError("credentials: give azure")
        return self

    @model_validator(mode="after")
    def _asks_something(self) -> AzureContentSafetySettings:
        if not self.severity and not self.blocklists and not self.shield_prompt:
            raise ValueError("give severity, blocklists or shield_prompt")
        return self

    def asks(self, around: Around) -> str:  # noqa: ARG002
        return self.url

    def connect(self, around: Around) -> AzureContentSafety:  # noqa: ARG002
        return AzureContentSafety(self)


class _Analysis(msgspec.Struct):
    category: str
    severity: int


class _Match(msgspec.Struct):
    blocklistName: str  # noqa: N815 - Azure's name


class _Analyzed(msgspec.Struct):
    categoriesAnalysis: list[_Analysis]  # noqa: N815
    blocklistsMatch: list[_Match] = []  # noqa: N815


class _Attack(msgspec.Struct):
    attackDetected: bool  # noqa: N815


class _Shielded(msgspec.Struct):
    userPromptAnalysis: _Attack | None = None  # noqa: N815
    documentsAnalysis: list[_Attack] | None = None  # noqa: N815


class AzureContentSafety:
    """Finds whole texts, by category."""

    def __init__(self, settings: AzureContentSafetySettings) -> None:
        self._settings = settings
        self._service = Service(settings.url, settings)
        self._tokens: CloudToken | None = None
        if settings.credentials is not None:
            self._tokens = CloudToken(f"guardrail {settings.name}", settings.credentials)
        self.services = (self._service,)
        self._analyzes = bool(settings.severity or settings.blocklists)

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:
        headers = await self._headers(deadline)
        work = []
        if self._analyzes:
            work += [partial(self._analyze, batch, headers, deadline) for batch in batches(passages, _PIECE)]
        if self._settings.shield_prompt and context.on == "input":
            for tools in (False, True):
                wanted = [one if (one.role in _TOOLS) is tools else one._replace(text="") for one in passages]
                for batch in batches(wanted, _PIECE):
                    if any(part.text for part in batch):
                        work.append(partial(self._shield, batch, tools, headers, deadline))
        return await gathered(passages, work)

    async def _headers(self, deadline: float) -> Mapping[str, str]:
        if self._tokens is None:
            return {"ocp-apim-subscription-key": key_of(self._settings.key)}
        try:
            return {"authorization": f"Bearer {await self._tokens.get(deadline)}"}
        except TokenError:
            raise Failure("no_key") from None

    async def _analyze(
        self, batch: Sequence[PassagePart], headers: Mapping[str, str], deadline: float
    ) -> Sequence[Found]:
        limits = {_NAMES[category]: limit for category, limit in self._settings.severity.items()}
        body: dict[str, Any] = {"text": _joined(batch), "outputType": "EightSeverityLevels"}
        body["categories"] = [*limits] or [*_NAMES.values()]
        if self._settings.blocklists:
            body |= {"blocklistNames": self._settings.blocklists, "haltOnBlocklistHit": False}
        said = await self._service.json(_path("analyze"), body, _Analyzed, deadline, headers)
        scores = {one.category: one.severity for one in said.categoriesAnalysis}
        if not {*limits} <= {*scores}:
            raise Failure("bad_answer")
        kinds = [name for name, limit in limits.items() if scores[name] >= limit]
        kinds += sorted({f"blocklist:{one.blocklistName}" for one in said.blocklistsMatch})
        return [(batch[0].number, kind) for kind in kinds]

    async def _shield(
        self, batch: Sequence[PassagePart], tools: bool, headers: Mapping[str, str], deadline: float
    ) -> Sequence[Found]:
        first = next(part.number for part in batch if part.text)
        text = _joined(batch)
        body = {"userPrompt": "", "documents": [text]} if tools else {"userPrompt": text, "documents": []}
        said = await self._service.json(_path("shieldPrompt"), body, _Shielded, deadline, headers)
        if tools:
            if said.documentsAnalysis is None or len(said.documentsAnalysis) != 1:
                raise Failure("bad_answer")
            return [(first, "document_attack")] if said.documentsAnalysis[0].attackDetected else []
        if said.userPromptAnalysis is None:
            raise Failure("bad_answer")
        return [(first, "prompt_attack")] if said.userPromptAnalysis.attackDetected else []


def _joined(batch: Sequence[PassagePart]) -> str:
    return "\n".join(part.text for part in batch if part.text)


def _path(operation: str) -> str:
    return f"/contentsafety/text:{operation}?api-version={_VERSION}"


SETTINGS = AzureContentSafetySettings

"""A guardrail of Amazon Bedrock, asked with ApplyGuardrail; no model of Bedrock is needed.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ApplyGuardrail.html

Controls: OWASP LLM01:2026, LLM02:2026; FINOS AIGF mi-3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

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
    all_of,
    batches,
    changes,
    gathered,
    kind_name,
    message,
)
from extproc.upstream.providers import ProviderSettings
from extproc.wire.outbound.service import Failure, Service, decoded, key_of, together
from extproc.wire.outbound.sigv4 import AwsKey, signed
from extproc.wire.transport.workers import SIGNED
from extproc.words.values import Name, SecretRef

_PIECE = 20_000  # characters of one call: the service takes 25 units of 1,000 characters a second
_placeholder = re.compile(r"\{([A-Za-z0-9 _-]{1,60})\}").search
_encode = msgspec.json.Encoder().encode


class BedrockSettings(MaskingSettings):
    """A guardrail that asks a guardrail of Amazon Bedrock."""

    kind: Literal["bedrock"] = Field(description="Kind of the guardrail. `bedrock`: a guardrail of Amazon Bedrock.")
    provider: Name = Field(
        description="Provider of the kind `aws_bedrock`, a key of `providers`: its `region`, `base_url` and `api_key` "
        "are used. Without `api_key`, Envoy signs the questions as those to the provider."
    )
    guardrail: Annotated[
        str,
        StringConstraints(
            pattern=r"^([a-z0-9]+|arn:aws[a-z-]*:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:guardrail/[a-z0-9]+)$"
        ),
    ] = Field(description="Id or ARN of the guardrail at Amazon.")
    version: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")] = Field(
        "DRAFT", description="Version of the guardrail: a number, or `DRAFT`."
    )
    access_key_id: SecretRef | None = Field(
        None,
        description="Access key id that signs the questions in this process. Read for each call. "
        "Default: as the provider.",
    )
    secret_access_key: SecretRef | None = Field(None, description="Secret access key of `access_key_id`.")
    session_token: SecretRef | None = Field(None, description="Session token of temporary keys.")

    @model_validator(mode="after")
    def _both(self) -> BedrockSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give access_key_id and secret_access_key, or neither of them")
        return self

    def through_envoy(self, providers: Mapping[str, ProviderSettings]) -> str:
        provider = providers.get(self.provider)
        return self.provider if self.access_key_id is None and provider is not None and provider.api_key is None else ""

    def asks(self, around: Around) -> str:
        provider = around.providers.get(self.provider)
        return "" if provider is None else f"{provider.url.geturl()}, guardrail {self.guardrail}"

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:
        provider = around.providers.get(self.provider)
        if provider is None:
            yield "provider", f"there is no provider {self.provider!r}"
        elif provider.provider.signed_for != "bedrock":
            yield "provider", f"{self.provider!r} is not of the kind aws_bedrock"

    def connect(self, around: Around) -> Bedrock:
        private = around.private if self.through_envoy(around.providers) else ""
        return Bedrock(self, around.providers[self.provider], private)


class _Output(msgspec.Struct):
    text: str


class _Answer(msgspec.Struct):
    action: Literal["NONE", "GUARDRAIL_INTERVENED"]
    outputs: list[_Output]
    assessments: list[dict[str, Any]]


class Bedrock:
    """Asks ApplyGuardrail, with the key of the settings or of the provider, or through Envoy, which signs with its
    credentials.
    """

    def __init__(self, settings: BedrockSettings, provider: ProviderSettings, private: str) -> None:
        self._settings = settings
        self._provider = provider
        self._private = private  # Envoy's socket, if Envoy signs
        if private:
            self._service = Service(f"http://envoy{SIGNED}{settings.provider}", settings, socket=private)
        else:
            self._service = Service(provider.url.geturl(), settings, ca=provider.tls_ca)
        self.services = (self._service,)
        self._path = f"/guardrail/{quote(settings.guardrail, safe='')}/version/{settings.version}/apply"

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:
        source = "INPUT" if context.on == "input" else "OUTPUT"
        calls = [partial(self._judge, batch, source, deadline) for batch in batches(passages, _PIECE)]
        return await gathered(passages, calls)

    async def _judge(self, batch: Sequence[PassagePart], source: str, deadline: float) -> Sequence[Found]:
        body = _encode({"source": source, "content": [{"text": {"text": part.text}} for part in batch]})
        said = decoded(await self._service.post(self._path, body, self._headers(body), deadline), _Answer)
        if said.action == "NONE":
            return ()
        kinds = dict(_interventions(said.assessments))
        blocked = [kind for kind, action in kinds.items() if action != "ANONYMIZED"]
        if blocked or not kinds:
            told = message(said.outputs[0].text if said.outputs else "")
            at = batch[0]
            return [
                (at.number, all_of(Passage(at.text, "", ""), kind, blocks=True, message=told))
                for kind in blocked or ["intervened"]
            ]
        if len(said.outputs) == len(batch):
            return [
                (part.number, one)
                for part, output in zip(batch, said.outputs, strict=True)
                for one in _replaced(part, output.text)
            ]
        if len(batch) == 1:
            raise Failure("bad_answer")
        alone = await together([partial(self._judge, [part], source, deadline) for part in batch])
        return [one for each in alone for one in each]

    def _headers(self, body: bytes) -> Mapping[str, str]:
        settings, provider = self._settings, self._provider
        if self._private:
            return {}
        if settings.access_key_id is None or settings.secret_access_key is None:
            return {"authorization": f"Bearer {key_of(provider.api_key)}"}
        session = "" if settings.session_token is None else key_of(settings.session_token)
        key = AwsKey(key_of(settings.access_key_id), key_of(settings.secret_access_key), session)
        path, region = provider.url.path.rstrip("/") + self._path, provider.region or "us-east-1"
        return signed(key, provider.url.netloc, path, body, region=region, service="bedrock", now=datetime.now(UTC))


def _replaced(part: PassagePart, text: str) -> Iterator[Ruling]:
    for one in changes(part.text, text, "sensitive"):
        named = _placeholder(one.replacement or "")
        yield Ruling(kind_name(named[1] if named else one.kind), part.span(*one.span), replacement=one.replacement)


def _interventions(assessments: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The name and the action of every intervention, in known and in future policies."""
    waiting: list[Any] = [*assessments]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            action = node.get("action")
            if isinstance(action, str) and action != "NONE":
                name = next((node[key] for key in ("name", "type") if isinstance(node.get(key), str)), "word")
                yield kind_name(name), action
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


SETTINGS = BedrockSettings

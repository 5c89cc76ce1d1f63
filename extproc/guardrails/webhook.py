"""A service of the operator's own that judges text.

Two APIs. `native` is this gateway's, described in docs/guardrails/webhook.md. `kgateway` is the Guardrail Webhook API
0.1.0 of kgateway, agentgateway and Gloo: POST /request and /response, with PassAction, MaskAction and RejectAction told
apart by their fields.
https://github.com/solo-io/gloo-gateway-use-cases/blob/main/ai-guardrail-webhook-server/docs/gloo-ai-gateway-guardrail-webhook-openapi.yaml

Controls: FINOS AIGF mi-3 (filtering of what goes into and out of a model).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, StringConstraints, field_validator

from extproc.guardrails import TOOL_CALL, TOOL_NAME, Finding
from extproc.guardrails._base import DEFINITION
from extproc.guardrails._remote import (
    Around,
    Context,
    MaskingSettings,
    Passage,
    all_of,
    changes,
    kind_name,
    message,
    most_text,
)
from extproc.wire.framing import shapes
from extproc.wire.outbound.service import Failure, Service, Url, bearer
from extproc.words.values import SecretRef

_HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
_HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,1024}$")]
_ROLES = {"request": "system", DEFINITION: "system", TOOL_NAME: "assistant", TOOL_CALL: "assistant", "": "user"}
_OURS = ("authorization", "host", "content-length", "content-type", "transfer-encoding", "connection")


class WebhookSettings(MaskingSettings):
    """A guardrail that asks a service of your own."""

    kind: Literal["webhook"] = Field(description="Kind of the guardrail. `webhook`: a service of your own.")
    url: Url = Field(description="Address of the service, `http(s)://host[:port][/path]`. The gateway posts to it.")
    api: Literal["native", "kgateway"] = Field(
        "native",
        description="API of the service. `native`: one POST to `url`, see docs/guardrails/webhook.md. `kgateway`: the "
        "Guardrail Webhook API of kgateway and agentgateway, with `/request` and `/response` behind `url`.",
    )
    key: SecretRef | None = Field(
        None, description="Key that the service gets as `authorization: Bearer …`, as `env:NAME` or `file:/path`."
    )
    headers: Annotated[Mapping[_HeaderName, _HeaderValue], Field(max_length=32)] = Field(
        default_factory=dict, description="Further headers for the service. None of them may be a secret."
    )
    max_text: int = most_text(1_000_000)

    @field_validator("headers")
    @classmethod
    def _free(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if name in _OURS:
                raise ValueError(f"the gateway sets the header {name!r}; a key belongs into `key`")
        return value

    def asks(self, around: Around) -> str:  # noqa: ARG002
        return self.url

    def connect(self, around: Around) -> Webhook:  # noqa: ARG002
        return Webhook(self)


class _Answer(msgspec.Struct):
    """The answer of `native`."""

    verdict: Literal["allow", "block", "mask"]
    message: str = ""
    kind: str = ""
    transformed: list[str] | None = None
    text: int | None = None
    result: Any = None


class _Message(msgspec.Struct):
    content: str
    role: str = ""


class _Choice(msgspec.Struct):
    message: _Message


class _Action(msgspec.Struct, forbid_unknown_fields=True):
    body: Any = None
    status_code: int | None = None
    reason: str | None = None


class _Acted(msgspec.Struct):
    action: _Action


class _Said(msgspec.Struct):
    """The texts in a MaskAction."""

    messages: list[_Message] | None = None
    choices: list[_Choice] | None = None


class Webhook:
    """Asks the service once for each request, and for each piece of an answer."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._service = Service(settings.url, settings)
        self.services = (self._service,)

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:
        headers = {**self._settings.headers, **bearer(self._settings.key)}
        if self._settings.api == "native":
            return await self._ask_native(passages, context, deadline, headers)
        return await self._ask_kgateway(passages, context, deadline, headers)

    async def _ask_native(
        self, passages: Sequence[Passage], context: Context, deadline: float, headers: Mapping[str, str]
    ) -> Sequence[Sequence[Finding]]:
        body = {
            "guardrail": self._settings.name,
            "on": context.on,
            "exchange": context.exchange,
            "consumer": context.consumer,
            "model": context.model,
            "texts": [{"role": each.role, "where": each.where, "text": each.text} for each in passages],
        }
        said = await self._service.json("", body, _Answer, deadline, headers)
        if said.verdict == "allow":
            return [()] * len(passages)
        if said.verdict == "mask":
            return _masked(passages, said.transformed, said.kind)
        return _refused(passages, said.text, said.kind, said.message)

    async def _ask_kgateway(
        self, passages: Sequence[Passage], context: Context, deadline: float, headers: Mapping[str, str]
    ) -> Sequence[Sequence[Finding]]:
        # Text outside messages, such as a system prompt, comes first, so that the last message is the user's.
        order = sorted(range(len(passages)), key=lambda index: passages[index].role not in ("request", DEFINITION))
        asked = [passages[index] for index in order]
        said = [{"role": _ROLES.get(each.role, each.role), "content": each.text} for each in asked]
        asks: Mapping[str, Any]
        if context.on == "input":
            path, asks = "/request", {"messages": said}
        else:
            path, asks = "/response", {"choices": [{"message": each} for each in said]}
        action = (await self._service.json(path, {"body": asks}, _Acted, deadline, headers)).action
        if action.body is None and action.status_code is None:
            return [()] * len(passages)
        if isinstance(action.body, str) and action.status_code is not None:
            return _refused(passages, None, "", action.body)
        if action.status_code is not None:
            raise Failure("bad_answer")
        found = _masked(asked, _texts(action.body, path), "")
        return [found[order.index(index)] for index in range(len(passages))]


def _texts(body: Any, path: str) -> Sequence[str] | None:
    try:
        said = shapes.convert(body, _Said)
    except msgspec.ValidationError:
        raise Failure("bad_answer") from None
    if path == "/request":
        return None if said.messages is None else [each.content for each in said.messages]
    return None if said.choices is None else [each.message.content for each in said.choices]


def _masked(passages: Sequence[Passage], texts: Sequence[str] | None, kind: str) -> Sequence[Sequence[Finding]]:
    if texts is None or len(texts) != len(passages):
        raise Failure("bad_answer")
    name = kind_name(kind or "masked")
    return [changes(passage.text, text, name) for passage, text in zip(passages, texts, strict=True)]


def _refused(passages: Sequence[Passage], index: int | None, kind: str, said: str) -> Sequence[Sequence[Finding]]:
    at = index if index is not None and 0 <= index < len(passages) else 0
    ruling = all_of(passages[at], kind or "refused", blocks=True, message=message(said))
    return [(ruling,) if number == at else () for number in range(len(passages))]


SETTINGS = WebhookSettings

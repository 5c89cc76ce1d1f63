"""Guardrails that ask a model of the gateway, through the gateway's own listener, as a separate consumer.

So each question is an exchange, with a row in the ledger, a cost, that consumer's budgets, and the model's fallbacks
and translation. Only guardrails that mask apply to that consumer's requests, so a model never judges itself.

The text is data: it is sent as JSON between two marks that nobody can guess.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from pydantic import Field

from extproc.dialects import openai_chat
from extproc.guardrails._remote import Around, RemoteSettings
from extproc.wire.outbound.service import Failure, Limits, Service, Url, key_of
from extproc.words.dialect import Destination
from extproc.words.messages import Message, OutputFormat, Prompt, TextPart
from extproc.words.values import ModelName, Name, Pattern, PositiveDuration, Section

LABEL = "x-ai-guardrail"
"""Header of a guardrail's calls with the guardrail's name, a label in the ledger."""
_PATH = next(iter(openai_chat.endpoints.paths))
_encode = msgspec.json.Encoder().encode


class SelfAskingSettings(Section):
    """A model of the gateway that the gateway asks in the name of a consumer."""

    model: ModelName = Field(description="Model of the gateway that is asked: a key of `models` or `virtual_models`.")
    consumer: Name = Field(
        description="Consumer as which the gateway asks itself, a key of `consumers` with a key in `env` or `file`. "
        "Its rows in the ledger are the cost of asking, and its budgets limit it. Keep its key to the gateway."
    )
    url: Url | None = Field(
        None,
        description="Address of the gateway as this process reaches it. Default: its listener on this machine. Give it "
        "where the listener has TLS, and in attach mode.",
    )

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:
        """Contradictions with other settings: (key, message)."""
        if self.consumer not in around.keys:
            yield "consumer", f"there is no consumer {self.consumer!r} with a key in env or file"
        if not any(Pattern(name)(self.model) for name in around.models):
            yield "model", f"there is no model {self.model!r}"
        if self.url is None and around.door.startswith("https:"):
            yield "url", "the listener has TLS: give the address with the name of its certificate"


class AskedModelSettings(SelfAskingSettings):
    """A model of the gateway that answers questions."""

    max_output_tokens: int = Field(
        1000,
        ge=16,
        le=100_000,
        description="Most tokens that the model may write for an answer, its reasoning included, 16 to 100000.",
    )
    json_schema: bool = Field(
        True,
        description="Ask for the answer with a JSON schema. Turn it off for a model that takes none; the answer is "
        "checked in any case.",
    )


class AskingSettings(AskedModelSettings, RemoteSettings):
    """A guardrail that asks a model of the gateway."""

    timeout: PositiveDuration = Field(
        8.0, le=9, description="Time limit for one request, or one piece of an answer. At most 9s."
    )

    @property
    def asks_as(self) -> str:
        return self.consumer

    def asks(self, around: Around) -> str:
        return f"the model {self.model} through {self.url or around.door}"


class AskedModel:
    """A model of the gateway. `schema` is the JSON Schema of its answers."""

    def __init__(
        self, settings: AskedModelSettings, limits: Limits, around: Around, schema: Mapping[str, Any], name: str
    ) -> None:
        self._settings = settings
        self._key = around.keys.get(settings.consumer)
        self._format = OutputFormat(schema, name, strict=True) if settings.json_schema else None
        self.service = Service(settings.url or around.door, limits)

    def headers(self, name: str, value: str) -> Mapping[str, str]:
        """The headers of a call, including one of the caller's. Raises Failure if the key cannot be read."""
        return {"authorization": f"Bearer {key_of(self._key)}", name: value}

    async def __call__(self, rules: str, data: Any, headers: Mapping[str, str], deadline: float) -> bytes:
        """The model's answer about `data`. `rules` is the system prompt, in which `{mark}` stands for the line around
        the data. Raises Failure.
        """
        settings, mark = self._settings, f"data-{secrets.token_hex(8)}"
        prompt = Prompt(
            settings.model,
            [Message("user", [TextPart(f"{mark}\n{_encode(data).decode()}\n{mark}")])],
            [TextPart(rules.replace("{mark}", mark))],
            format=self._format,
            max_tokens=settings.max_output_tokens,
        )
        body = _encode(openai_chat.encode_request(prompt, Destination(settings.model))[0])
        return _words(await self.service.post(_PATH, body, headers, deadline)).encode(errors="replace")


def _words(answer: bytes) -> str:
    """The text of an answer that contains only text. Raises Failure."""
    try:
        choices = openai_chat.decode_answer(answer).choices
    except ValueError:
        raise Failure("bad_answer") from None
    words = [part.text for choice in choices for part in choice.parts if isinstance(part, TextPart)]
    if len(choices) != 1 or len(words) != 1 or choices[0].finish != "stop":
        raise Failure("bad_answer")
    return words[0]

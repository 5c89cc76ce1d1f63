"""Sizes of requests: messages, turns, tools, images, characters, tokens.

Controls: OWASP LLM06:2026 (unbounded consumption); MITRE ATLAS T0029, T0034.002; FINOS AIGF ri-7 / mi-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from extproc.guardrails import Excess, GuardrailSettings, Measure
from extproc.guardrails._base import UnmaskableSettings

if TYPE_CHECKING:
    from extproc.words.dialect import Text
    from extproc.words.exchange import Exchange

_BYTES_PER_TOKEN = 3  # English prose has four bytes a token
_Count = Annotated[int, Field(ge=0, le=1 << 40)]


class RequestLimitsSettings(UnmaskableSettings):
    """A guardrail that limits the size of requests."""

    kind: Literal["limits"] = Field(description="Kind of the guardrail. `limits`: sizes of requests.")
    on: Sequence[Literal["input"]] = Field(
        ("input",), min_length=1, max_length=1, description="Text that is measured: `input`, the request."
    )
    messages: _Count | None = Field(None, description="Most messages, or items of the input.")
    turns: _Count | None = Field(None, description="Most messages of the user in the conversation.")
    tools: _Count | None = Field(None, description="Most tools that the request offers to the model.")
    results: _Count | None = Field(None, description="Most results of tools in the conversation.")
    images: _Count | None = Field(None, description="Most images.")
    image_bytes: _Count | None = Field(None, description="Most bytes of images in the body, in base64.")
    characters: _Count | None = Field(None, description="Most characters of all text, without images.")
    text_characters: _Count | None = Field(
        None, description="Most characters of one text: a message, or a part of one, a tool's description."
    )
    input_tokens: _Count | None = Field(
        None,
        description="Most tokens of the input, as the gateway estimates them: one for each three bytes of text, and "
        "those of images. A budget with `window: call` counts more exactly.",
    )
    output_tokens: _Count | None = Field(
        None, description="Most tokens that the request may allow for an answer. A request without a limit passes."
    )
    choices: _Count | None = Field(None, description="Most answers that a request may ask for (`n`).")

    @model_validator(mode="after")
    def _limits_something(self) -> RequestLimitsSettings:
        if all(getattr(self, name) is None for name in _NAMES):
            raise ValueError(f"give one of {', '.join(_NAMES)}")
        return self

    def build(self) -> Limits:
        return Limits({name: limit for name in _NAMES if (limit := getattr(self, name)) is not None})


_NAMES = tuple(name for name in RequestLimitsSettings.model_fields if name not in GuardrailSettings.model_fields)


class Limits(Measure):
    """Measures requests."""

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = limits

    def measure(self, exchange: Exchange) -> Sequence[Excess]:
        sizes = _Sizes(exchange)
        found = []
        for name, limit in self._limits.items():
            count, where = getattr(sizes, name)()
            if count > limit:
                found.append(Excess(name, where, f"{name.replace('_', ' ')}: {count} of at most {limit}."))
        return found


class _Sizes:
    """The sizes of one request: each is a number, with the field of the body that has the size."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange, self._ask, self._body = exchange, exchange.request.ask, exchange.request.json
        self._dialect = exchange.request.dialect
        fields = self._dialect.fields
        names = (*fields.fixed, *sorted(fields.spoken))  # `fixed` has the dialogue; system prompts are apart
        self._spoken = next((name for name in names if name in fields.spoken), "")

    def messages(self) -> tuple[int, str]:
        return self._dialect.conversation(self._body).turns, self._spoken

    def turns(self) -> tuple[int, str]:
        return self._dialect.offers.tools.tooling(self._body).turns, self._spoken

    def tools(self) -> tuple[int, str]:
        offered = self._dialect.offers.tools.tooling(self._body).offered
        return max(self._dialect.conversation(self._body).tools, len(offered)), "tools"

    def results(self) -> tuple[int, str]:
        return len(self._dialect.offers.tools.tooling(self._body).results), self._spoken

    def images(self) -> tuple[int, str]:
        return self._ask.images, self._spoken

    def image_bytes(self) -> tuple[int, str]:
        return self._ask.image_bytes, self._spoken

    def characters(self) -> tuple[int, str]:
        return sum(len(text.value) for text in self._texts()), self._spoken

    def text_characters(self) -> tuple[int, str]:
        longest = max(self._texts(), key=lambda text: len(text.value), default=None)
        return (len(longest.value), longest.where) if longest is not None else (0, "")

    def input_tokens(self) -> tuple[int, str]:
        text = self._exchange.request.size - self._ask.image_bytes
        return math.ceil(text / _BYTES_PER_TOKEN) + self._ask.image_tokens, self._spoken

    def output_tokens(self) -> tuple[int, str]:
        return self._ask.max_output_tokens or 0, self._ask.output_field or ""

    def choices(self) -> tuple[int, str]:
        return self._ask.choices, "n"

    def _texts(self) -> Iterator[Text]:
        images = {id(image) for image in self._ask.image_data}
        return (text for text in self._dialect.texts(self._body) if id(text.value) not in images)


SETTINGS = RequestLimitsSettings

"""Which providers may answer a request, and in what order.

A client names an entry of `models`, or a virtual model that stands for several. Envoy executes the order: one cluster
per try, with the retry conditions given per request in its own `x-envoy-*` headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from extproc.errors import INVALID_REQUEST, MODEL_NOT_FOUND, NO_PROVIDER_AVAILABLE, UNSUPPORTED_BY_TARGETS, Refusal
from extproc.exchange import Exchange, Target
from extproc.providers import ProviderSettings
from extproc.values import ModelName, Pattern, PositiveDuration, Section, is_model_name

Condition = Annotated[
    Literal["connect", "reset", "timeout", "401", "403", "408", "429", "5xx"],
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # YAML reads 429 as a number
]


class ModelSettings(Section):
    """An entry of `models`. A key with `*` stands for many: in `openai/*` the rest is the model's name there."""

    provider: str
    model: ModelName | None = Field(None, description="Its name at the provider; default: the key")
    max_output_tokens: int | None = Field(None, ge=1, description="The most it can write; caps what clients ask for")
    context: int | None = Field(None, ge=1, description="Tokens of its context window")
    disabled: bool = Field(False, description="Kill switch: as if every request had to go elsewhere")


class TargetSettings(Section):
    model: str = Field(description="A name in `models`, or one that an entry with `*` covers")


class RetrySettings(Section):
    """How Envoy moves from one target to the next."""

    attempts: int = Field(3, ge=1, le=16, description="The most tries in all")
    on: Sequence[Condition] = ("connect", "reset", "timeout", "401", "403", "408", "429", "5xx")
    per_try_timeout: PositiveDuration = Field(600.0, description="Until a plain answer begins")
    per_try_timeout_stream: PositiveDuration = Field(60.0, description="Until a streamed answer begins")


class VirtualModelSettings(Section):
    strategy: Literal["fallback"] = "fallback"
    targets: Sequence[TargetSettings] = Field(min_length=1, max_length=16)
    retry: RetrySettings = RetrySettings()


@dataclass(slots=True, frozen=True)
class Chain:
    """What a requested name leads to: the targets in order, and how Envoy moves along them."""

    targets: tuple[Target, ...]
    retry: RetrySettings


_ONE_TRY = RetrySettings(attempts=1)


class Catalog:
    """Resolves names. Built once for a configuration; a look-up is one of a dictionary for all but wildcards."""

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings],
        models: Mapping[str, ModelSettings],
        virtual_models: Mapping[str, VirtualModelSettings],
    ) -> None:
        self.providers = providers
        self._keyless = {
            name: f"its key {provider.api_key or 'api_key'} is not set"
            for name, provider in providers.items()
            if provider.lacks_key
        }
        self._wildcards = [(Pattern(name), name, model) for name, model in models.items() if "*" in name]
        self._wildcards.sort(key=lambda entry: len(entry[1]), reverse=True)  # the most specific first
        self._targets = {name: _target(name, name, model) for name, model in models.items() if "*" not in name}
        self._chains = {name: Chain((target,), _ONE_TRY) for name, target in self._targets.items()}
        for name, virtual in virtual_models.items():
            targets = (self.target(target.model) for target in virtual.targets)
            self._chains[name] = Chain(tuple(target for target in targets if target is not None), virtual.retry)

    def resolve(self, name: str) -> Chain | None:
        """The chain of a name that a client gave, or None."""
        chain = self._chains.get(name)
        if chain is None and (target := self._wildcard(name)) is not None:
            chain = Chain((target,), _ONE_TRY)
        return chain

    def target(self, name: str) -> Target | None:
        """The target that a name of `models` leads to, or None."""
        return self._targets.get(name) or self._wildcard(name)

    def names(self) -> Iterator[str]:
        """Every name a client may give, except those that only a wildcard covers."""
        return iter(self._chains)

    def wildcards(self) -> Iterator[tuple[str, str]]:
        """The entries with `*`, and the provider of each."""
        return ((key, model.provider) for _, key, model in self._wildcards)

    def speaks(self, target: Target, dialect: str) -> bool:
        return dialect in self.providers[target.provider].provider.dialects

    def unavailable(self, target: Target, *, attached: bool = False) -> str | None:
        """Why no request may go there now, or None. An Envoy that we are attached to has keys of its own."""
        if target.disabled or self.providers[target.provider].disabled:
            return "it is disabled"
        return None if attached else self._keyless.get(target.provider)

    def _wildcard(self, name: str) -> Target | None:
        if "*" in name or not is_model_name(name):
            return None
        found = next((_target(name, key, model) for pattern, key, model in self._wildcards if pattern(name)), None)
        return found if found is not None and found.model else None  # `openai/` alone names nothing there


def _target(name: str, key: str, settings: ModelSettings) -> Target:
    there = settings.model
    if there is None:
        prefix, star, rest = key.partition("*")
        # In `openai/*` the part before the slash says who serves; it is no part of the model's name there.
        there = name[len(prefix) :] if star and not rest and prefix.endswith("/") else name
    return Target(name, settings.provider, there, settings.max_output_tokens, settings.context, settings.disabled)


class Route:
    """Writes `chain`, and as `targets` those of it that can serve this request. 404 when nobody knows the name."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, exchange: Exchange) -> None:
        catalog, name, dialect = self._catalog, exchange.ask.model, exchange.dialect.name
        if not is_model_name(name):
            message = "'model' must be 1 to 256 printable ASCII characters without spaces."
            raise Refusal(INVALID_REQUEST, message, param="model")
        chain = catalog.resolve(name)
        if chain is None:
            message = f"There is no model {name!r} here; GET /v1/models lists what there is."
            raise Refusal(MODEL_NOT_FOUND, message, param="model")
        able = [target for target in chain.targets if catalog.speaks(target, dialect)]
        if not able:
            message = f"No provider of {name!r} can serve {exchange.request.path}."
            raise Refusal(UNSUPPORTED_BY_TARGETS, message, param="model")
        reasons = [catalog.unavailable(target, attached=exchange.attached) for target in able]
        exchange.chain = chain
        exchange.targets = tuple(target for target, reason in zip(able, reasons, strict=True) if reason is None)
        if not exchange.targets:
            message = f"{name!r} cannot be served now: provider {able[0].provider}: {reasons[0]}."
            raise Refusal(NO_PROVIDER_AVAILABLE, message)

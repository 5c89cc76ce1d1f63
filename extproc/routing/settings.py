"""`models:` and `virtual_models:` of the filter YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from extproc.access.auth.require import RequireSettings
from extproc.routing.canary import CanarySettings
from extproc.routing.matching import MatchSettings
from extproc.routing.objectives import ObjectiveSettings
from extproc.routing.parameters import compile_changes
from extproc.routing.shadow import ShadowSettings
from extproc.routing.strategies import StickySettings, strategies
from extproc.routing.strategies._measured import Measured
from extproc.upstream.prices import PriceSettings
from extproc.upstream.providers import HostedTools
from extproc.words.chain import RetrySettings
from extproc.words.dialect import ABILITIES
from extproc.words.values import Duration, ModelName, PositiveDuration, Section


class ModelSettings(Section):
    """A model that clients can ask for. A key with `*` stands for many models."""

    provider: str = Field(description="Provider that serves the model: a key of `providers`.")
    model: ModelName | None = Field(
        None, description="Name of the model at the provider. Default: the key of this entry."
    )
    max_output_tokens: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Most output tokens of the model. A client's higher limit is lowered to it.",
    )
    context: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Context window of the model, in tokens. Longer requests skip the model. Default: the catalogue's "
        "value. Set it for models that the catalogue does not know.",
    )
    supports: Sequence[str] | None = Field(
        None,
        description=f"Abilities of the model, of {', '.join(f'`{ability}`' for ability in ABILITIES)}. Requests that "
        "need another ability skip the model. Default: all of them.",
    )
    price: PriceSettings | None = Field(
        None,
        description="Price of the model's tokens. Default: the catalogue's. Set it for models that the catalogue does "
        "not know, and for prices of your own contract.",
    )
    timeout: PositiveDuration | None = Field(
        None,
        description="Longest wait for an answer of the model to begin, plain or streamed, for each try. Default: the "
        "provider's `timeout`, which applies when it is shorter, too.",
    )
    api: str | None = Field(
        None,
        description="API in which chat requests reach the model, by its name, for example `openai_chat` or "
        "`openai_responses`: requests of other APIs are translated into it. Default: the client's own API where the "
        "provider serves it; else `openai_responses` for OpenAI's models that reason; else the provider's first.",
    )
    prompt_cache: bool = Field(
        False,
        description="Mark the stable parts of prompts for providers that cache marked parts only (Anthropic, also on "
        "Bedrock and Vertex), and give a key to providers that find prefixes by one (OpenAI, also on Azure). "
        "Use it for long prompts that repeat.",
    )
    region: ModelName | None = Field(
        None, description="Region where the model runs, for `require`. Default: the provider's `region`."
    )
    retention: Duration | None = Field(
        None, description="Time for which the provider keeps prompts and answers, for `require`. `0s`: not at all."
    )
    licence: ModelName | None = Field(None, description="Licence of the model, for `require`: `apache-2.0`.")
    deprecated: date | None = Field(
        None, description="Day on which the end of the model was announced. Default: the catalogue's."
    )
    retires: date | None = Field(
        None,
        description="First day, in UTC, on which the provider no longer serves the model. Default: the "
        "catalogue's. Answers tell it in the header `sunset`.",
    )
    successor: ModelName | None = Field(
        None, description="Model that its provider recommends in place of this one. Default: the catalogue's."
    )
    disabled: bool = Field(
        False, description="Stop new requests to the model. Virtual models skip it. Takes effect without a restart."
    )

    @field_validator("supports")
    @classmethod
    def _known(cls, value: Sequence[str] | None) -> Sequence[str] | None:
        for ability in value or ():
            if ability not in ABILITIES:
                raise ValueError(f"{ability!r} is not one of {', '.join(ABILITIES)}")
        return value


class QualitySettings(Section):
    """The quality of a target for one class of requests."""

    match: MatchSettings = Field(
        default_factory=dict, description="Requests of the class, as `targets[].match`. Default: all requests."
    )
    value: float = Field(ge=0, le=1, description="Quality, 0 to 1.")


def _one_class(value: object) -> object:
    return [{"value": value}] if isinstance(value, int | float) else value


class TargetSettings(Section):
    """A target of a virtual model, and the changes of requests that go there."""

    model: str = Field(
        description="Model of the target: a key of `models`, `provider/model-id`, or another virtual model."
    )
    weight: int = Field(
        1,
        ge=0,
        le=1_000_000,
        description="Share of the requests, for the strategy `weighted`. `0`: only requests that failed elsewhere.",
    )
    max_complexity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Highest score of a request for this target, for the strategy `complexity`. Default: targets share "
        "the range evenly.",
    )
    override: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Fields of the request that are set to these values. `a.b` names the field `b` of the object `a`.",
    )
    default: Mapping[str, Any] = Field(
        default_factory=dict, description="Fields of the request that are set when the client left them out."
    )
    remove: Sequence[str] = Field((), description="Fields of the request that are removed.")
    quality: Annotated[
        Sequence[QualitySettings],
        BeforeValidator(_one_class, json_schema_input_type=Annotated[float, Field(ge=0, le=1)] | list[QualitySettings]),
        Field(max_length=16),
    ] = Field(
        (),
        description="Quality of the target for the strategy `quality`, 0 to 1: a number, or a list of classes of "
        "requests, of which the first that matches counts. Default: 0.",
    )
    match: MatchSettings = Field(
        default_factory=dict,
        description="Requests that may go to the target: a pattern for `consumer`, `team`, `label.<name>` or "
        "`language` (of the latest message, ISO 639-1), `true` or `false` for `images` and `tools`, a range for "
        "`tokens` (`-1000`), `complexity` (`0.5-`) and `time` (`08:00-18:00`, UTC). All must match. Default: all "
        "requests.",
    )
    tries: int = Field(
        1, ge=1, le=5, description="Tries in a row at this target before the next, with `retry.back_off` between them."
    )
    disabled: bool = Field(False, description="Skip the target in this virtual model. Takes effect without a restart.")

    @model_validator(mode="after")
    def _changes(self) -> TargetSettings:
        compile_changes(self.override, self.default, self.remove)
        return self


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class VirtualModelSettings(Section):
    """A name that stands for several targets, and the strategy that orders them."""

    strategy: Annotated[
        tuple[str, ...],
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
        Field(min_length=1, max_length=4),
    ] = Field(
        ("fallback",),
        description="Order of the targets: `fallback` (as listed), `weighted` (by weight), `latency` (fastest first), "
        "`cost` (cheapest first), `load` (least busy first, in proportion to the weight), `quality` (best first) or "
        "`complexity` (the weakest that suits the request first). In a list each one orders the targets that are alike "
        "for the one before: `[quality, cost, latency]`.",
    )
    objectives: ObjectiveSettings | None = Field(
        None, description="Targets that miss one of these come after all that meet them."
    )
    targets: Sequence[TargetSettings] = Field(
        min_length=1, max_length=16, description="Targets of the virtual model, 1 to 16."
    )
    sticky: StickySettings | None = Field(
        None, description="Requests of one session stay at one target. For the strategy `weighted`."
    )
    hosted_tools: HostedTools | None = Field(
        None, description="As `hosted_tools` of a provider, for the targets of this virtual model. Default: theirs."
    )
    retry: RetrySettings = RetrySettings()
    canary: CanarySettings | None = Field(
        None, description="A target on trial, which gets no more first tries once it is worse than another."
    )
    shadow: ShadowSettings | None = Field(
        None, description="A candidate that gets a share of the requests, too, after clients have their answers."
    )
    require: RequireSettings | None = Field(
        None,
        description="Facts of each target that may serve a request for this name, also after failover and after a "
        "budget's downgrade.",
    )

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in strategies():
                raise ValueError(f"{name!r} is not one of {', '.join(sorted(strategies()))}")
        for name in value[:-1]:
            if not issubclass(strategies()[name], Measured):
                raise ValueError(f"{name} leaves no targets alike, so it can only be the last")  # noqa: TRY004 - a setting
        if len(set(value)) < len(value):
            raise ValueError("each strategy can be named once")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> VirtualModelSettings:
        if self.sticky is not None and "weighted" not in self.strategy:
            raise ValueError("sticky needs strategy: weighted")
        if self.canary is not None:
            names = {target.model for target in self.targets}
            if not {self.canary.target, self.canary.against} <= names or self.canary.target == self.canary.against:
                raise ValueError("canary.target and canary.against are the models of two targets")
        if self.require is not None and self.require.guardrails is not None:
            raise ValueError("require.guardrails is for consumers and teams")
        if "weighted" in self.strategy and not any(target.weight for target in self.targets):
            raise ValueError("at least one target needs a weight above 0")
        limits = [target.max_complexity for target in self.targets if target.max_complexity is not None]
        if limits != sorted(limits):
            raise ValueError("max_complexity must not fall: list the weakest target first")
        return self

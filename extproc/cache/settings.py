"""`cache:` of the filter YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from extproc.access.auth.facts import check_fact
from extproc.cache.questions import twice
from extproc.guardrails._asking import AskedModelSettings, SelfAskingSettings
from extproc.words.values import ModelName, PositiveDuration, SecretRef, Section, Size

LONGEST_WAIT = 8.0
"""Most seconds that a request waits for the cache; Envoy ends a request whose processor is silent for 10."""

THRESHOLD = 0.95
"""Lowest score of a near question in shadow mode."""

MOST_LISTED = 10_000
"""Most listed questions, over all lists."""

SAMPLES = 200
"""Number of latest similar questions that operators see."""


class CacheRuleSettings(Section):
    """The answers that are kept for some requests. The first rule that matches a request applies to it."""

    match: Mapping[str, str] = Field(
        default_factory=dict,
        max_length=16,
        description="Requests that the rule is for: a pattern for `model` (the name of a model or a virtual model), "
        "`consumer`, `team` or `label.<name>`. All patterns must match. Default: all requests.",
    )
    mode: Literal["enforce", "shadow", "off"] = Field(
        "enforce",
        description="`enforce`: a repeated request gets the kept answer. `shadow`: every request goes to its provider, "
        "and the gateway counts what a kept answer would have saved; digests are kept, no answers. `off`: exempts "
        "requests from the rules below.",
    )
    ttl: PositiveDuration = Field(
        3600.0, ge=1, le=30 * 86400, description="Age up to which a kept answer is given, `1s` to `30d`."
    )
    scope: Literal["consumer", "team", "all"] = Field(
        "consumer",
        description="Requests that share answers: those of one `consumer`, of one `team`, or `all`. A consumer without "
        "a team shares with itself alone. Widen it only where answers may be seen by everybody in the scope.",
    )
    sampled: bool = Field(
        False,
        description="Also keep answers to requests that ask for variety: a temperature above 0 without a seed, several "
        "choices, or tools. A request that states no temperature does not ask for variety.",
    )
    semantic: Literal["off", "shadow", "enforce"] = Field(
        "off",
        description="Answers to questions in other words, see `cache.semantic`. `shadow`: suggests them, in counts and "
        "in samples for the console, and changes no answer. `enforce`: gives those that `verify` says yes to, or that "
        "stand under one question of `questions`. With `mode: shadow` they are only counted.",
    )


class _ModelSettings(SelfAskingSettings):
    """A model of the gateway that the cache asks through the gateway."""

    max_calls: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most calls of the model at a time in one process. Further requests go without.",
    )
    tls_ca: str | None = Field(None, description="PEM file of authorities that verify `url`. Default: the system's.")
    max_answer: Size = Field(
        1 << 20, ge=1 << 10, le=16 << 20, description="Largest answer of the model, `1KiB` to `16MiB`."
    )


class SimilarModelSettings(_ModelSettings):
    """An embedding model of the gateway that finds near questions."""

    model: ModelName = Field(
        description="Embedding model of the gateway: a key of `models` or `virtual_models`. It gets the last turn of "
        "each request that a rule with `semantic` is for, and that no equal request answers."
    )
    dimensions: int | None = Field(
        None,
        ge=64,
        le=4096,
        description="Numbers of a vector, 64 to 4096, for models that shorten them. Default: the model's. 512 take a "
        "third of the memory and time of 1536.",
    )
    timeout: PositiveDuration = Field(
        1.0,
        ge=0.05,
        le=5,
        description="Longest wait for a vector, `50ms` to `5s`. Then the request goes to a provider.",
    )


class VerifySettings(AskedModelSettings, _ModelSettings):
    """A model of the gateway that says whether one answer is right for two questions."""

    model: ModelName = Field(
        description="Model of the gateway that is asked: a key of `models` or `virtual_models`. It gets both questions "
        "and what stands before them in the request, once a kept question is near enough."
    )
    timeout: PositiveDuration = Field(
        3.0,
        ge=0.05,
        le=7,
        description="Longest wait for the verdict, `50ms` to `7s`. Then the request goes to a provider.",
    )
    max_text: int = Field(
        8000,
        ge=100,
        le=1_000_000,
        description="Most characters that the model is shown: system prompt, names of tools, earlier turns and both "
        "questions, 100 to 1000000. Longer requests are misses.",
    )


Listed = Annotated[str, StringConstraints(min_length=1, max_length=8000)]


class SimilarSettings(Section):
    """Questions in other words: how rules with `semantic` compare the last turn of a request."""

    embeddings: SimilarModelSettings | None = Field(
        None,
        description="Embedding model that finds near questions. Required for `semantic: shadow`, and for `verify`.",
    )
    verify: VerifySettings | None = Field(
        None,
        description="Model that is asked whether the answer to a near question is right for this one, too. Without its "
        "clear yes no such answer is given.",
    )
    questions: Mapping[Listed, Sequence[Listed]] = Field(
        default_factory=dict,
        max_length=MOST_LISTED,
        description="Questions that you declare equal: a question, and a list of others that get the same answer with "
        "`semantic: enforce`. They are compared letter by letter, without blanks at both ends. At most 10000 texts.",
    )
    threshold: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Least cosine of two vectors that makes questions near, 0.5 to 1. Required for `verify` with "
        "`semantic: enforce`; in shadow the default is 0.95. Choose it by the samples in the console.",
    )
    longest: int = Field(
        500,
        ge=20,
        le=8000,
        description="Longest last turn that is compared by vectors, in characters, 20 to 8000. The longer two texts "
        "are, the less a word that matters counts in their score.",
    )
    memory: Size = Field(
        64 << 20,
        ge=1 << 20,
        le=16 << 30,
        description="Size of the vectors in memory, `1MiB` to `16GiB`: 64MiB hold 9,000 questions of 1536 numbers.",
    )
    samples: Literal["digests", "texts"] = Field(
        "digests",
        description="Samples in the console. `digests`: scores, digests and consumers. `texts`: also both questions, "
        "which are then in this process's memory, and readable by operators.",
    )

    @field_validator("questions")
    @classmethod
    def _listed(cls, value: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
        if sum(1 + len(others) for others in value.values()) > MOST_LISTED:
            raise ValueError(f"at most {MOST_LISTED} texts")
        if text := twice(value):
            raise ValueError(f"{text[:60]!r} stands under two questions")
        return value


class ConversationSettings(Section):
    """Conversations of OpenAI's Responses (`previous_response_id`, `item_reference`) at targets that keep nothing. The
    gateway keeps their turns in `stores.cache`, for the consumer alone.
    """

    enabled: bool = Field(True, description="`false`: the gateway keeps no turn, and such requests are refused.")
    keep: PositiveDuration = Field(
        86400.0, ge=1, le=30 * 86400, description="Time after its last use for which a turn is kept, `1s` to `30d`."
    )
    size: Size = Field(
        4 << 20,
        ge=1 << 10,
        le=32 << 20,
        description="Size of the longest conversation that is written out, `1KiB` to `32MiB`. A longer one is refused.",
    )
    largest: Size = Field(
        1 << 20,
        ge=1 << 10,
        le=16 << 20,
        description="Size of the items that a request adds, and of an answer, up to which a turn is kept, `1KiB` to "
        "`16MiB`.",
    )
    steps: int = Field(256, ge=1, le=4096, description="Most turns of a conversation.")
    items: int = Field(
        1024,
        ge=1,
        le=10_000,
        description="Most items of an answer that are kept by their ids, and of a request's references.",
    )
    memory: Size = Field(
        64 << 20, ge=1 << 10, le=64 << 30, description="Size of all turns in memory. The least recently used leave."
    )
    disk: Size = Field(1 << 30, ge=1 << 20, le=1 << 40, description="Size of all turns in SQLite.")


class CacheSettings(Section):
    """Answers that are kept and given again for equal requests. Off without `rules`."""

    rules: Sequence[CacheRuleSettings] = Field(
        (), max_length=100, description="Rules, at most 100. The first one that matches a request applies."
    )
    key: SecretRef | None = Field(
        None,
        description="Secret of at least 32 characters that encrypts kept answers in SQLite and Redis, as `env:NAME` or "
        "`file:/path`. A new one makes all kept answers unreadable. Required unless `stores.cache` is `memory:`.",
    )
    memory: Size = Field(
        64 << 20,
        ge=1 << 20,
        le=64 << 30,
        description="Size of the cache in memory, `1MiB` to `64GiB`; with any "
        "store, also of the answers under way that are to be kept.",
    )
    disk: Size = Field(1 << 30, ge=1 << 20, le=1 << 40, description="Size of the cache in SQLite, `1MiB` to `1024GiB`.")
    max_answer: Size = Field(
        1 << 20, ge=1 << 10, le=2 << 20, description="Size of the longest answer that is kept, `1KiB` to `2MiB`."
    )
    wait: PositiveDuration = Field(
        5.0,
        ge=0.01,
        le=LONGEST_WAIT,
        description="Longest wait of a request for the answer to an equal one under way, `10ms` to `8s`. Then it goes "
        "to a provider itself.",
    )
    waiting: int = Field(
        1000, ge=0, le=100_000, description="Requests in one process that may wait so. Further ones go to a provider."
    )

    semantic: SimilarSettings = SimilarSettings()
    conversations: ConversationSettings = ConversationSettings()

    @property
    def is_semantic(self) -> bool:
        """True where a rule compares questions by vectors."""
        return self.semantic.embeddings is not None and any(True for _ in self.semantic_rules)

    @property
    def semantic_rules(self) -> Iterator[tuple[int, CacheRuleSettings]]:
        """The rules for questions in other words, with their places."""
        return (each for each in enumerate(self.rules) if each[1].semantic != "off" and each[1].mode != "off")

    @field_validator("rules")
    @classmethod
    def _facts(cls, value: Sequence[CacheRuleSettings]) -> Sequence[CacheRuleSettings]:
        for rule in value:
            for name in rule.match:
                check_fact(name, "model")
        return value

"""`cache:` of the filter YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator

from extproc.guardrails import Url
from extproc.words.facts import check_fact
from extproc.words.values import ModelName, Name, PositiveDuration, SecretRef, Section, Size

LONGEST_WAIT = 8.0
"""Seconds; Envoy ends a request whose processor says nothing for 10."""

THRESHOLD = 0.95
"""Score from which two questions are the same, see docs/cache.md for its precision."""

SAMPLES = 200
"""Latest questions in other words that operators see."""


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
        description="Answers to questions in other words, see `cache.semantic`. `shadow`: counts them, keeps samples "
        "for the console, and changes no answer. `enforce`: gives them. With `mode: shadow` they are only counted.",
    )


class SimilarModelSettings(Section):
    """An embedding model of the gateway that compares questions."""

    model: ModelName = Field(
        description="Embedding model of the gateway: a key of `models` or `virtual_models`. It gets the last turn of "
        "each request that a rule with `semantic` is for, and that no equal request answers."
    )
    consumer: Name = Field(
        description="Consumer as which the gateway asks itself, a key of `consumers` with a key in `env` or `file`. "
        "Its rows in the ledger are the cost of the vectors. Keep its key to the gateway."
    )
    url: Url | None = Field(
        None,
        description="Address of the gateway as this process reaches it. Default: its listener on this machine. Give it "
        "where the listener has TLS, and in attach mode.",
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


class SharedSettings(Section):
    """Vectors that processors share, with `stores: {cache: "redis://…"}`: a stream that each of them reads."""

    entries: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="Most questions in Redis, the latest ones, up to 1,000,000. A processor that starts reads them. 0: "
        "each processor compares its own questions alone.",
    )
    size: Size = Field(
        64 << 20,
        ge=1 << 16,
        le=16 << 30,
        description="Size of these questions in Redis, `64KiB` to `16GiB`. The oldest leave first. One takes about "
        "0.8 KB by words, and 4 bytes for each number of a model's vector.",
    )
    queue: Size = Field(
        4 << 20,
        ge=1 << 16,
        le=1 << 30,
        description="Size of the new questions in one process that wait for a Redis that does not answer, `64KiB` to "
        "`1GiB`. Beyond it the oldest are not shared.",
    )


class SimilarSettings(Section):
    """Questions in other words: how rules with `semantic` compare the last turn of a request."""

    embeddings: SimilarModelSettings | None = Field(
        None,
        description="Embedding model that compares meanings. Default: none. Then words are compared, which finds "
        "questions that differ in capitals, punctuation, politeness, articles and endings.",
    )
    threshold: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Least score of a question that counts as the same, 0.5 to 1. Default for words: 0.95, with a "
        "precision of 0.99, see docs/cache.md. With `embeddings` a rule needs it for `enforce`; in shadow the default "
        "is 0.95. Choose it by the samples in the console.",
    )
    guard: bool = Field(
        True,
        description="Also demand that numbers, units, negations, opposites and names are equal, in the same order. It "
        "keeps questions apart that differ in one word that matters.",
    )
    longest: int = Field(
        500,
        ge=20,
        le=8000,
        description="Longest last turn that is compared, in characters, 20 to 8000. The longer two texts are, the less "
        "a word that matters counts in their score.",
    )
    memory: Size = Field(
        64 << 20,
        ge=1 << 20,
        le=16 << 30,
        description="Size of the vectors in memory, `1MiB` to `16GiB`: 64MiB hold 9,000 questions by words.",
    )
    shared: SharedSettings = SharedSettings()
    samples: Literal["digests", "texts"] = Field(
        "digests",
        description="Samples in the console. `digests`: scores, digests and consumers. `texts`: also both questions, "
        "which are then in this process's memory, and readable by operators.",
    )


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

    @property
    def is_semantic(self) -> bool:
        """Whether a rule compares questions."""
        return any(rule.semantic != "off" and rule.mode != "off" for rule in self.rules)

    @field_validator("rules")
    @classmethod
    def _facts(cls, value: Sequence[CacheRuleSettings]) -> Sequence[CacheRuleSettings]:
        for rule in value:
            for name in rule.match:
                check_fact(name, "model")
        return value

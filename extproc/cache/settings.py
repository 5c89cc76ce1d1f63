"""`cache:` of the filter YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator

from extproc.words.facts import check_fact
from extproc.words.values import PositiveDuration, SecretRef, Section, Size

LONGEST_WAIT = 8.0
"""Seconds; Envoy ends a request whose processor says nothing for 10."""


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

    @field_validator("rules")
    @classmethod
    def _facts(cls, value: Sequence[CacheRuleSettings]) -> Sequence[CacheRuleSettings]:
        for rule in value:
            for name in rule.match:
                check_fact(name, "model")
        return value

"""Types of the admin API's answer about two targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from extproc.operate.admin.answers import MOMENT, USD, Count, Maybe, Printable, Time, describes


class ArmNumbers(Struct, kw_only=True):
    """The answers of one target."""

    exchanges: Annotated[int, Meta(ge=0, description="Exchanges in which this target was asked first")]
    p50_ms: int | None
    p95_ms: int | None
    p50_usd: USD | None
    p95_usd: USD | None
    mean_usd: USD | None


class PairCounts(Struct, kw_only=True):
    """Pairs of answers to the same request."""

    only_a: Annotated[float, describes("Pairs in which only A's answer is bad")]
    only_b: float
    alike: float


class CallCounts(Struct, kw_only=True):
    """Pairs of answers to requests that offered tools."""

    with_tools: Count
    same_tools: Annotated[int, describes("Both called the same tools, or none")]
    same_calls: Annotated[int, describes("With the same arguments")]


class Measure(Struct, kw_only=True):
    """A bad outcome, counted in both arms."""

    name: Annotated[str, describes("failed, cut off, slow, dear, refused, malformed or without a call")]
    bad_a: Count
    of_a: Count
    bad_b: Count
    of_b: Count
    low: Annotated[float, describes("Lowest difference, rate of B less rate of A, that the counts do not contradict")]
    high: Annotated[float, describes("The highest, likewise")]
    margin: Annotated[float, describes("Difference that still counts as safe")]
    state: Literal["worse", "safe", "open"]
    more: Annotated[int | None, describes("Further answers of B until this is decided; null: not to be foretold")]
    examples: Annotated[Sequence[str], describes("Ids of the latest bad answers of B, at most 5")]
    pairs: Maybe[PairCounts] = UNSET


class RequestClass(Struct, kw_only=True):
    """One class of request."""

    name: str
    a: ArmNumbers
    b: ArmNumbers
    measures: Sequence[Measure]
    calls: Maybe[CallCounts] = UNSET


class Comparison(Struct, kw_only=True):
    """Target B beside target A."""

    object: Literal["comparison"]
    a: str
    b: str
    start: Time
    end: Time
    error: Annotated[float, describes("Probability that any bound of this comparison is wrong, at any time")]
    state: Literal["safe", "not_safe", "not_enough_data"]
    more: Annotated[int | None, describes("Further answers of B that are needed; null: not to be foretold")]
    sentence: str
    classes: Annotated[Sequence[RequestClass], describes("All requests first")]


_Target = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$(?!\n)", description="An entry of `models`")]


class _Since(Struct, kw_only=True, forbid_unknown_fields=True):
    start: Maybe[
        Annotated[
            str,
            Meta(extra_json_schema=MOMENT),
            describes("Date or RFC 3339 time, inclusive; `hours` does not count then"),
        ]
    ] = UNSET
    hours: Annotated[int, Meta(ge=1, le=8784, description="Only exchanges of so many hours")] = 168
    label: Maybe[Annotated[Printable, describes("A class for each value of this label, too")]] = UNSET


class ComparisonQuery(_Since, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /comparison`."""

    a: _Target
    b: _Target
    model: Maybe[Annotated[Printable, describes("Only requests for this model, as clients name it")]] = UNSET


class PairsQuery(_Since, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /comparison/pairs`."""

    of: Annotated[
        Literal["shadow", "replay"], describes("A virtual model and its shadow; a replay and what it repeats")
    ]
    name: Annotated[Printable, describes("Name of the virtual model, or of the replay")]

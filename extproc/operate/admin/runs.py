"""Types of the admin API's answers about runs of agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import UNSET, Meta, Struct

from extproc.operate.admin.answers import Count, Maybe, Numbers, Printable, Time, describes, list_of
from extproc.words.exchange import Outcome


class RunSums(Numbers, kw_only=True):
    cache_share: Annotated[float, Meta(ge=0, le=1, description="Share of the input that providers read from caches")]


class RunCall(RunSums, kw_only=True):
    """The calls of one model or tool."""

    operation: str
    model: Annotated[str, describes("Model or tool as the client named it")]
    target: str
    provider: Annotated[str, describes("Provider, or MCP server")]
    provider_model: Annotated[str, describes("Model, or tool, as it is named there")]


class RunProblem(Struct, kw_only=True):
    error: Annotated[str, describes("Code of the refusal, or of the failure")]
    outcome: Outcome
    requests: Count
    latest: Time


class Run(RunSums, kw_only=True):
    """Calls of one consumer under one run name."""

    id: str
    consumer: str
    team: str
    start: Annotated[Time, describes("Its first exchange")]
    latest: Annotated[Time, describes("The beginning of its latest exchange")]
    calls: Maybe[Annotated[Sequence[RunCall], describes("By model and tool, the most frequent first")]] = UNSET
    problems: Maybe[Annotated[Sequence[RunProblem], describes("Refusals and failures, likewise")]] = UNSET


Runs = list_of("Runs", Run)


class RunQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /runs/{id}`."""

    consumer: Maybe[Annotated[Printable, describes("Only of this consumer")]] = UNSET


class RunsQuery(RunQuery, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /runs`."""

    hours: Annotated[int, Meta(ge=1, le=8784, description="Only exchanges of so many hours")] = 24

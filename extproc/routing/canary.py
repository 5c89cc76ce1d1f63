"""Trials of canaries: a target that is worse than the one beside it, with confidence, gets no more first tries.

The evidence is that of `extproc compare`: the ledger's rows since the trial began, with bounds that hold at every look.
Trials are notes on a board of the counters store, so every process of the fleet knows of a stop within a second, and a
restart forgets none as long as the store keeps its notes. A stop lasts until the settings begin another trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from pydantic import Field

from extproc.stores import Counters, read_notes
from extproc.words.values import Section

BOARD = "trials"
_KEPT = 366 * 86400.0  # seconds
Measure = Literal["failed", "cut_off", "slow", "dear", "refused", "malformed", "without_a_call"]


class CanarySettings(Section):
    """A target on trial, which stops by itself when it is worse."""

    target: str = Field(
        description="Model of the target on trial: the `model` of one of `targets`, and a key of `models`."
    )
    against: str = Field(description="Model of the target that it is compared with, another of `targets`.")
    guard: tuple[Measure, ...] = Field(
        ("failed", "cut_off", "slow", "dear", "refused", "malformed"),
        min_length=1,
        max_length=7,
        description="Measures of `extproc compare` that stop the target when one is worse with 95 % confidence, over "
        "all requests or in a class of them.",
    )
    trial: int = Field(1, ge=1, le=1_000_000, description="Number of the trial. Another number begins a new one.")


class Trial(msgspec.Struct, frozen=True):
    """A trial of a target of a virtual model. Times in epoch seconds."""

    model: str
    target: str
    against: str
    number: int
    begun: float
    stopped: float = 0.0  # 0: it goes on
    reason: str = ""

    @property
    def id(self) -> str:
        """The author of its note."""
        return "\n".join((self.model, self.target, self.against, str(self.number)))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Trial).decode
Wanted = Mapping[str, CanarySettings]
"""The trials of the settings, by virtual model."""


class Canaries:
    """The trials known to this process. `refresh` reads those of other processes."""

    def __init__(self, counters: Counters, now: Callable[[], float] = time.time) -> None:
        self._counters = counters
        self._now = now
        self._all: dict[str, Trial] = {}

    def stopped(self, model: str, canary: CanarySettings) -> str:
        """The reason why the virtual model's canary has stopped; empty while it goes on."""
        found = self._all.get(_begun(model, canary, 0.0).id)
        return "" if found is None else found.reason

    async def refresh(self) -> None:
        """Read the board. Raises StoreError."""
        notes = read_notes(await self._counters.share(BOARD, "", b"", 1.0), _decode)
        self._all = {trial.id: trial for trial in notes}

    async def look(self, wanted: Wanted, compare: Callable[[Trial], Any], *, told: Callable[[Trial], None]) -> None:
        """Begin trials that are new in the settings, and stop those whose evidence is against them. `compare` gives the
        comparison of a trial's rows, awaited; `told` is called for each one that stops. Raises StoreError, LedgerError.
        """
        for model, canary in wanted.items():
            trial = self._all.get(_begun(model, canary, 0.0).id)
            if trial is None:
                await self._note(_begun(model, canary, self._now()))
            elif not trial.stopped and (reason := worse(await compare(trial), canary.guard)):
                ended = msgspec.structs.replace(trial, stopped=self._now(), reason=reason)
                await self._note(ended)
                told(ended)

    async def _note(self, trial: Trial) -> None:
        await self._counters.share(BOARD, trial.id, _encode(trial), _KEPT)
        self._all = {**self._all, trial.id: trial}


def _begun(model: str, canary: CanarySettings, at: float) -> Trial:
    return Trial(model, canary.target, canary.against, canary.trial, at)


def worse(comparison: Mapping[str, Any], guard: Sequence[Measure]) -> str:
    """The first measure of `guard` in which the canary is worse, for people; empty if there is none."""
    return next(_worse(comparison, {name.replace("_", " ") for name in guard}), "")


def _worse(comparison: Mapping[str, Any], names: set[str]) -> Iterator[str]:
    for each in comparison["classes"]:
        for measure in each["measures"]:
            if measure["name"] in names and measure["state"] == "worse":
                own, other = (f"{measure[f'bad_{arm}'] / measure[f'of_{arm}']:.1%}" for arm in "ba")
                yield f"{own} of its answers are {measure['name']}, {other} of {comparison['a']}'s ({each['name']})"

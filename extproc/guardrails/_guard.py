"""One guardrail at work: the requests it applies to, its findings in text of any length, and its failures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

from extproc.guardrails._applies import Applies
from extproc.guardrails._base import (
    ACTIONS,
    TOOL_NAME,
    TOOL_ROLES,
    AskingSettings,
    Detector,
    Excess,
    Finding,
    Guardrail,
    GuardrailSettings,
    Judge,
    Measure,
    Whole,
    Withholds,
)
from extproc.guardrails._mask import Hash
from extproc.guardrails._normal import normalised, offsets, reach
from extproc.guardrails._remote import Around, Context, Passage, Remote, RemoteSettings, Replacer, asked
from extproc.guardrails._source import Hit
from extproc.wire.outbound.service import Failure, Service
from extproc.words.exchange import Exchange

MOST_LONGEST = 16 << 10
"""Most characters of `max_match`, of `window`, and of a match that grows while an answer streams."""
PIECE = 128 << 10
"""Characters of a text that a detector gets at a time. The deadline is checked between two pieces."""

_TURN = 256
_MODEL_COST = 3.0  # microseconds a character, for a guardrail that judges text as a whole
_ANSWERS = frozenset(("output", "tool_calls"))
_REQUESTS = frozenset(("input", "tool_results"))


Result = TypeVar("Result")


class Guard:
    """A guardrail of the settings. Its methods raise Failure. `remote` is set if it asks a service: then only `ask`
    finds, and if it stands `aside` only the record waits for it, see `_audits.py`. `replacer` is set if it replaces
    tool results; then it finds nothing.
    """

    def __init__(self, settings: GuardrailSettings, order: int, around: Around | None = None) -> None:
        self.settings = settings
        self.name, self.action, self.on = settings.name, settings.action, frozenset(settings.on)
        self.order = order
        self._actions = settings.actions
        chosen = {settings.action, *settings.actions.values()}
        self.blocks, self.masks = "block" in chosen, "mask" in chosen
        self.asks = isinstance(settings, AskingSettings) and settings.action == "ask"
        self.enforces = self.blocks or self.masks or self.asks
        self.closed = settings.failure == "closed" and self.enforces
        self.hash = Hash(settings)
        self.remote: Remote | None = None
        self.replacer: Replacer | None = None
        if isinstance(settings, RemoteSettings):
            self._use(None)
            made = settings.connect(around or Around())
            if isinstance(made, Replacer):
                self.replacer = made
            else:
                self.remote = made
            self.longest, self.window = settings.overlap, settings.window
        else:
            self._use(settings.build())
        self.aside = self.remote is not None and self.action == "audit"
        self.applies = Applies(settings.applies_to)

    def _use(self, guardrail: Guardrail | None) -> None:
        self._guardrail = guardrail
        self._detector = detector = guardrail if isinstance(guardrail, Detector) else None
        self._judge = guardrail if isinstance(guardrail, Judge) else None
        self._measure = guardrail if isinstance(guardrail, Measure) else None
        self.withholds = guardrail if isinstance(guardrail, Withholds) else None
        self.longest = 0 if detector is None else min(detector.max_match, MOST_LONGEST)
        self.window = 0 if detector is None else min(detector.window, MOST_LONGEST)
        self.cost = 0.0 if detector is None else _MODEL_COST if detector.window else detector.cost
        self._roles = frozenset() if detector is None else detector.roles
        self.whole = self._judge is not None
        self.heavy = self._judge is not None and self._judge.heavy

    def bound(self, exchange: Exchange) -> Guard | None:
        """The guardrail for one exchange; None if it has nothing to find in it."""
        if self._guardrail is None:
            return self
        guardrail = _tried(self._guardrail.for_exchange, exchange)
        return self if guardrail is self._guardrail else None if guardrail is None else self.using(guardrail)

    def using(self, guardrail: Guardrail) -> Guard:
        """The same guardrail with another way to find."""
        found = copy(self)
        found._use(guardrail)  # noqa: SLF001
        return found

    @property
    def patterns(self) -> Sequence[str]:
        """See `Detector.patterns`."""
        return () if self._detector is None else self._detector.patterns

    @property
    def services(self) -> Sequence[Service]:
        asking = self.remote or self.replacer
        return asking.services if asking is not None else ()

    @property
    def most_calls(self) -> int:
        """Most calls to its service at a time."""
        assert isinstance(self.settings, RemoteSettings)
        return self.settings.max_calls

    @property
    def measures(self) -> bool:
        return self._measure is not None and "input" in self.on

    @property
    def on_request(self) -> bool:
        """True if the guardrail searches the text of requests."""
        return not self.measures and self.replacer is None and not self.on.isdisjoint(_REQUESTS)

    @property
    def on_answer(self) -> bool:
        return not self.on.isdisjoint(_ANSWERS)

    def action_of(self, kind: str) -> str:
        """The action for findings of a kind."""
        return self._actions.get(kind, self.action)

    def by_action(self, kinds: Mapping[str, int]) -> Mapping[str, dict[str, int]]:
        """Counts of findings by action, the strongest action first."""
        found: dict[str, dict[str, int]] = {}
        for action in ACTIONS:
            if mine := {kind: count for kind, count in kinds.items() if self.action_of(kind) == action}:
                found[action] = mine
        return found

    def reads_input(self, role: str) -> bool:
        return ("input" in self.on or role in TOOL_ROLES) and (not self._roles or role in self._roles)

    def skips(self, text: str, role: str) -> str:
        """See `Detector.skips`."""
        return self._detector.skips(text, role) if self._detector is not None and self.reads_input(role) else ""

    def reads_output(self, *, call: bool) -> bool:
        return "output" in self.on or call

    def reads_whole(self, role: str, tool: str, *, answer: bool) -> bool:
        """True for a text of an answer that is judged once it is complete."""
        return self._judge is not None and role != TOOL_NAME and _tried(self._judge.reads, role, tool, answer)

    # --- finding

    def judge(self, whole: Whole) -> Sequence[str]:
        """The kinds of the findings in a complete text."""
        assert self._judge is not None
        return _tried(self._judge.judge, whole)

    def rule(self, tool: str, kind: str) -> str:
        """The rule of a finding in a call of `tool`, as a sentence; empty without one."""
        text = "" if self._judge is None else self._judge.rules(tool).get(kind, "")
        return f" The {text}." if text else ""

    def measure(self, exchange: Exchange) -> Sequence[Excess]:
        assert self._measure is not None
        return _tried(self._measure.measure, exchange)

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:
        """The findings of the service in each passage, up to `deadline` (seconds, monotonic)."""
        assert self.remote is not None
        assert isinstance(self.settings, RemoteSettings)
        return await asked(self.settings, self.remote, passages, context, deadline)

    def hits(self, text: str, role: str, where: str, deadline: float = math.inf) -> Sequence[Hit]:
        """The findings in `text` as written, and in its normal form, in the order of their beginnings. Checks the
        deadline (seconds, monotonic) after each `_TURN` findings.
        """
        if self._detector is None:
            return ()
        found: dict[tuple[int, int, str], float] = {}
        try:
            plain = normalised(text)
            for form in (text,) if plain is text else (text, plain):
                back: Sequence[int] = ()
                for count, finding in enumerate(self._detector.find(form, role, where), 1):
                    start, end = finding.span
                    if not 0 <= start <= end <= len(form):
                        raise ValueError("a span outside of the text")
                    if form is not text:
                        back = back or offsets(text)
                        start, end = back[start], back[end]
                    key = start, end, finding.kind
                    found[key] = max(finding.score, found.get(key, 0.0))
                    if count % _TURN == 0:
                        _check(deadline)
                    if self._is_full(len(found)):
                        return _sorted(found)
        except Failure:
            raise
        except Exception as error:
            raise Failure("error") from error
        return _sorted(found)

    def _is_full(self, count: int) -> bool:
        """True when the search for findings can stop. Raises Failure if a mask would miss further findings."""
        if count > self.settings.max_findings and self.masks:
            raise Failure("too_many")
        return count >= self.settings.max_findings and not self.masks

    def held(self, text: str) -> int:
        """Characters at the end of `text` in which an incomplete match may begin."""
        if self._detector is None:
            return 0
        plain = normalised(text)
        wanted = max(0, min(_tried(self._detector.hold, plain), len(plain)))
        if plain is text:
            return wanted
        raw = max(0, min(_tried(self._detector.hold, text), len(text)))
        return max(raw, reach(text, wanted))

    def all_hits(self, text: str, role: str, where: str, deadline: float) -> Sequence[Hit]:
        """The findings in a whole text. Long texts are searched piece by piece, up to `deadline` (seconds,
        monotonic).
        """
        size = len(text)
        if size <= (self.window or PIECE):
            _check(deadline)
            return self.hits(text, role, where, deadline)
        found: dict[tuple[int, int, str], float] = {}
        step = max(1, self.window // 2) if self.window else PIECE
        for start in range(0, max(1, size - step) if self.window else size, step):
            _check(deadline)
            if self.window:
                hits: Sequence[Hit] = _shifted(
                    self.hits(text[start : start + self.window], role, where, deadline), start
                )
            else:
                hits = piece_hits(self, text, start, start + PIECE, role=role, where=where, deadline=deadline)
            for hit in hits:
                found[hit[:3]] = max(hit.score, found.get(hit[:3], 0.0))
            if self._is_full(len(found)):
                break
        return _sorted(found)


def _tried(work: Callable[..., Result], *given: Any) -> Result:
    """The result of a guardrail's work. Raises Failure for any exception in it."""
    try:
        return work(*given)
    except TimeoutError as error:
        raise Failure("timeout") from error
    except Exception as error:
        raise Failure("error") from error


def piece_hits(
    guard: Guard,
    text: str,
    start: int,
    end: int,
    *,
    base: int = 0,
    role: str = "assistant",
    where: str = "",
    deadline: float = math.inf,
) -> Sequence[Hit]:
    """The findings that begin in [start, end), or reach into it; `text` is the known part of the text, from `base` on.
    Findings depend only on the text up to the end of the longest match, wherever the text was cut.
    """
    first = max(base, start - guard.longest)
    last, known = end + guard.longest + 1, base + len(text)
    while True:
        hits = _shifted(guard.hits(text[first - base : last - base], role, where, deadline), first)
        found = [hit for hit in hits if start <= hit.start < end or first < hit.start < start < hit.end]
        if last >= known or last - end > MOST_LONGEST or not any(hit.end >= last for hit in found):
            return found
        last = end + 2 * (last - end)  # a match continues after the text read so far


def _shifted(hits: Sequence[Hit], by: int) -> list[Hit]:
    return [hit.shifted(by) for hit in hits]


def _sorted(found: Mapping[tuple[int, int, str], float]) -> list[Hit]:
    return [Hit(*key, found[key]) for key in sorted(found)] if found else []


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Failure("timeout")

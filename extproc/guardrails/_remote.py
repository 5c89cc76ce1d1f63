"""Guardrails that ask a service: their settings, the parts of text for one call, and findings by passage.

    passages ─► ask() ─► batches of parts ─► a call each, side by side (`wire/outbound/service.py`) ─► findings

An answer that is no verdict is a `Failure`; `failure: closed | open` decides what follows.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field, model_validator

from extproc.guardrails._base import Finding, Guardrail, GuardrailSettings, Ruling, UnmaskableSettings
from extproc.guardrails._results import ReadResult, Results
from extproc.upstream.providers import ProviderSettings
from extproc.wire.outbound.service import Failure, Service, bounded, together
from extproc.words.dialect import Result as ToolResult
from extproc.words.values import PositiveDuration, Secret, Size

_MOST_STEPS = 10_000  # most comparisons of words in the search for changes; beyond it the rest counts as one change
_NEAR = 300  # characters after a change in which two texts must agree again; otherwise all the rest is one change
_MOST_FINDINGS = 10_000  # most findings in one passage
_MOST_MESSAGE = 300  # most characters of a service's message for the client
_token = re.compile(r"\w+|\s+|[^\w\s]").findall
_unkind = re.compile(r"[^A-Za-z0-9_.:/-]+")


class Passage(NamedTuple):
    """Text to judge. `where` is its place in the body, a path."""

    text: str
    role: str
    where: str


@dataclass(slots=True, frozen=True)
class Context:
    """Facts about the text's exchange, for services that get them. `on`: input or output."""

    on: str
    exchange: str = ""
    consumer: str = ""
    model: str = ""


@dataclass(slots=True, frozen=True)
class Around:
    """Settings beyond those of a guardrail: providers, the gateway's own address, the keys of consumers, and the names
    of models.
    """

    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    door: str = "http://127.0.0.1:10000"
    keys: Mapping[str, Secret] = field(default_factory=dict)
    models: Collection[str] = ()
    private: str = ""  # Envoy's unix socket for questions that Envoy signs


class Remote(Protocol):
    """A detector that asks a service."""

    @property
    def services(self) -> Sequence[Service]: ...

    async def ask(self, passages: Sequence[Passage], context: Context, deadline: float) -> Sequence[Sequence[Finding]]:
        """The findings in each passage. `deadline` is in seconds, monotonic. Raises Failure."""
        ...


@runtime_checkable
class Replacer(Protocol):
    """Replaces tool results, before a model reads them, by a service's answers about them."""

    @property
    def services(self) -> Sequence[Service]: ...

    def meant(self, tool: str) -> bool:
        """True if results of the tool are replaced."""
        ...

    def read(self, found: Sequence[ToolResult], consumer: str) -> Sequence[ReadResult]:
        """The texts of results, and their references. May run on any thread."""
        ...

    async def shown(
        self, found: Sequence[ReadResult], consumer: str, results: Results, deadline: float
    ) -> Sequence[str]:
        """The text that replaces each result. `results` holds the known results. Raises Failure."""
        ...


def most_text(default: int) -> Any:
    """The setting `max_text`."""
    return Field(
        default,
        ge=1_000,
        le=20_000_000,
        description="Most characters of one request, or of one part of an answer, that are sent to the service. Longer "
        "text counts as a failure of the guardrail.",
    )


def window_of(default: int) -> Any:
    """The setting `window`."""
    return Field(
        default,
        ge=100,
        le=16384,
        description="Characters of a streamed answer that are judged together, 100 to 16384. The text waits for its "
        "window. A larger window costs fewer calls and makes answers less smooth.",
    )


class RemoteSettings(GuardrailSettings):
    """A guardrail that asks a service."""

    tls_ca: str | None = Field(
        None,
        description="PEM file of certificate authorities that verify the service. Default: the system's. Set it for a "
        "private certificate.",
    )
    max_calls: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most calls to the service at a time, in one process. A further one counts as a failure of the "
        "guardrail.",
    )
    max_text: int = most_text(262_144)
    max_answer: Size = Field(
        4 << 20,
        ge=1 << 10,
        le=64 << 20,
        description="Largest answer of the service, `1KiB` to `64MiB`. A larger one counts as a failure.",
    )
    window: int = window_of(1000)
    overlap: int = Field(
        200,
        ge=0,
        le=4096,
        description="Characters that a window of a streamed answer shares with the one before it, at most a third of "
        "`window`. Longer findings may be missed where two windows meet.",
    )
    longest_wait: PositiveDuration = Field(
        1.0,
        le=60,
        description="Longest time that the text of a streamed answer waits for a full window. Then the next event has "
        "it judged as it is.",
    )

    @model_validator(mode="after")
    def _overlaps(self) -> RemoteSettings:
        if 3 * self.overlap > self.window:
            raise ValueError("overlap is at most a third of window")
        return self

    @property
    def asks_as(self) -> str:
        """The consumer in whose name the guardrail asks the gateway itself; empty if it asks another service."""
        return ""

    def asks(self, around: Around) -> str:
        """The service that gets the text, for people: its host, or a model."""
        raise NotImplementedError

    def through_envoy(self, providers: Mapping[str, ProviderSettings]) -> str:  # noqa: ARG002
        """The provider whose credentials Envoy signs the questions with; empty if this process sends them itself."""
        return ""

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Contradictions with other settings: (key, message)."""
        yield from ()

    def doubts(self) -> Iterator[tuple[str, str]]:
        """Lints: (key, message)."""
        yield from ()

    def connect(self, around: Around) -> Remote | Replacer:
        """The detector. Opens no connection yet."""
        raise NotImplementedError

    def build(self) -> Guardrail:
        raise NotImplementedError("a service is asked with connect")


class JudgingSettings(UnmaskableSettings, RemoteSettings):
    """A guardrail whose service judges whole texts."""


class MaskingSettings(RemoteSettings):
    """A guardrail whose service replaces text, or refuses it."""

    action: Literal["block", "mask", "annotate", "audit"] = Field(
        "mask",
        description="Effect of a finding. `mask`: text is replaced, or refused where the service says so. `block`: "
        "both are refused. `annotate`: recorded, and told in the header `x-ai-guardrails` of the answer. `audit`: "
        "recorded.",
    )


async def asked(
    settings: RemoteSettings, remote: Remote, passages: Sequence[Passage], context: Context, deadline: float
) -> Sequence[Sequence[Finding]]:
    """The findings of a service, checked. Raises Failure for any exception."""
    if sum(len(passage.text) for passage in passages) > settings.max_text:
        raise Failure("too_long")
    found = await bounded(remote.ask(passages, context, deadline), deadline)
    if len(found) != len(passages):
        raise Failure("bad_answer")
    for passage, findings in zip(passages, found, strict=True):
        if any(not 0 <= one.span[0] <= one.span[1] <= len(passage.text) for one in findings):
            raise Failure("bad_answer")
    return found


class PassagePart(NamedTuple):
    """A piece of a passage: the index of the passage, the piece's place in it, and its text."""

    number: int
    start: int
    text: str

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span in the passage of a span in this part."""
        return self.start + start, self.start + end


def parts(passages: Sequence[Passage], size: int, overlap: int = 200) -> Iterator[PassagePart]:
    """The passages in pieces of at most `size` characters. The pieces of one passage overlap."""
    for index, passage in enumerate(passages):
        text = passage.text
        for start in range(0, max(1, len(text) - overlap), size - overlap):
            yield PassagePart(index, start, text[start : start + size])


def batches(passages: Sequence[Passage], size: int, most: int = 1000) -> Iterator[Sequence[PassagePart]]:
    """Batches of parts for one call: at most `size` characters and `most` parts."""
    batch: list[PassagePart] = []
    room = size
    for part in parts(passages, size):
        if batch and (len(part.text) + 1 > room or len(batch) >= most):
            yield batch
            batch, room = [], size
        batch.append(part)
        room -= len(part.text) + 1
    if batch:
        yield batch


Found = tuple[int, str | Finding]
"""The index of a passage, and a finding in it; a kind alone is a finding in the whole passage."""


async def gathered(
    passages: Sequence[Passage], calls: Sequence[Callable[[], Awaitable[Sequence[Found]]]]
) -> Sequence[Sequence[Finding]]:
    """The findings of calls about parts, by passage. Parts overlap, so a finding may come twice. Raises Failure, also
    for too many findings, because none may be left out.
    """
    sets: list[dict[Finding, None]] = [{} for _ in passages]
    for found in await together(calls):
        for index, one in found:
            sets[index][all_of(passages[index], one) if isinstance(one, str) else one] = None
            if len(sets[index]) > _MOST_FINDINGS:
                raise Failure("bad_answer")
    return [[*each] for each in sets]


def all_of(passage: Passage, kind: str, **more: Any) -> Ruling:
    """A ruling on a whole passage."""
    return Ruling(kind_name(kind), (0, len(passage.text)), **more)


def kind_name(said: str) -> str:
    """A service's word for a finding, for logs and labels."""
    return _unkind.sub("_", said[:64]).strip("_") or "finding"


def message(said: str | None) -> str:
    """A service's words for the client, on one line."""
    return "" if said is None else " ".join(said.split())[:_MOST_MESSAGE]


def changes(old: str, new: str, kind: str) -> Sequence[Ruling]:
    """The replacements that turn `old` into `new`: small ones, if the texts soon agree again."""
    if old == new or not old:
        return ()
    found: list[Ruling] = []
    steps = _MOST_STEPS
    last = _same(old[::-1], 0, new[::-1], 0)
    at = to = 0
    while True:
        same = _same(old, at, new, to)
        at, to = at + same, to + same
        left, right = len(old) - last - at, len(new) - last - to
        if left <= 0 or right <= 0:  # the rest was removed or inserted
            overlap = min(left, right, 0)  # characters equal at both ends may be counted twice
            left, right = left - overlap, right - overlap
            if left or right:
                found.append(_replacement(old, at, left, new[to : to + right], kind))
            return found
        gone, come, steps = _next_agreement(_tokens(old, at, left), _tokens(new, to, right), steps)
        gone, come = (left, right) if gone < 0 else (gone, come)
        found.append(_replacement(old, at, gone, new[to : to + come], kind))
        at, to = at + gone, to + come


def _same(old: str, at: int, new: str, to: int) -> int:
    """The number of characters that two texts have in common from the given places on."""
    done, size = 0, 64
    most = min(len(old) - at, len(new) - to)
    while size and done < most:
        if old.startswith(new[to + done : to + done + size], at + done) and done + size <= most:
            done, size = done + size, 2 * size
        else:
            size //= 2
    return done


def _tokens(text: str, at: int, size: int) -> Sequence[str]:
    """The words near a place. The last word may be cut, so it is left out if more text follows."""
    found: list[str] = _token(text[at : at + min(size, _NEAR)])
    return found if size <= _NEAR else found[:-1]


def _next_agreement(old: Sequence[str], new: Sequence[str], steps: int) -> tuple[int, int, int]:
    """The characters to skip on both sides until two words in a row are equal, and the remaining steps; -1 if there is
    no such place nearby.
    """
    for distance in range(1, len(old) + len(new)):
        for gone in range(max(0, distance - len(new)), min(distance, len(old)) + 1):
            come = distance - gone
            steps -= 1
            if steps < 0:
                return -1, -1, 0
            if (pair := old[gone : gone + 2]) and pair == new[come : come + 2]:
                return sum(map(len, old[:gone])), sum(map(len, new[:come])), steps
    return -1, -1, steps


def _replacement(old: str, at: int, size: int, said: str, kind: str) -> Ruling:
    """A replacement of at least one character: an edit needs one."""
    if size:
        return Ruling(kind, (at, at + size), replacement=said)
    if at:
        return Ruling(kind, (at - 1, at), replacement=old[at - 1] + said)
    return Ruling(kind, (0, 1), replacement=said + old[0])

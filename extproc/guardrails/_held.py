"""Calls in answers that wait for a person: guardrails with `action: ask`.

   events before the first call leave ─► the others wait ─► at the answer's end its calls are put together
   ─► each call with a finding becomes a question (access/questions) ─► all approved: the events leave

An approval is for one call as the client would get it: tool, arguments, guardrail with its settings, consumer, run. It
is used up before the events leave. The same call in a later answer finds its question, at any replica. While an answer
waits its client gets comments. At most `limits.buffered_response` bytes of its events wait.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from extproc.access.questions import (
    APPROVAL,
    CalledTool,
    Question,
    Questions,
    State,
    TooManyQuestionsError,
    fingerprint,
    question_about,
)
from extproc.guardrails._base import TOOL_CALL, TOOL_NAME, AskingSettings, Whole
from extproc.guardrails._guard import Guard
from extproc.guardrails._guarding import GUARDING
from extproc.guardrails._parts import Parts
from extproc.guardrails._source import Written
from extproc.stores import StoreError
from extproc.wire.framing import OVERSIZE, Frame, Framing
from extproc.wire.outbound.service import Failure
from extproc.words.contract import GUARDRAILS
from extproc.words.errors import (
    APPROVAL_DENIED,
    APPROVAL_REQUIRED,
    GUARDRAIL_BLOCKED,
    GUARDRAIL_UNAVAILABLE,
    STORE_UNAVAILABLE,
    Refusal,
)
from extproc.words.exchange import Exchange, Verdict
from extproc.words.runs import named_by
from extproc.words.said import ArgumentPart, Called, Closed, Piece
from extproc.words.values import show_size

SCOPE = "!answer"  # no name of a budget begins so
_DONE = b"[DONE]"
_HOLDER = object()  # begins the key of a call that stands in one object
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True)
class _Record:
    """A call whose name and arguments are texts; `repeats`: complete arguments that an event repeats."""

    name: str = ""
    text: str = ""
    repeats: list[str] = field(default_factory=list)
    json: bool = False


class AnswerCalls:
    """Puts the calls of one answer together."""

    def __init__(self) -> None:
        self._records: dict[Any, _Record] = {}
        self._called: Counter[tuple[str, str]] = Counter()  # calls whose arguments are objects
        self._unnamed: Counter[tuple[str, str]] = Counter()  # those of tools without a name, which events repeat
        self._parts = Parts()
        self._holders: list[Any] = []  # keeps the holders, whose ids are names of calls

    def add(self, parts: Iterable[Piece | Called | ArgumentPart | Closed]) -> bool:
        """Read the parts of an event. True if one belongs to a call."""
        unnamed: Counter[tuple[str, str]] = Counter()
        found = False
        for one in parts:
            if isinstance(one, Called):
                (self._called if one.named else unnamed)[_key(one)] += 1
            elif isinstance(one, ArgumentPart):
                if one.tool is not None:  # the call before may have no end event
                    self._end(one.channel)
                for _ in self._parts.add(one):
                    """The texts are in the call once it is complete."""
                if one.ends:
                    self._end(one.channel)
            elif isinstance(one, Piece) and one.call:
                self._add_piece(one)
            else:
                continue
            found = True
        self._unnamed |= unnamed
        return found

    def _add_piece(self, piece: Piece) -> None:
        if piece.of is None:
            self._holders.append(piece.holder)
        key = (_HOLDER, id(piece.holder)) if piece.of is None else piece.of
        record = self._records.setdefault(key, _Record())
        if piece.name:
            record.name = piece.value if piece.again else record.name + piece.value
        elif not piece.whole:
            """A field beside the arguments."""
        elif piece.again:
            record.repeats.append(piece.value)
            record.json = record.json or piece.json
        else:
            record.text += piece.value
            record.json = record.json or piece.json

    def _end(self, prefix: tuple[Any, ...]) -> None:
        self._called.update(_key(call) for _, call in self._parts.complete(prefix))

    def found(self) -> Sequence[tuple[str, str, bool, int]]:
        """Tool, arguments as text, whether they are JSON, and a number that tells equal calls apart, of each call of
        the whole answer. A call whose name alone is a text has no arguments, or those of an object beside the name. The
        end of a stream repeats its calls, as objects of their own.
        """
        self._end(())
        streamed: Counter[tuple[str, str]] = Counter()
        whole: Counter[tuple[str, str]] = Counter()
        json = dict.fromkeys((*self._called, *self._unnamed), True)
        for key, record in self._records.items():
            for text in {record.text, *record.repeats} - {""} or {""}:
                (whole if key[0] is _HOLDER else streamed)[record.name, text] += 1
                json[record.name, text] = record.json or json.get((record.name, text), False)
        counts = streamed | whole
        for (tool, _), count in self._called.items():
            counts[tool, ""] -= count
        counts = +counts + self._called + self._unnamed
        return [(*call, json[call], number) for call, count in counts.items() for number in range(count)]


def _key(call: Called) -> tuple[str, str]:
    return call.tool if isinstance(call.tool, str) else "", _encode(call.arguments).decode()


@dataclass(slots=True)
class _Asked:
    """A call that a person is asked about."""

    guard: Guard
    tool: str
    arguments: str
    number: int  # tells equal calls of an answer apart
    question: Question | None = None


@dataclass(slots=True)
class Held:
    """The calls of one answer."""

    guards: Sequence[Guard]
    calls: AnswerCalls = field(default_factory=AnswerCalls)
    frames: list[Frame] = field(default_factory=list)
    size: int = 0  # bytes of `frames`
    asked: Sequence[_Asked] = ()
    since: float = 0.0  # time of the questions, monotonic seconds


class HoldCalls:
    """Holds the events of calls back until people have approved the calls that guardrails with `action: ask` found."""

    changes_length = False
    guards = parses = True

    def __init__(self, questions: Questions | None, tell: Callable[[Verdict], None], most: int) -> None:
        self._questions = questions
        self._tell = tell
        self._most = most

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        guarding = exchange.features.get(GUARDING)
        guards = [] if guarding is None else [guard for guard in guarding.guards if guard.asks]
        if guarding is not None and guards:
            guarding.held = Held(guards)
        return bool(guards)

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:
        held = self._held(exchange)
        out: list[Frame] = []
        try:
            for event in events:
                if held.guards and (self._calls(exchange, held, event) or held.frames):
                    held.frames.append(event)
                    held.size += len(event.raw)
                    if held.size > self._most:
                        self._fail(exchange, held, f"its call is larger than {show_size(self._most)}")
                else:
                    out += (*held.frames, event)
                    held.frames.clear()
            if end and held.frames and exchange.answer.cut is None:
                held.asked = list(self._findings(exchange, held))
                held.since = time.monotonic()
            if end and not held.asked and exchange.answer.cut is None:
                out += held.frames
        except Refusal as refusal:  # keep the refusal: raised, it would let all these events leave
            exchange.answer.cut = refusal
        return out

    def _held(self, exchange: Exchange) -> Held:
        held = exchange.features[GUARDING].held
        assert held is not None, "see needed"
        return held

    def _calls(self, exchange: Exchange, held: Held, event: Frame) -> bool:
        """True if the event has a part of a call."""
        if event.data is None:
            if event.name == OVERSIZE or event.edges is not None:
                self._fail(exchange, held, "an event is too large to be read")
            return False
        if event.data == _DONE or not event.data.strip():
            return False
        if not isinstance(tree := event.parse(), dict | list):
            self._fail(exchange, held, "an event is not JSON")
            return False
        return held.calls.add(exchange.request.dialect.said(tree))

    def _fail(self, exchange: Exchange, held: Held, why: str) -> None:
        """Handle an answer that cannot be read: it passes. Raises Refusal if a guardrail must not fail."""
        guards, held.guards = held.guards, ()
        for guard in guards:
            self._failed(exchange, guard, why, "unreadable")

    def _failed(self, exchange: Exchange, guard: Guard, why: str, reason: str) -> None:
        self._note(exchange, Verdict(guard.name, "output", "failed", reason=reason))
        if guard.closed:
            message = f"Guardrail {guard.name!r} could not check the answer: {why}; it was withheld."
            raise Refusal(GUARDRAIL_UNAVAILABLE, message, headers={GUARDRAILS: f"{guard.name}:failed"})

    def _findings(self, exchange: Exchange, held: Held) -> Iterator[_Asked]:
        """The calls to ask about. Raises Refusal for a call that a guardrail blocks."""
        for guard in held.guards:
            counts: Counter[str] = Counter()
            try:
                for tool, text, json, number in held.calls.found():
                    kinds = _kinds(guard, tool, text, json=json)
                    counts.update(kinds)
                    actions = {guard.action_of(kind) for kind in kinds}
                    if "block" in actions:
                        self._note(exchange, Verdict(guard.name, "output", "block", counts))
                        message = f"Guardrail {guard.name!r} matched the call of {tool!r}; the answer was withheld."
                        raise Refusal(GUARDRAIL_BLOCKED, message, headers={GUARDRAILS: f"{guard.name}:block"})
                    if "ask" in actions:
                        yield _Asked(guard, tool, text, number)
            except Failure as failure:
                self._failed(exchange, guard, "it failed", failure.reason)
            for action, mine in guard.by_action(counts).items():
                self._note(exchange, Verdict(guard.name, "output", action, mine))

    def _note(self, exchange: Exchange, verdict: Verdict) -> None:
        exchange.findings.add(verdict)
        self._tell(verdict)

    # --- the decision

    def waits(self, exchange: Exchange) -> bool:
        """See `framing.events.EventStage`."""
        return bool(self._held(exchange).asked)

    async def released(self, exchange: Exchange) -> Sequence[Frame] | None:
        """See `framing.events.EventStage`. Raises Refusal if a call is not approved."""
        held = self._held(exchange)
        try:
            states = [await self._state(exchange, each) for each in held.asked]
            for each, state in zip(held.asked, states, strict=True):
                if state is not State.APPROVED:
                    wait = _settings(each.guard).approval.wait
                    if state is State.OPEN and time.monotonic() < held.since + wait:
                        return None
                    raise _pending(each)
            for each in held.asked:
                assert self._questions is not None and each.question is not None, "it was asked"  # noqa: PT018
                if await self._questions.use(each.question) is None:
                    raise _pending(each)
        except StoreError:
            message = (
                "The answer calls a tool that needs a person's approval, which cannot be asked for now: try again."
            )
            raise Refusal(STORE_UNAVAILABLE, message) from None
        held.asked = ()
        return held.frames

    async def _state(self, exchange: Exchange, each: _Asked) -> State:
        """The state of the question about a call. Raises Refusal, StoreError."""
        if self._questions is None:
            raise _pending(each)
        settings = _settings(each.guard).approval
        state: State | None
        if each.question is None:
            if len(each.arguments.encode(errors="surrogatepass")) > settings.max_arguments:
                text = f"nobody is asked about arguments of more than {show_size(settings.max_arguments)}"
                raise _refusal(APPROVAL_DENIED, each, text)
            draft, expires = draft_of(exchange, each), settings.expires
            try:
                each.question, state = await self._questions.ask(draft, lambda now: now + expires, settings.webhook)
            except TooManyQuestionsError:
                raise _refusal(APPROVAL_REQUIRED, each, "too many questions are open: try again later") from None
        else:
            state = await self._questions.wait(exchange, each.question, 0.0)
        if state is State.DENIED:
            known = await self._questions.find(each.question.id) or each.question
            raise _refusal(APPROVAL_DENIED, each, f"a person denied it{f': {known.reason}' if known.reason else ''}")
        return state or State.OPEN


def _kinds(guard: Guard, tool: str, text: str, *, json: bool) -> Sequence[str]:
    """The kinds of findings in a call. Raises Failure."""
    written = Written.json() if json else Written()
    written.add(text)
    deadline = time.monotonic() + guard.settings.timeout
    hits = [
        *guard.all_hits(tool, TOOL_NAME, "call", deadline),
        *guard.all_hits(written.text, TOOL_CALL, "call", deadline),
    ]
    kinds = [hit.kind for hit in hits]
    if guard.reads_whole(TOOL_CALL, tool, answer=False):
        kinds += guard.judge(Whole(text, TOOL_CALL, "call", tool, json))
    return kinds


def draft_of(exchange: Exchange, each: _Asked) -> Question:
    """The question about a call, not asked yet."""
    run, data = named_by(exchange.money.labels), each.arguments.encode(errors="surrogatepass")
    facts = (each.guard.settings.model_dump_json(), exchange.consumer.name, run, each.tool, str(each.number))
    model, digest = exchange.request.ask.model[:128], hashlib.sha256(data).hexdigest()
    called = CalledTool("", model, each.tool[:256], "", each.arguments, digest, run)
    return question_about(exchange, fingerprint(SCOPE, *facts, body=data), SCOPE, call=called)


def _settings(guard: Guard) -> AskingSettings:
    assert isinstance(guard.settings, AskingSettings), "no other guardrail asks"
    return guard.settings


def _pending(each: _Asked) -> Refusal:
    text = "send the request again once a person has approved it: an equal call then passes"
    return _refusal(APPROVAL_REQUIRED, each, text)


def _refusal(kind: Any, each: _Asked, text: str) -> Refusal:
    told = {GUARDRAILS: f"{each.guard.name}:block"}
    about = f"The answer calls {each.tool!r}, which needs a person's approval"
    if each.question is not None:
        told[APPROVAL] = each.question.id
        about += f" (approval {each.question.id})"
    return Refusal(kind, f"{about}: {text.rstrip('.')}.", headers=told)

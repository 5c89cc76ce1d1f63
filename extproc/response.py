"""The answer on its way back: headers for the client, then the body, event by event.

   head    Origin, Tell, RejectedCredential, CoolDown, BadAnswer, Read
   body    bytes ─► framing ─► events ─► Count, HideUsage, Annotate, Extend ─► bytes

A plain JSON answer is a stream of one event. An event leaves as soon as it is whole, as the bytes it came in unless a
stage edits it. A stage that has nothing to do for an answer is not in that answer's list.
"""

from __future__ import annotations

import inspect
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from extproc import prices
from extproc.budgets.options import charged
from extproc.dialects import rates
from extproc.framing import BOM, EMPTY, EMPTY_LIMIT, Frame, Framing
from extproc.framing.aws_eventstream import AWSEventStream
from extproc.framing.inflate import ENCODINGS, Inflate
from extproc.framing.intake import Intake
from extproc.framing.json import WholeBody
from extproc.framing.json_array import JSONArray
from extproc.framing.sse import KEEP_ALIVE, SSE
from extproc.prices import written
from extproc.words import contract, verdicts
from extproc.words.actions import Continue
from extproc.words.chain import passed_over
from extproc.words.dialect import Dialect, Report
from extproc.words.errors import (
    PROVIDER_BAD_ANSWER,
    PROVIDER_CREDENTIAL_REJECTED,
    PROVIDER_TIMEOUT,
    Kind,
    Refusal,
    advice,
)
from extproc.words.exchange import Exchange, Price, Target
from extproc.words.tries import Try, outcome_of
from extproc.words.values import show_duration

TOLD = "x-ai-"
"""Prefix of the headers in which the gateway tells clients about an answer. Providers cannot set them."""
ORIGIN = TOLD + "error-origin"
UPSTREAM = "via_upstream"
"""Envoy's response code details of an answer that came through a cluster."""

MOST_INFLATED = 128 << 20
"""Bytes that a compressed answer may grow to."""
AMAZON = "application/vnd.amazon.eventstream"
_TOLD_USAGE = re.compile(rb"(?m)^" + re.escape(contract.USAGE_EVENT) + rb"(.*)\n\n")
"""A comment in which a try tells its usage."""
_encode = msgspec.json.encode


# --- the head of the answer


class Origin:
    """Writes `status`, `attempts` and `target`, the one that served; or `unreached`, where Envoy answered in a
    provider's place.

    Envoy's answer ends the list. It is in OpenAI's shape, so it is read where the client's path speaks another dialect.
    """

    def __call__(self, exchange: Exchange) -> Continue | None:
        response = exchange.response
        exchange.status, exchange.attempts = response.status, response.attempts
        if _from_provider(exchange):
            exchange.target = exchange.targets[min(response.attempts, len(exchange.targets)) - 1]
            return None
        exchange.unreached = "gateway" if exchange.attached else response.headers.get(contract.HOP) or "gateway"
        told = {ORIGIN: "gateway", **_missing(advice(response.status), response.headers), **named(exchange)}
        told |= passed_over(exchange.skipped)
        withheld = internal(response.headers)
        if response.ended or type(exchange.dialect).error is Dialect.error:
            return Continue(told, withheld)
        exchange.reader = Rewording(exchange)
        return Continue(told, (*withheld, "content-length"), read_answer=True)


class Tell:
    """Writes `told`, the gateway's headers about this answer, and `withheld`, the provider's headers that the client
    does not get.
    """

    def __init__(self) -> None:
        self._rates = rates()

    def __call__(self, exchange: Exchange) -> None:
        target, headers = exchange.target, exchange.response.headers
        assert target is not None, "Origin found it"
        told = {
            TOLD + "provider": target.provider,
            TOLD + "model": target.model,
            TOLD + "attempts": str(exchange.attempts),
        }
        withheld = internal(headers)
        # Envoy writes the gateway's request id in its place
        if (request_id := headers.get("x-request-id")) is not None:
            told[TOLD + "provider-request-id"] = request_id
        ignored = None if exchange.attached else headers.get(contract.IGNORED)
        if ignored is not None or exchange.ignored:
            told[TOLD + "ignored"] = ",".join([*exchange.ignored, *([ignored] if ignored else [])])
        if exchange.guardrails and (found := verdicts.told(exchange)):
            told[verdicts.GUARDRAILS] = found
        if exchange.alert:
            told[TOLD + "budget"] = exchange.alert
        if exchange.downgraded:
            told[TOLD + "downgraded"] = exchange.downgraded
        if (limits := exchange.output_limits) and (cap := limits[exchange.targets.index(target)]) is not None:
            told[TOLD + "capped"] = str(cap)
        if exchange.rate:  # the provider's describe the gateway's account, and must not mix with these
            withheld += tuple([name for name in headers if name.startswith(self._rates)])
            told |= exchange.rate
        if exchange.dialect.request_id and exchange.dialect.request_id not in headers:
            told |= named(exchange)
        exchange.told, exchange.withheld = told, withheld


class RejectedCredential:
    """502 where the provider refused the gateway's credential: the client is not at fault."""

    def __call__(self, exchange: Exchange) -> None:
        if exchange.status in (401, 403):
            raise _bad_answer(
                exchange,
                PROVIDER_CREDENTIAL_REJECTED,
                "Provider {} refused the gateway's credential; its operator has to look at it.",
            )


class CoolDown:
    """Reports the answer's status in attach mode. Elsewhere Envoy's access log reports every try, failed ones too."""

    def __init__(self, heed: Callable[[Target, Try], None]) -> None:
        self._heed = heed

    def __call__(self, exchange: Exchange) -> None:
        if exchange.attached and (target := exchange.target) is not None:
            seconds, header = time.perf_counter() - exchange.started, exchange.response.headers.get("retry-after", "")
            number, status, outcome = exchange.attempts, exchange.status, outcome_of(exchange.status)
            told = (exchange.id, target.provider, target.name, number, status, outcome, seconds, seconds, header)
            self._heed(target, Try(*told, consumer=exchange.consumer.name))


class BadAnswer:
    """502 for a web page where an answer should be, for a status that HTTP does not have (RFC 9110, 15), and for a
    redirect: a client that followed it would send its key there.
    """

    def __call__(self, exchange: Exchange) -> None:
        if not 200 <= exchange.status < 600:
            raise _bad_answer(
                exchange, PROVIDER_BAD_ANSWER, "Provider {} answered with no status of HTTP; use another model."
            )
        if 300 <= exchange.status < 400:
            raise _bad_answer(
                exchange,
                PROVIDER_BAD_ANSWER,
                "Provider {} answered with a redirect, which the gateway does not follow; use another model.",
            )
        if exchange.status < 400 and exchange.response.headers.get("content-type", "").startswith("text/html"):
            raise _bad_answer(
                exchange, PROVIDER_BAD_ANSWER, "Provider {} answered with a web page; try again, or use another model."
            )


class Read:
    """Writes `report` and `reader` where the answer has something to read, and returns the action for Envoy.

    `cost` adds a header with the cost, where the cost is known before the body. `unread` is told of an answer that
    guardrails should read and cannot; it may refuse.
    """

    def __init__(
        self,
        events: Events,
        *,
        event_limit: int,
        body_limit: int,
        empty_limit: int,
        cost: bool,
        unread: Callable[[Exchange], None] = lambda _exchange: None,
        may_pass: bool = False,
        hold: Callable[[int], bool] = lambda _size: True,
    ) -> None:
        self._events = events
        self._hold = hold
        self._unread = unread
        self._event_limit = event_limit
        self._body_limit = body_limit
        self._empty_limit = empty_limit
        self._cost = cost
        self._may_pass = may_pass

    def __call__(self, exchange: Exchange) -> Continue:
        told, withheld, headers = exchange.told, exchange.withheld, exchange.response.headers
        if exchange.status >= 400:
            told[ORIGIN] = "provider"
            told |= {**_missing(advice(exchange.status), headers), **passed_over(exchange.skipped)}
            return Continue(told, withheld)
        encoding = headers.get("content-encoding", "identity")
        framing = framing_for(
            headers.get("content-type", ""),
            event_limit=self._event_limit,
            body_limit=self._body_limit,
            empty_limit=self._empty_limit,
            hold=self._hold,
        )
        readable = framing is not None and encoding in ("identity", *ENCODINGS)
        if exchange.guards and not exchange.response.ended and (not readable or isinstance(framing, AWSEventStream)):
            self._unread(exchange)
        if framing is None or exchange.response.ended or not readable:
            return Continue(told, withheld)
        if self._may_pass and contract.WATCHED in headers and not self._has_to_read(exchange, framing):
            exchange.unread = True
            return Continue(told, withheld)
        exchange.report = Report()
        if is_translated(exchange) and (usage := headers.get(contract.USAGE)) is not None:
            exchange.report.told_usage = told_usage = contract.decode_usage(usage.encode())
            if self._cost and (price := _price(exchange)) is not None:
                told[TOLD + "cost"] = prices.decimal(prices.cost(price, told_usage))
        inflate = Inflate(MOST_INFLATED) if encoding != "identity" else None
        if isinstance(framing, SSE) and exchange.ask.stream and exchange.dialect.array(exchange.request.path):
            exchange.array = JSONArray()
            told["content-type"] = "application/json; charset=UTF-8"
        exchange.reader = reader = self._events.reader(exchange, framing, inflate)
        if reader.changes_length:
            withheld += ("content-encoding", "content-length")
        return Continue(told, withheld, read_answer=True)

    def _has_to_read(self, exchange: Exchange, framing: Framing) -> bool:
        """False for an answer that Envoy follows and no stage has to see."""
        return not isinstance(framing, SSE) or is_translated(exchange) or bool(self._events.reason(exchange))


def named(exchange: Exchange) -> Mapping[str, str]:
    """The request's id in the header where the client's API has it, beside `x-request-id`, which Envoy sets."""
    name = exchange.dialect.request_id
    return {name: exchange.request_id} if name and exchange.request_id else {}


def _missing(wanted: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in wanted.items() if name not in headers}


def internal(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The names of headers that only the gateway may set."""
    return tuple([name for name in headers if name.startswith((contract.PREFIX, TOLD))])


def is_translated(exchange: Exchange) -> bool:
    """True when a try translated the answer into the client's API. Providers cannot forge the header that says so."""
    return contract.TRANSLATED in exchange.response.headers and not exchange.attached


def _from_provider(exchange: Exchange) -> bool:
    response = exchange.response
    return (
        exchange.forwarded
        and response.attempts > 0
        and (exchange.attached or contract.HOP not in response.headers)
        and response.details == UPSTREAM
    )


def _price(exchange: Exchange) -> Price | None:
    return charged(exchange)


def went_silent(seconds: float) -> Refusal:
    """The refusal of an answer that stopped for so long before its end."""
    text = f"The provider was silent for {show_duration(seconds)} in the middle of its answer: try again."
    return Refusal(PROVIDER_TIMEOUT, text)


def _bad_answer(exchange: Exchange, kind: Kind, message: str) -> Refusal:
    """The refusal of a provider's bad answer; `message` has a place for the provider's name."""
    return Refusal(kind, message.format(exchange.told[TOLD + "provider"]), headers=exchange.told | {ORIGIN: "provider"})


# --- the body, event by event


class EventStage(Protocol):
    """A stage of the events of an answer, with its settings in the constructor. It keeps no state: everything it knows
    of one answer is in the exchange.
    """

    changes_length: bool
    """True when a plain answer may leave longer or shorter than it came. A stream always may."""

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        """True when the stage has something to do for this answer."""
        ...

    def reason(self, exchange: Exchange) -> str:
        """The reason, for people, why a streamed answer has to be read for this stage; empty where it may pass."""
        ...

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Any:
        """The events that go on, of those that came together; `end` marks the last ones. It may be asynchronous. A
        Refusal ends the answer after the events already given.
        """
        ...


class Count:
    """Reads the answer's finish, errors and text into `report`, and the usage into each event that reports it."""

    changes_length = False

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return True

    def reason(self, exchange: Exchange) -> str:  # noqa: ARG002
        return ""  # Envoy's access log tells as much

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        report, observe = exchange.report, exchange.dialect.observe
        assert report is not None, "Read wrote it"
        before = report.usage
        for event in events:
            if event.data is None:
                self._count_unread(exchange, report, event)
                continue
            event.usage_only = observe(event.data, report)
            if report.usage is not before:
                event.usage = report.told_usage or report.usage
                if is_translated(exchange):  # a translation may have had to write zeros, without counts of the provider
                    report.usage = None
                before = report.usage
        return events

    def _count_unread(self, exchange: Exchange, report: Report, event: Frame) -> None:
        """Take in an event without data: a comment, perhaps a try's, or an event too long to be read."""
        if event.name == EMPTY:
            if is_translated(exchange) and (told := _TOLD_USAGE.findall(event.raw)):
                report.told_usage = contract.decode_usage(told[-1])
                report.told_at = report.output_bytes
                event.raw = _TOLD_USAGE.sub(b"", event.raw)
            return
        if event.edges is not None:
            exchange.dialect.observe_edges(event.edges.head, event.edges.tail, report)
        report.add_unread(event.raw)


class HideUsage:
    """Leaves out the event with the usage that the gateway asked for and the client did not."""

    changes_length = False

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        return exchange.usage_hidden and isinstance(framing, SSE)

    def reason(self, exchange: Exchange) -> str:
        return "the client did not ask for its usage, so that event is left out" if exchange.usage_hidden else ""

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        return [event for event in events if not event.usage_only]


class Annotate:
    """Writes the cost of the exchange into the usage that the client gets."""

    changes_length = True

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return _price(exchange) is not None and bool(exchange.dialect.usage_at)

    def reason(self, exchange: Exchange) -> str:
        targets = exchange.targets if exchange.target is None else (exchange.target,)
        priced = exchange.dialect.usage_at and any(target.price is not None for target in targets)
        return "its cost is written into it" if priced else ""

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        price = _price(exchange)
        for event in events:
            if price is not None and event.usage is not None and event.data is not None:
                cost = prices.decimal(prices.cost(price, event.usage))
                data = written.with_cost(event.data, cost, exchange.dialect.usage_at)
                event.raw, event.data = event.raw.replace(event.data, data, 1), data
        return events


class Extend:
    """Holds more of the budgets for a streamed answer that outgrows its reservation, or ends the answer: 402, 429 or
    503.
    """

    changes_length = False

    def __init__(self, extend: Callable[[Exchange], Awaitable[Refusal | None]], *, trusting: bool = False) -> None:
        self._extend = extend
        self._trusting = trusting  # providers keep to the limit in the request

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        reservation = exchange.reservation
        return reservation.held and reservation.enough < math.inf and not isinstance(framing, WholeBody)

    def reason(self, exchange: Exchange) -> str:
        reservation = exchange.reservation
        if not reservation.held or reservation.enough == math.inf:
            return ""
        if reservation.usual or reservation.output < reservation.output_tokens:
            return "a budget holds the usual output, and more as it grows"
        return "" if self._trusting else "a budget ends it where it passes its limit"

    async def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:
        report = exchange.report
        assert report is not None, "Read wrote it"
        if not end and report.output_bytes > exchange.reservation.enough:
            refusal = await self._extend(exchange)
            if refusal is not None:
                raise refusal
        return events


_Stage = tuple[EventStage, bool, Callable[[float], None]]  # (stage, True when asynchronous, observer of its seconds)


class Events:
    """The stages of events, in order. An answer gets those it needs; the time in each is observed once per answer."""

    def __init__(self, stages: Sequence[EventStage], observe: Callable[[str], Callable[[float], None]]) -> None:
        self._stages: Sequence[_Stage] = [
            (stage, inspect.iscoroutinefunction(type(stage).__call__), observe(type(stage).__name__))
            for stage in stages
        ]

    def reason(self, exchange: Exchange) -> str:
        """The reason why the streamed answer of an exchange has to be read; empty where it may pass."""
        if exchange.dialect.array(exchange.request.path):
            return "the client takes one JSON array"
        return next((reason for stage, *_ in self._stages if (reason := stage.reason(exchange))), "")

    def reader(self, exchange: Exchange, framing: Framing, inflate: Inflate | None = None) -> AnswerReader:
        """The reader of an exchange's answer, once its `report` is written."""
        stages = [entry for entry in self._stages if entry[0].needed(exchange, framing)]
        return AnswerReader(exchange, framing, stages, inflate)


class AnswerReader:
    """Reads one answer: cuts it into events and leads them through the stages."""

    __slots__ = ("_exchange", "_framing", "_intake", "_plain", "_seconds", "_stages")

    def __init__(self, exchange: Exchange, framing: Framing, stages: Sequence[_Stage], inflate: Inflate | None) -> None:
        self._exchange = exchange
        self._framing = framing
        self._intake = Intake(framing, inflate)
        self._plain = inflate is None and isinstance(framing, WholeBody)
        self._stages = stages
        self._seconds = [0.0] * len(stages)

    @property
    def changes_length(self) -> bool:
        """True when the body may leave longer or shorter than it came. A stream may: it can end early with an error."""
        return not self._plain or any(entry[0].changes_length for entry in self._stages)

    def close(self) -> None:
        """The answer is over, whole or not."""
        if isinstance(self._framing, WholeBody):
            self._framing.let_go()

    async def feed(self, chunk: bytes, end: bool, out: list[bytes]) -> bool:
        """See `Reader`."""
        intake, exchange, seconds = self._intake, self._exchange, self._seconds
        events = intake.take(chunk, end)
        end = intake.ended
        if not events and not end:
            return intake.more
        if end and intake.broken and exchange.report is not None:
            exchange.report.error = PROVIDER_BAD_ANSWER.code
        then = time.perf_counter()
        try:
            for index, (stage, is_async, _) in enumerate(self._stages):
                work = stage(exchange, events, end)
                events = await work if is_async else work
                now = time.perf_counter()
                seconds[index] += now - then
                then = now
        finally:
            out += self._written(events)
            report = exchange.report
            if exchange.first_token is None and report is not None and report.output_events:
                exchange.first_token = then - exchange.started
        if exchange.cut is not None:
            raise exchange.cut
        if end:
            if exchange.array is not None:
                out.append(exchange.array.end())
            for (_, _, observe), spent in zip(self._stages, seconds, strict=True):
                observe(spent)
        return intake.more

    def keep_alive(self) -> bytes | None:
        """Bytes for a client that has got nothing for a while: events that only waited for more, and a comment. None
        where nothing may leave: in other answers than streams, within an event, and before guardrails let the answer
        begin. Envoy takes no body before it has sent some itself. A byte order mark has to stay the first.
        """
        exchange, framing = self._exchange, self._framing
        if not isinstance(framing, SSE) or framing.parted or self._intake.lead in (None, BOM):
            return None
        events: Sequence[Frame] = ()
        for stage, is_async, _ in self._stages:
            if events and not is_async:  # an asynchronous one holds no events back, and has counted these
                events = stage(exchange, events, False)
            if (overdue := getattr(stage, "overdue", None)) is not None:
                if (waited := overdue(exchange)) is None:
                    return None
                events = waited
        comment = KEEP_ALIVE if exchange.dialect.comments else b""
        return b"".join(self._written(events)) + comment

    def _written(self, events: Sequence[Frame]) -> list[bytes]:
        """Events as they leave."""
        array = self._exchange.array
        return [event.raw for event in events] if array is None else array.items(events)


class Through:
    """Passes an answer on as it comes, where Envoy sends answers that nothing reads."""

    __slots__ = ()

    async def feed(self, chunk: bytes, end: bool, out: list[bytes]) -> bool:  # noqa: ARG002
        """See `Reader`."""
        out.append(chunk)
        return False


THROUGH = Through()


class Rewording:
    """Reads an error that Envoy wrote, and gives it back in the dialect of the client's path."""

    __slots__ = ("_exchange", "_parts")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parts: list[bytes] = []

    async def feed(self, chunk: bytes, end: bool, out: list[bytes]) -> bool:
        """See `Reader`."""
        self._parts.append(chunk)
        if end:
            out.append(reworded(self._exchange, b"".join(self._parts)))
        return False


class _Error(msgspec.Struct):
    message: str
    type: str
    code: str


class _EnvoyAnswer(msgspec.Struct):
    error: _Error


_decode = msgspec.json.Decoder(_EnvoyAnswer).decode


def reworded(exchange: Exchange, body: bytes) -> bytes:
    """An error that Envoy wrote in OpenAI's shape, in the dialect of the client's path; else `body` unchanged."""
    try:
        said = _decode(body).error
    except ValueError:
        return body
    kind = Kind(exchange.status, said.type, said.code)
    return _encode(exchange.dialect.error(kind, said.message, None))


def framing_for(
    content_type: str,
    *,
    event_limit: int,
    body_limit: int,
    empty_limit: int = EMPTY_LIMIT,
    hold: Callable[[int], bool] = lambda _size: True,
) -> Framing | None:
    """The framing of an answer, or None when it is of a kind the gateway cannot read. `hold`: see `WholeBody`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return SSE(event_limit, empty_limit)
    if kind == AMAZON:
        return AWSEventStream(event_limit, empty_limit)
    if kind == "application/json" or kind.endswith("+json"):
        return WholeBody(body_limit, hold)
    return None

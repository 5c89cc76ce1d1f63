"""The answer on its way back: headers for the client, then the body, event by event.

   head    Origin, Tell, RejectedCredential, CoolDown, BadAnswer, Read
   body    bytes ─► framing ─► events ─► Count, HideUsage, Annotate, Extend ─► bytes

A plain JSON answer is a stream of one event. `framing.events` passes the events through the stages.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from extproc.dialects import rates
from extproc.dialects._replies import OpenAIReplies
from extproc.guardrails import has_guards
from extproc.money.budgets.costs import charged, cost_of
from extproc.upstream import prices
from extproc.upstream.prices import written
from extproc.wire.framing import EMPTY, Frame, Framing
from extproc.wire.framing.aws_eventstream import AWSEventStream
from extproc.wire.framing.content_types import framing_for
from extproc.wire.framing.events import Events
from extproc.wire.framing.inflate import ENCODINGS, Inflate
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.json_array import ARRAY, JSONArray
from extproc.wire.framing.rewording import Rewording
from extproc.wire.framing.sse import SSE
from extproc.words import contract
from extproc.words.actions import Continue
from extproc.words.chain import passed_over
from extproc.words.contract import TOLD, UPSTREAM, internal
from extproc.words.dialect import Report
from extproc.words.errors import (
    OBJECT_NOT_FOUND,
    PROVIDER_BAD_ANSWER,
    PROVIDER_CREDENTIAL_REJECTED,
    PROVIDER_TIMEOUT,
    Kind,
    Refusal,
    advice,
)
from extproc.words.exchange import Exchange, Target
from extproc.words.tries import Try, outcome_of
from extproc.words.values import show_duration

ORIGIN = TOLD + "error-origin"
_PROVIDER, _MODEL, _ATTEMPTS = TOLD + "provider", TOLD + "model", TOLD + "attempts"

MOST_INFLATED = 128 << 20
"""Most bytes of a compressed answer after decompression."""
_TOLD_USAGE = re.compile(rb"(?m)^" + re.escape(contract.USAGE_EVENT) + rb"(.*)\n\n")
"""Matches a try's comment with usage."""
_TOLD_EVENTS = re.compile(rb"(?m)^" + re.escape(contract.EVENTS_EVENT) + rb"(\d++)\n\n")
_encode = msgspec.json.encode


# --- the head of the answer


class Origin:
    """Writes `status`, `attempts` and `target`, which served the request; or `unreached` when Envoy answered in a
    provider's place.

    Envoy's answer ends the list of stages. Its body has OpenAI's shape, so it is rewritten for a client's path of
    another dialect.
    """

    def __call__(self, exchange: Exchange) -> Continue | None:
        response = exchange.answer.head
        exchange.answer.status, exchange.answer.attempts = response.status, response.attempts
        if _from_provider(exchange):
            exchange.answer.target = exchange.route.targets[min(response.attempts, len(exchange.route.targets)) - 1]
            return None
        exchange.answer.unreached = response.hop.get(contract.HOP) or "gateway"
        told = {ORIGIN: "gateway", **_missing(advice(response.status), response.headers), **named(exchange)}
        told |= passed_over(exchange.route.skipped)
        withheld = internal(response.headers)
        if response.ended or type(exchange.request.dialect.replies).error is OpenAIReplies.error:
            return Continue(told, withheld)
        exchange.answer.reader = Rewording(exchange)
        return Continue(told, (*withheld, "content-length"), read_answer=True)


class Tell:
    """Writes `told`, the gateway's headers about this answer, and `withheld`, the provider's headers that the client
    does not get.
    """

    def __init__(self) -> None:
        self._rates = rates()

    def __call__(self, exchange: Exchange) -> None:
        target, headers = exchange.answer.target, exchange.answer.head.headers
        assert target is not None, "Origin found it"
        told = {
            _PROVIDER: target.provider,
            _MODEL: target.model,
            _ATTEMPTS: str(exchange.answer.attempts),
        }
        withheld = internal(headers)
        # Envoy replaces x-request-id with the gateway's id.
        if (request_id := headers.get("x-request-id")) is not None:
            told[TOLD + "provider-request-id"] = request_id
        if (ignored := exchange.answer.head.hop.get(contract.IGNORED)) is not None or exchange.request.ignored:
            told[TOLD + "ignored"] = ",".join([*exchange.request.ignored, *([ignored] if ignored else [])])
        if exchange.findings.guardrails and (found := exchange.findings.header_value()):
            told[contract.GUARDRAILS] = found
        money, limits = exchange.money, exchange.money.output_limits
        if money.alert:
            told[TOLD + "budget"] = money.alert
        if money.downgraded:
            told[TOLD + "downgraded"] = money.downgraded
        if limits and (cap := limits[exchange.route.targets.index(target)]) is not None:
            told[TOLD + "capped"] = str(cap)
        if money.rate:  # the provider's rates are the gateway's account's, and must not mix with the consumer's
            withheld += tuple([name for name in headers if name.startswith(self._rates)])
            told |= money.rate
        if target.facts.retires is not None or target.facts.deprecated is not None:
            told |= target.facts.headers()
        if (own := exchange.request.dialect.replies.request_id) and own not in headers:
            told |= named(exchange)
        exchange.answer.told, exchange.answer.withheld = told, withheld


class RejectedCredential:
    """Refuses with 502 when the provider rejected the gateway's credential: the client is not at fault. 404 for a kept
    object of which the provider says so when it is gone.
    """

    def __call__(self, exchange: Exchange) -> None:
        hides = exchange.request.dialect.offers.stored.hides
        if exchange.answer.status == 403 and exchange.route.kept.ids and hides:
            provider = exchange.answer.told[_PROVIDER]
            message = f"Provider {provider} has an object that the request names no longer, or the key may not use it."
            raise Refusal(OBJECT_NOT_FOUND, message, headers=exchange.answer.told | {ORIGIN: "provider"})
        if exchange.answer.status in (401, 403):
            raise _bad_answer(
                exchange,
                PROVIDER_CREDENTIAL_REJECTED,
                "Provider {} refused the gateway's credential; its operator has to look at it.",
            )


class CoolDown:
    """Reports the answer's status in attach mode. Otherwise Envoy's access log reports every try, including failed
    ones.
    """

    def __init__(self, heed: Callable[[Target, Try], None]) -> None:
        self._heed = heed

    def __call__(self, exchange: Exchange) -> None:
        answer = exchange.answer
        if exchange.attached and (target := answer.target) is not None:
            seconds = time.perf_counter() - exchange.started
            try_ = Try(
                exchange.id,
                target.provider,
                target.name,
                answer.attempts,
                answer.status,
                outcome_of(answer.status),
                seconds,
                first_byte=seconds,
                retry_after=answer.head.headers.get("retry-after", ""),
                consumer=exchange.consumer.name,
            )
            self._heed(target, try_)


class BadAnswer:
    """Refuses with 502 a web page in an answer's place, a status outside of HTTP (RFC 9110, 15), and a redirect: a
    client that follows it would send its key there.
    """

    def __call__(self, exchange: Exchange) -> None:
        status, content_type = exchange.answer.status, exchange.answer.head.headers.get("content-type", "")
        if not 200 <= status < 600:
            fault = "no status of HTTP; use another model."
        elif 300 <= status < 400:
            fault = "a redirect, which the gateway does not follow; use another model."
        elif status < 400 and content_type.startswith("text/html"):
            fault = "a web page; try again, or use another model."
        else:
            return
        raise _bad_answer(exchange, PROVIDER_BAD_ANSWER, f"Provider {{}} answered with {fault}")


class Read:
    """Writes `report` and `reader` for an answer that can be read, and returns the action for Envoy.

    `cost` adds a header with the cost if it is known before the body. `unread` is called for an answer that guardrails
    should read and cannot; it may refuse.
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
        hold: Callable[[int], bool] = lambda _size: True,
    ) -> None:
        self._events = events
        self._hold = hold
        self._unread = unread
        self._event_limit = event_limit
        self._body_limit = body_limit
        self._empty_limit = empty_limit
        self._cost = cost

    def __call__(self, exchange: Exchange) -> Continue:
        told, withheld, headers = exchange.answer.told, exchange.answer.withheld, exchange.answer.head.headers
        if exchange.answer.status >= 400:
            told[ORIGIN] = "provider"
            told |= {**_missing(advice(exchange.answer.status), headers), **passed_over(exchange.route.skipped)}
            return Continue(told, withheld)
        encoding = headers.get("content-encoding", "identity")
        framing = framing_for(
            headers.get("content-type", ""),
            event_limit=self._event_limit,
            body_limit=self._body_limit,
            empty_limit=self._empty_limit,
            hold=self._hold,
            key=exchange.request.dialect.answers.usage_key,
        )
        # No client API has Amazon's event framing, and an edit would break its checksums.
        readable = not isinstance(framing, AWSEventStream) and encoding in ("identity", *ENCODINGS)
        if framing is None or exchange.answer.head.ended or not readable:
            if has_guards(exchange) and not exchange.answer.head.ended:
                self._unread(exchange)
            return Continue(told, withheld)
        exchange.answer.report = Report()
        if is_translated(exchange) and (usage := exchange.answer.head.hop.get(contract.USAGE)) is not None:
            exchange.answer.report.told_usage = told_usage = contract.decode_usage(usage.encode())
            if self._cost and (cost := cost_of(exchange, told_usage)[0]) is not None:
                told[TOLD + "cost"] = prices.decimal(cost)
        inflate = Inflate(MOST_INFLATED) if encoding != "identity" else None
        request = exchange.request
        if isinstance(framing, SSE) and request.ask.stream and request.dialect.endpoints.array(request.head.path):
            exchange.features[ARRAY] = JSONArray()
            told["content-type"] = "application/json; charset=UTF-8"
        exchange.answer.reader = reader = self._events.reader(exchange, framing, inflate)
        if reader.changes_length:
            withheld += ("content-encoding", "content-length")
        return Continue(told, withheld, read_answer=True)


def named(exchange: Exchange) -> Mapping[str, str]:
    """The request's id in the header of the client's API, beside `x-request-id`, which Envoy sets."""
    name = exchange.request.dialect.replies.request_id
    return {name: exchange.request.id} if name and exchange.request.id else {}


def _missing(wanted: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in wanted.items() if name not in headers}


def is_translated(exchange: Exchange) -> bool:
    """True when a try translated the answer into the client's API."""
    return contract.TRANSLATED in exchange.answer.head.hop


def _from_provider(exchange: Exchange) -> bool:
    response = exchange.answer.head
    return (
        exchange.route.forwarded
        and response.attempts > 0
        and contract.HOP not in response.hop
        and response.details == UPSTREAM
    )


def went_silent(seconds: float) -> Refusal:
    """The refusal of an answer that stopped for `seconds` before its end."""
    text = f"The provider was silent for {show_duration(seconds)} in the middle of its answer: try again."
    return Refusal(PROVIDER_TIMEOUT, text)


def _bad_answer(exchange: Exchange, kind: Kind, message: str) -> Refusal:
    """The refusal of a provider's bad answer. `message` has a placeholder for the provider's name."""
    return Refusal(
        kind,
        message.format(exchange.answer.told[_PROVIDER]),
        headers=exchange.answer.told | {ORIGIN: "provider"},
    )


# --- the body, event by event


class Count:
    """Reads the answer's finish, errors and text into `report`, and the usage into each event that reports it."""

    changes_length = False
    merges = True

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return True

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        report, observe = exchange.answer.report, exchange.request.dialect.observe
        assert report is not None, "Read wrote it"
        before = report.usage
        for event in events:
            if event.data is None:
                self._count_unread(exchange, report, event)
                continue
            counted = report.output_events
            event.usage_only = observe(event.data, report, event.tree)
            if report.output_events > counted:
                report.output_events += event.events - 1
            if report.usage is not before:
                event.usage = report.told_usage or report.usage
                if is_translated(exchange):  # a translation may write zeros when the provider reports no counts
                    report.usage = None
                before = report.usage
        return events

    def _count_unread(self, exchange: Exchange, report: Report, event: Frame) -> None:
        """Count an event without data: a comment, possibly a try's, or an event too long to be read."""
        if event.name == EMPTY:
            if is_translated(exchange):
                if told := _TOLD_USAGE.findall(event.raw):
                    report.told_usage = contract.decode_usage(told[-1])
                    report.told_at = report.output_bytes
                    event.raw = _TOLD_USAGE.sub(b"", event.raw)
                if joined := _TOLD_EVENTS.findall(event.raw):
                    report.output_events += sum(map(int, joined))
                    event.raw = _TOLD_EVENTS.sub(b"", event.raw)
            return
        report.add_unread(event.raw)  # before the usage, so that the usage covers these bytes
        if (edges := event.edges) is not None:
            exchange.request.dialect.observe_edges(edges.head, edges.tail, report, edges.usages)


class HideUsage:
    """Drops the usage event that the gateway requested and the client did not."""

    changes_length = False
    merges = True

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        return exchange.answer.usage_hidden and isinstance(framing, SSE)

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        return [event for event in events if not event.usage_only]


class Annotate:
    """Writes the exchange's cost into the client's usage object."""

    changes_length = True
    merges = True

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return charged(exchange) is not None and bool(exchange.request.dialect.answers.usage_at)

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        at = exchange.request.dialect.answers.usage_at
        for event in events:
            if event.usage is None or event.data is None:
                continue
            cost, _ = cost_of(exchange, event.usage)
            if cost is not None:
                event.edit(written.with_cost(event.data, prices.decimal(cost), at))
        return events


class Extend:
    """Holds more of the budgets for a streamed answer that exceeds its reservation. Without room it ends the answer:
    402, 429 or 503.
    """

    changes_length = False
    merges = True

    def __init__(self, extend: Callable[[Exchange], Awaitable[Refusal | None]]) -> None:
        self._extend = extend

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        reservation = exchange.money.reservation
        return reservation.held and reservation.enough < math.inf and not isinstance(framing, WholeBody)

    async def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:
        report = exchange.answer.report
        assert report is not None, "Read wrote it"
        if not end and report.output_bytes > exchange.money.reservation.enough:
            refusal = await self._extend(exchange)
            if refusal is not None:
                raise refusal
        return events

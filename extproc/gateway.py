"""The gateway attachment: one client request, from its headers to however it ended."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping

import msgspec

from extproc.framing.inflate import ENCODINGS, Inflate
from extproc.framing.sse import SSE
from extproc.pipeline import Pipeline, Stages
from extproc.prices import cost, decimal
from extproc.response import MOST_INFLATED, AnswerReader, framing_for
from extproc.words import contract
from extproc.words.actions import CONTINUE, Chunk, Continue, LocalReply
from extproc.words.dialect import Dialect
from extproc.words.errors import (
    INVALID_JSON,
    OVERLOADED,
    PROVIDER_BAD_ANSWER,
    PROVIDER_CREDENTIAL_REJECTED,
    Kind,
    Refusal,
)
from extproc.words.exchange import NOTHING_VERIFIED, Exchange, Request, Target, Verified

TOLD = "x-ai-"
"""What the gateway tells clients in headers; providers cannot."""
ORIGIN = TOLD + "error-origin"
_FROM_UPSTREAM = "via_upstream"  # what Envoy calls an answer that came through a cluster


class GatewayStream:
    """Drives one Exchange through the stages as Envoy reports it. A new one for each request."""

    def __init__(self, pipeline: Pipeline, *, attached: bool = False) -> None:
        self.done = False
        self._pipeline = pipeline
        self._attached = attached  # to somebody else's Envoy: no internal hop
        self._exchange: Exchange | None = None
        self._reader: AnswerReader | None = None
        self._grows = False  # a streamed answer that budgets have to have room for
        self._own: list[bytes] | None = None  # pieces of an answer that Envoy gave, which is no client's of OpenAI's
        self._ended = False  # settled and recorded
        self._left = False  # by Envoy

    async def on_request_headers(
        self, headers: Mapping[str, str], end: bool, verified: Verified = NOTHING_VERIFIED
    ) -> Continue | LocalReply:
        request = Request(headers.get(":method", ""), headers.get(":path", ""), headers, verified)
        self._exchange = exchange = Exchange(uuid.uuid4().hex, request, headers.get("x-request-id", ""), self._attached)
        telemetry = self._pipeline.telemetry
        telemetry.in_flight += 1
        answer = await self._run(self._pipeline.on_headers, exchange)
        if answer is not None:
            return answer
        if telemetry.in_flight > self._pipeline.settings.limits.exchanges:
            message = "The gateway has too many requests in flight: try again in a moment."
            return self._refuse(exchange, Refusal(OVERLOADED, message, headers={"retry-after": "1"}))
        if end:
            return self._refuse(exchange, Refusal(INVALID_JSON, "The request has no body: send JSON."))
        return CONTINUE

    async def on_request_body(self, body: bytes) -> Continue | LocalReply:
        exchange = self._current()
        exchange.body = body
        answer = await self._run(self._pipeline.on_request, exchange)
        if answer is not None:
            return answer
        return exchange.onward

    async def on_response_headers(
        self, headers: Mapping[str, str], attributes: Mapping[str, object], end: bool
    ) -> Continue | LocalReply:
        removed = tuple(name for name in headers if name.startswith((contract.PREFIX, TOLD)))
        if self._exchange is None:  # Envoy refused the request before it came here: too large, an upgrade
            self.done = True
            return Continue({ORIGIN: "gateway"}, removed)
        exchange = self._exchange
        exchange.status = int(headers.get(":status", "0"))
        exchange.attempts = _count(attributes.get("upstream.request_attempt_count"))
        if not self._from_provider(exchange, headers, attributes):
            exchange.error = "gateway" if exchange.attached else headers.get(contract.HOP, "gateway")
            if not end and type(exchange.dialect).error is not Dialect.error:
                self._own = []
                return Continue({ORIGIN: "gateway"}, (*removed, "content-length"), read_answer=True)
            await self._end()
            return Continue({ORIGIN: "gateway"}, removed)
        exchange.target = target = exchange.targets[min(exchange.attempts, len(exchange.targets)) - 1]
        told = {
            TOLD + "provider": target.provider,
            TOLD + "model": target.model,
            TOLD + "attempts": str(exchange.attempts),
        }
        if (request_id := headers.get("x-request-id")) is not None:  # Envoy puts the gateway's own in its place
            told[TOLD + "provider-request-id"] = request_id
        if not exchange.attached and (ignored := headers.get(contract.IGNORED)) is not None:
            told[TOLD + "ignored"] = ignored
        if exchange.alert:
            told[TOLD + "budget"] = exchange.alert
        if exchange.downgraded:
            told[TOLD + "downgraded"] = exchange.downgraded
        if exchange.rate:  # the provider's are of the gateway's account, and not to be mixed with these
            removed += tuple(name for name in headers if name.startswith("x-ratelimit-"))
            told |= exchange.rate
        if exchange.status in (401, 403):
            message = f"Provider {target.provider} refused the gateway's credential: the operator must renew it."
            refusal = Refusal(PROVIDER_CREDENTIAL_REJECTED, message, headers=told | {ORIGIN: "provider"})
            return self._refuse(exchange, refusal)
        if exchange.attached:  # else Envoy's access log tells, of the failed tries too
            self._pipeline.cool_down(target, exchange.status, headers.get("retry-after", ""))
        if exchange.status < 400 and headers.get("content-type", "").startswith("text/html"):
            message = f"Provider {target.provider} answered with a web page: try again, or use another model."
            return self._refuse(exchange, Refusal(PROVIDER_BAD_ANSWER, message, headers=told | {ORIGIN: "provider"}))
        if exchange.status >= 400:
            told[ORIGIN] = "provider"
        elif not end and (reader := self._answer_reader(exchange, target, headers)) is not None:
            self._reader = reader
            self._grows = reader.streamed and exchange.reservation.held
            exchange.report = reader.report
            if reader.changes_length:
                removed += ("content-encoding", "content-length")
            usage = reader.report.told_usage
            if self._pipeline.settings.usage.cost_in_response and usage is not None and target.price is not None:
                told[TOLD + "cost"] = decimal(cost(target.price, usage))
            return Continue(told, removed, read_answer=True)
        exchange.complete = True
        await self._end()
        return Continue(told, removed)

    async def on_response_body(self, chunk: bytes, end: bool) -> Chunk:
        exchange, reader = self._current(), self._reader
        if self._own is not None:
            self._own.append(chunk)
            if not end:
                return Chunk(b"")
            await self._end()
            return Chunk(reworded(exchange, b"".join(self._own)), True)
        assert reader is not None, "a body nobody asked for"
        out = reader.feed(chunk, end)
        if exchange.first_token is None and reader.report.output_events:
            exchange.first_token = time.perf_counter()
        if self._grows and not end and reader.report.output_bytes > exchange.reservation.enough:
            refusal = await self._pipeline.extend(exchange)
            if refusal is not None:  # Envoy ends the provider's answer when ours ends
                exchange.error = refusal.kind.code
                self._pipeline.telemetry.refusal(refusal.kind.code)
                await self._end()
                return Chunk(out + exchange.dialect.cut_off(refusal.kind, refusal.message), True)
        if end:
            exchange.complete = True
            exchange.error = reader.report.error  # the provider's own, in the middle of the answer
            await self._end()
        return Chunk(out, end)

    async def on_end(self) -> None:
        """The stream is over, in whatever way. Settles what is still open."""
        exchange = self._exchange
        if exchange is None:
            return
        self._pipeline.telemetry.in_flight -= not self._left
        self._left = True
        if self._ended:
            return
        if not exchange.error and not exchange.complete:
            # Once an answer has begun, nobody here can tell a client that left from a provider that broke off.
            exchange.error = "incomplete" if exchange.status else "client_left" if exchange.forwarded else "abandoned"
        await asyncio.shield(self._end())

    def _current(self) -> Exchange:
        assert self._exchange is not None, "Envoy sends the headers before a body"
        return self._exchange

    async def _run(self, stages: Stages, exchange: Exchange) -> LocalReply | None:
        try:
            answer = await stages(exchange)
        except Refusal as refusal:
            return self._refuse(exchange, refusal)
        if answer is not None:
            exchange.status = answer.status
            exchange.complete = True
            await self._end()
        return answer

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> LocalReply:
        """The one place where a refusal becomes an answer."""
        exchange.status, exchange.error = refusal.kind.status, refusal.kind.code
        self._pipeline.telemetry.refusal(refusal.kind.code)
        self.done = True
        return refusal_answer(exchange, refusal)

    def _from_provider(self, exchange: Exchange, headers: Mapping[str, str], attributes: Mapping[str, object]) -> bool:
        return (
            exchange.forwarded
            and exchange.attempts > 0
            and (exchange.attached or contract.HOP not in headers)
            and attributes.get("response.code_details", _FROM_UPSTREAM) == _FROM_UPSTREAM
        )

    def _answer_reader(self, exchange: Exchange, target: Target, headers: Mapping[str, str]) -> AnswerReader | None:
        encoding = headers.get("content-encoding", "identity")
        if encoding not in ("identity", *ENCODINGS):
            return None
        limits = self._pipeline.settings.limits
        framing = framing_for(
            headers.get("content-type", ""), event_limit=limits.sse_event, body_limit=limits.buffered_response
        )
        if framing is None:
            return None
        hide_usage = exchange.usage_hidden and isinstance(framing, SSE)
        translated = not exchange.attached and contract.TRANSLATED in headers
        inflate = Inflate(MOST_INFLATED) if encoding != "identity" else None
        price = target.price if self._pipeline.settings.usage.cost_in_response else None
        reader = AnswerReader(
            exchange.dialect, framing, hide_usage=hide_usage, translated=translated, inflate=inflate, price=price
        )
        if translated and (usage := headers.get(contract.USAGE)) is not None:
            reader.report.told_usage = contract.decode_usage(usage.encode())
        return reader

    async def _end(self) -> None:
        """Settle and record. Cancelled in the middle, `on_end` comes here again, shielded: settling twice is once."""
        self.done = True
        await self._pipeline.on_end(self._current())
        self._ended = True


def refusal_answer(exchange: Exchange, refusal: Refusal) -> LocalReply:
    """A refusal in the dialect of the client's path."""
    kind: Kind = refusal.kind
    headers = {"content-type": "application/json", ORIGIN: "gateway"}
    if exchange.request_id:
        headers["x-request-id"] = exchange.request_id
    body = exchange.dialect.error(kind, refusal.message, refusal.param)
    return LocalReply(kind.status, msgspec.json.encode(body), headers | refusal.headers, kind.code)


class _Error(msgspec.Struct):
    message: str
    type: str
    code: str


class _Answered(msgspec.Struct):
    error: _Error


_decode = msgspec.json.Decoder(_Answered).decode


def reworded(exchange: Exchange, body: bytes) -> bytes:
    """An error that Envoy wrote, which it does in OpenAI's shape, in the dialect of the client's path."""
    try:
        said = _decode(body).error
    except ValueError:
        return body
    kind = Kind(exchange.status, said.type, said.code)
    return msgspec.json.encode(exchange.dialect.error(kind, said.message, None))


def _count(value: object) -> int:
    return int(value) if isinstance(value, float | int) else 0

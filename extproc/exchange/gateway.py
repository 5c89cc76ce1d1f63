"""The gateway attachment: one client request, from its headers to its end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import Enum, auto

import msgspec

from extproc.exchange.admission import content_length
from extproc.exchange.pipeline import Pipeline
from extproc.exchange.response import ORIGIN, named, went_silent
from extproc.guardrails import is_watched
from extproc.wire.framing.events import AnswerReader
from extproc.wire.framing.json_array import ARRAY
from extproc.wire.framing.slices import LARGE
from extproc.wire.transport import Malformed
from extproc.words import contract
from extproc.words.actions import CONTINUE, Chunk, Continue, LocalReply
from extproc.words.contract import GUARDRAILS, UPSTREAM, internal
from extproc.words.errors import Refusal
from extproc.words.exchange import (
    NOTHING_VERIFIED,
    ClientRequest,
    Exchange,
    Features,
    RequestHead,
    ResponseHead,
    Verified,
)

_READ_ANSWER = Continue(read_answer=True)

MCP_PATHS = contract.MCP_PATH, contract.MCP_DOCUMENT_PATH, contract.MCP_SIGN_IN_PATH
"""Path prefixes of the MCP gateway, if the settings have one."""
_TOO_MANY = 429  # status from which a client may try again
_BESIDE = 64  # most bytes of a message beside its body


class _State(Enum):
    """An exchange's progress towards its ledger row."""

    UNDER_WAY = auto()
    SETTLED = auto()  # the exchange is settled and recorded
    OVER = auto()  # Envoy has closed the stream


class GatewayStream:
    """Drives one exchange through the stages, as Envoy reports its progress. Each request has a new stream."""

    def __init__(
        self, pipeline: Pipeline, *, attached: bool = False, mark: str = "", features: Features | None = None
    ) -> None:
        self.done = self.more = False
        self._pipeline = pipeline
        self._attached = attached  # True: another team's Envoy, which has no internal hop
        self._mark = mark  # prefix of this worker's ids, see `transport.workers`
        self._features = features  # facts known before the request, such as Envoy's span of this call
        self._exchange: Exchange | None = None
        self._state = _State.UNDER_WAY
        self._no_room: Refusal | None = None  # refusal of a body without room
        self._head: Continue | None = None  # response headers that wait for guardrails
        self._heard = math.inf  # time of the provider's latest bytes; infinite before its answer begins
        self._last = False  # True: the last piece of the answer came
        self._sent = math.inf  # time of the client's latest bytes; infinite before its answer begins

    async def on_request_headers(
        self, headers: Mapping[str, str], end: bool, verified: Verified = NOTHING_VERIFIED
    ) -> Continue | LocalReply:
        length = content_length(headers)
        if self._pipeline.mcp is not None and headers.get(":path", "").startswith(MCP_PATHS):
            self._pipeline = self._pipeline.mcp
        head = RequestHead(headers.get(":method", ""), headers.get(":path", ""), headers, verified, end, length)
        id = os.urandom(16).hex()
        if self._mark:
            id = self._mark + id[len(self._mark) :]
        self._exchange = exchange = Exchange(
            id,
            ClientRequest(head, headers.get("x-request-id", "")),
            self._attached,
            self._pipeline.services.telemetry.begin(),
        )
        self._pipeline.services.telemetry.under_way[id] = exchange
        if self._features is not None:
            exchange.features = self._features
        usual = end or (length is not None and length <= LARGE)
        stages = self._pipeline.on_headers if usual else self._pipeline.on_large_headers
        action = await self._run(stages, exchange)
        if action is None and end:  # a call about a kept object has no body
            action = await self._run(self._pipeline.on_call, exchange)
            if action is None:
                exchange.route.onward.read_answer = self._pipeline.guarded
                return exchange.route.onward
        return action or (_READ_ANSWER if self._pipeline.guarded else CONTINUE)

    def admits(self, size: int) -> bool:
        exchange = self._exchange
        if exchange is not None and not exchange.route.forwarded:
            try:
                self._pipeline.admit(exchange, max(0, size - _BESIDE))
            except Refusal as refusal:
                self._no_room = refusal
        return self._no_room is None

    async def on_request_body(self, body: bytes) -> Continue | LocalReply:
        exchange = self._current()
        if (no_room := self._no_room) is not None:
            self._no_room = None
            return self._reply(exchange, no_room)
        exchange.request.body = body
        if len(body) <= LARGE:
            return await self._run(self._pipeline.on_request, exchange) or exchange.route.onward
        async with self._pipeline.services.in_flight.wait_turn(len(body)):
            if (action := await self._run(self._pipeline.on_large_request, exchange)) is not None:
                return action
            onward = exchange.route.onward
            exchange.route.onward = replace(onward, body=None)  # the exchange must not keep the body
            return onward

    async def on_response_headers(
        self, headers: Mapping[str, str], attributes: Mapping[str, object], end: bool
    ) -> Continue | LocalReply | None:
        exchange = self._exchange
        if exchange is None:  # Envoy refused the request before the gateway saw it: too large, an upgrade
            self.done = True
            return Continue({ORIGIN: "gateway"}, internal(headers))
        self._heard = self._sent = time.monotonic()
        attempts = attributes.get("upstream.request_attempt_count")
        details = attributes.get("response.code_details", UPSTREAM)
        exchange.answer.head = ResponseHead(
            int(headers.get(":status", "0")),
            headers,
            int(attempts) if isinstance(attempts, float | int) else 0,
            str(details),
            end,
            {} if self._attached else headers,
        )
        action = await self._run(self._pipeline.on_response, exchange) or CONTINUE
        if isinstance(action, LocalReply) or end or not self._pipeline.guarded:
            return action
        self.done = False  # Envoy sends the body, because it was requested before the answer came
        if action is not CONTINUE:
            action.read_answer = False
        if exchange.answer.reader is None or not is_watched(exchange):
            return action
        assert action is not CONTINUE, "Read asks for the body"
        self._head = action
        return None

    async def on_response_body(self, chunk: bytes, end: bool) -> Chunk:
        exchange = self._current()
        self._heard = time.monotonic()
        end = self._last = self._last or end
        self.more = False
        if (reader := exchange.answer.reader) is None:  # the exchange ended at the response headers
            if not self._pipeline.guarded:
                raise Malformed("a body that was not asked for")
            self.done = end
            return Chunk(chunk, end)
        out: list[bytes] = []
        refusal: Refusal | None = None
        try:
            self.more = await reader.feed(chunk, end, out)
            end = end and not self.more
        except Refusal as raised:  # Envoy ends the provider's answer with the gateway's
            refusal, end = raised, True
        except Exception:
            exchange.end(bug=True)
            raise
        body = b"".join(out)
        waiting = self._head is not None
        if not body and not end:
            alive = self._keep_alive(exchange, self._heard) if self.more else None
            if alive is not None or waiting:
                return alive or Chunk(b"")
        if refusal is not None and waiting and not body:
            reply = self._withhold(exchange, refusal)
            await self._settle(exchange)
            return Chunk(b"", head=reply)
        if refusal is not None:
            self._refuse(exchange, refusal)
            body += _cut_off(exchange, refusal)
        if end:
            exchange.end(whole=True)
            await self._settle(exchange)
        if body:
            self._sent = self._heard
        return Chunk(body, end, self._release_head(exchange))

    @property
    def pause(self) -> float:
        """See `Attachment`."""
        reader = self._current().answer.reader
        return reader.pause if isinstance(reader, AnswerReader) else 0.0

    def on_silence(self, now: float) -> Chunk | None:
        """Check a running answer. No other method runs while its provider is silent."""
        exchange, limits = self._exchange, self._pipeline.settings.limits
        if self._heard == math.inf or self.done or exchange is None or exchange.answer.reader is None:
            return None
        if now - self._heard >= limits.stream_idle:
            return self._give_up(exchange, limits.stream_idle)
        return self._keep_alive(exchange, now)

    def _keep_alive(self, exchange: Exchange, now: float) -> Chunk | None:
        """A comment for a client that received nothing for a while, and the head unless it must wait."""
        reader, after = exchange.answer.reader, self._pipeline.settings.limits.keep_alive
        if not after or not exchange.request.ask.stream or now - self._sent < after:
            return None
        if not isinstance(reader, AnswerReader) or (body := reader.keep_alive()) is None:
            return None
        self._sent = now
        return Chunk(body, head=self._release_head(exchange))

    def _give_up(self, exchange: Exchange, idle: float) -> Chunk:
        """End an answer whose provider was silent for `idle` seconds. Envoy's timer cannot, because it would also run
        before the answer begins. A plain answer is cut off, so that it does not look complete.
        """
        self.done = True  # `on_end` settles the exchange
        refusal = went_silent(idle)
        if self._head is not None:
            return Chunk(b"", head=self._withhold(exchange, refusal))
        self._refuse(exchange, refusal)
        if exchange.request.ask.stream:
            return Chunk(_cut_off(exchange, refusal), True)
        return Chunk(b"", head=refusal_answer(exchange, refusal))

    def _release_head(self, exchange: Exchange) -> Continue | None:
        """The response headers that waited for guardrails, with the names of guardrails that found a match."""
        head, self._head = self._head, None
        if head is not None and (found := exchange.findings.header_value()):
            head.set_headers = {**head.set_headers, GUARDRAILS: found}
        return head

    def _withhold(self, exchange: Exchange, refusal: Refusal) -> LocalReply:
        """Refuse an answer before any of it was sent."""
        self._head = None
        exchange.answer.status = refusal.kind.status
        self._refuse(exchange, refusal)
        refusal.headers = exchange.answer.told | {ORIGIN: "gateway"} | refusal.headers
        return refusal_answer(exchange, refusal)

    async def on_end(self) -> None:
        """Settle an open exchange when its stream is over, however it ended."""
        exchange, state = self._exchange, self._state
        if exchange is None or state is _State.OVER:
            return
        self._state, self.done = _State.OVER, True
        if isinstance(exchange.answer.reader, AnswerReader):
            exchange.answer.reader.close()
        if exchange.request.place is not None:
            exchange.request.place.leave()
        try:
            if state is _State.UNDER_WAY:
                exchange.end()
                await self._settle(exchange)
        finally:  # last: when none is in flight, all records are complete
            del self._pipeline.services.telemetry.under_way[exchange.id]
            exchange.answer.reader = None  # breaks a reference cycle, which would wait for the collector

    def _current(self) -> Exchange:
        if self._exchange is None:
            raise Malformed("a body before its headers")
        return self._exchange

    async def _run(
        self, stages: Callable[[Exchange], Awaitable[Continue | LocalReply | None]], exchange: Exchange
    ) -> Continue | LocalReply | None:
        """The stages' action for Envoy. An action without an answer to read ends the exchange."""
        try:
            action = await stages(exchange)
        except Refusal as refusal:
            return self._reply(exchange, refusal)
        except Exception:
            exchange.end(bug=True)
            raise
        if action is not None and exchange.answer.reader is None:
            if isinstance(action, LocalReply):
                exchange.answer.status = action.status
                if exchange.request.dialect.replies.request_id:
                    action = replace(action, headers={**action.headers, **named(exchange)})
            exchange.end(whole=True)
            await self._settle(exchange)
        return action

    def _reply(self, exchange: Exchange, refusal: Refusal) -> LocalReply:
        """A refusal as the answer to the request."""
        self._refuse(exchange, refusal)
        reply = (self._pipeline.refuse or refusal_answer)(exchange, refusal)
        exchange.answer.status, self.done = reply.status, True
        return reply

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        exchange.end(refused=refusal.kind.code)
        self._pipeline.services.telemetry.refusal(refusal.kind.code)

    async def _settle(self, exchange: Exchange) -> None:
        """Settle and record the exchange. If this call is cancelled, `on_end` settles again, which is never cancelled;
        the second settlement has no effect.
        """
        self.done = True
        await self._pipeline.on_end(exchange)
        if self._state is _State.UNDER_WAY:
            self._state = _State.SETTLED


def _cut_off(exchange: Exchange, refusal: Refusal) -> bytes:
    """A refusal in the middle of an answer that a provider began."""
    last = exchange.request.dialect.replies.cut_off(refusal.kind, refusal.message)
    array = exchange.features.get(ARRAY)
    return last if array is None else array.cut_off(last)


def refusal_answer(exchange: Exchange, refusal: Refusal) -> LocalReply:
    """A refusal in the dialect of the client's path."""
    kind = refusal.kind
    headers = {"content-type": "application/json", ORIGIN: "gateway", **kind.advice, **named(exchange)}
    if exchange.request.id:
        headers["x-request-id"] = exchange.request.id
    upload = exchange.request.dialect.offers.stored.upload
    if upload is not None and exchange.request.operation == upload.operation and kind.status < _TOO_MANY:
        headers |= upload.refused
    body = exchange.request.dialect.replies.error(kind, refusal.message, refusal.param)
    return LocalReply(kind.status, msgspec.json.encode(body), headers | refusal.headers, kind.code)

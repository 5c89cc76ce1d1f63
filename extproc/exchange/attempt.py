"""The attempt attachment: one try at one provider, behind the internal hop.

Its whole input comes from Envoy: each try's edits, and the number of this try.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from extproc.dialects import client_apis
from extproc.exchange.admission import InFlight
from extproc.exchange.parsing import BodyLimits, read_in_turns
from extproc.exchange.response import MOST_INFLATED, went_silent
from extproc.exchange.translation.translate import TranslatedStream, Translation, Unwrapping, bad_answer
from extproc.settings.limits import LimitsSettings
from extproc.wire.framing import BOM
from extproc.wire.framing.inflate import ENCODINGS, Inflate
from extproc.wire.framing.patch import patch
from extproc.wire.framing.slices import LARGE
from extproc.wire.transport import Malformed
from extproc.words import contract
from extproc.words.actions import CONTINUE, Chunk, Continue, LocalReply
from extproc.words.contract import Edit
from extproc.words.errors import OVERLOADED, UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.exchange import NOTHING_VERIFIED, Verified

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_GROWN = 8  # levels that the gateway may add to a body
_LONGEST_BACK_OFF = 5.0  # seconds of the longest back-off


class AttemptStream:
    """Writes the request that this provider gets, and the answer that the client expects. A consecutive try at the same
    target waits first. A consecutive try of a tool call uses a new session at its server.
    """

    def __init__(
        self,
        limits: LimitsSettings,
        in_flight: InFlight | None = None,
        renewed: Callable[[str], Awaitable[Mapping[str, str]]] | None = None,
    ) -> None:
        self._renewed = renewed  # headers for a tool call whose session ended
        self._in_flight = in_flight or InFlight()
        self.done = self.more = False
        self._limits = limits
        self._edit = Edit({})
        self._translation: Translation | None = None
        self._stream: TranslatedStream | Unwrapping | None = None
        self._inflate: Inflate | None = None
        self._headers: Mapping[str, str] = {}  # request headers
        self._status = 0
        self._own = False  # True: Envoy wrote the answer in the provider's place
        self._body = bytearray()  # an answer held until it is complete
        self._held = 0  # bytes of `_body` with reserved room
        self._last = False  # True: the last piece of the answer came
        self._heard = math.inf  # time of the provider's latest bytes, while the answer is held

    async def on_request_headers(
        self,
        headers: Mapping[str, str],
        end: bool,  # noqa: ARG002
        verified: Verified = NOTHING_VERIFIED,  # noqa: ARG002
    ) -> Continue | LocalReply:
        if self._renewed is not None and (session := headers.get(contract.SESSION)) is not None:
            return Continue(await self._renewed(session))
        if contract.TARGETS not in headers or contract.ATTEMPT_COUNT not in headers:
            raise Malformed("a try without the headers of the gateway attachment")
        targets, _ = contract.decode_targets(headers[contract.TARGETS])
        index = min(int(headers[contract.ATTEMPT_COUNT]), len(targets)) - 1
        if (edits := headers.get(contract.EDITS)) is not None:
            self._edit = contract.decode_edits(edits)[index]
        if (base := headers.get(contract.BACK_OFF)) is not None and (wait := back_off(targets, index, int(base))):
            await asyncio.sleep(wait)
        if self._edit.service is not None:
            self._headers = headers
            self._translation = Translation(client_apis()[headers[contract.DIALECT]], self._edit.service)
            if self._translation.reads_answer:
                return Continue(read_answer=True)
        return CONTINUE

    def admits(self, size: int) -> bool:  # noqa: ARG002 - the gateway attachment had room for it
        return True

    async def on_request_body(self, body: bytes) -> Continue | LocalReply:
        edit, translation = self._edit, self._translation
        if translation is None:
            self.done = True
            if edit.fields or edit.removed:
                return Continue(body=patch(body, edit.fields, edit.removed))
            return CONTINUE
        try:
            if len(body) > LARGE:
                path, body = await self._translate_large(translation, body)
            else:
                path, body = translation.request(self._changed(_decode(body)), self._headers)
        except Refusal as refusal:
            return self._refuse(refusal)
        self.done = not translation.reads_answer
        # The try's route replaces /v1 with the provider's base_url.
        return Continue({":path": f"/v1{path}", "content-type": "application/json"}, body=body)

    async def _translate_large(self, translation: Translation, body: bytes) -> tuple[str, bytes]:
        """Translate a large body, with turns for other requests. The gateway attachment checked the body, and edits may
        enlarge it.
        """
        limits = self._limits
        most = BodyLimits(len(body), limits.json_depth + _GROWN, limits.json_nodes * 2, limits.json_text * 2)
        async with self._in_flight.wait_turn(len(body)):
            asked = self._changed((await read_in_turns(body, most)).root)
            return await asyncio.to_thread(translation.request, asked, self._headers)

    def _changed(self, asked: dict[str, Any]) -> dict[str, Any]:
        return contract.changed(asked, self._edit.fields, self._edit.removed)

    async def on_response_headers(
        self,
        headers: Mapping[str, str],
        attributes: Mapping[str, object],  # noqa: ARG002
        end: bool,
    ) -> Continue | LocalReply | None:
        translation = self._translation
        if translation is None:
            raise Malformed("the answer of a plain try, which was not asked for")
        self._status = int(headers.get(":status", "0"))
        self._own = contract.HOP in headers
        if self._own and not end:
            return CONTINUE
        if not 200 <= self._status < 600:
            return self._refuse(bad_answer("has no status of HTTP"))
        if end:
            if self._status < 400 and (translation.translates or translation.streamed):
                return self._refuse(bad_answer("is empty"))
            self.done = True
            if self._status >= 400 and translation.translates:
                told = {"content-type": "application/json"} | _pause(headers)
                return LocalReply(self._status, translation.problem(self._status, b""), told, "provider_error")
            return CONTINUE
        removed: tuple[str, ...] = ("content-length",)  # a plain answer without a change keeps its length
        encoding = headers.get("content-encoding", "identity")
        if encoding in ENCODINGS:
            self._inflate = Inflate(MOST_INFLATED)
            removed = ("content-length", "content-encoding")
        elif encoding != "identity":
            return self._refuse(bad_answer("is compressed in a way that was not asked for"))
        if self._status >= 400:
            return Continue({"content-type": "application/json"}, removed)
        if translation.streamed:
            try:
                self._stream = translation.stream(
                    headers.get("content-type", ""),
                    event_limit=self._limits.buffered_response if translation.large_events else self._limits.sse_event,
                    body_limit=self._limits.buffered_response,
                    empty_limit=self._limits.stream_empty,
                    inflate=self._inflate,
                )
            except Refusal as refusal:
                return self._refuse(refusal)
            return Continue({"content-type": "text/event-stream", **translation.headers()}, removed)
        if translation.translates:
            self._heard = time.monotonic()
            return None
        return Continue({}, removed if self._inflate is not None else ())

    async def on_response_body(self, chunk: bytes, end: bool) -> Chunk:
        translation = self._translation
        if translation is None:
            raise Malformed("the answer of a plain try, which was not asked for")
        self._last = self._last or end
        if self._own:
            self.done = end
            return Chunk(chunk, end)
        if self._stream is not None:
            out = self._stream.feed(chunk, self._last)
            self.done = self._stream.over  # the rest of the provider's answer is dropped
            self.more = self._stream.more and not self.done
            return Chunk(out, self.done)
        if self._inflate is not None:
            chunk = self._inflate.feed(chunk)
            self.more = self._inflate.more
        end = self._last and not self.more
        if self._status < 400 and not translation.translates:  # a plain answer without translation
            return Chunk(chunk, end)
        return self._hold_piece(translation, chunk, end)

    @property
    def pause(self) -> float:
        """See `Attachment`."""
        return self._stream.pause if self._stream is not None else 0.0

    def _hold_piece(self, translation: Translation, chunk: bytes, end: bool) -> Chunk:
        """Hold a piece of an error, or of an answer to translate, until the answer is complete."""
        self._heard = time.monotonic()
        large = len(self._body) + len(chunk) > self._limits.buffered_response
        if not large and not self._in_flight.hold(self._limits.answer_memory, len(chunk)):
            message = "The gateway holds too many answers to translate this one; try again in a moment."
            return Chunk(b"", head=self._refuse(Refusal(OVERLOADED, message, headers={"retry-after": "1"})))
        if not large:
            self._held += len(chunk)
            self._body += chunk
            if not end:
                return Chunk(b"")
        self.done, self.more = True, False
        whole = bytes(self._body.removeprefix(BOM))
        if self._status >= 400:
            return Chunk(translation.problem(self._status, whole), True)
        try:
            if large:
                raise bad_answer("is too large to be translated")
            body, usage = translation.answer(whole)
        except Refusal as refusal:
            return Chunk(b"", head=self._refuse(refusal))
        told = translation.headers()
        if usage is not None:
            told[contract.USAGE] = contract.encode_usage(usage).decode()
        head = Continue({"content-type": "application/json", **told}, ("content-length", "content-encoding"))
        return Chunk(body, True, head)

    def on_silence(self, now: float) -> Chunk | None:
        """Refuse a held answer whose provider was silent for `limits.stream_idle`."""
        if self.done or now - self._heard < self._limits.stream_idle:
            return None
        return Chunk(b"", head=self._refuse(went_silent(self._limits.stream_idle)))

    async def on_end(self) -> None:
        """Free the room of a held answer."""
        self._in_flight.hold(0, -self._held)
        self._held = 0

    def _refuse(self, refusal: Refusal) -> LocalReply:
        assert self._translation is not None
        self.done, self.more = True, False
        kind = refusal.kind
        headers = {"content-type": "application/json"}
        if kind is UNSUPPORTED_BY_TARGETS:  # the next target may support the request
            headers |= {contract.HOP: "unsupported", f"{contract.HOP}-unsupported": "1"}
        elif kind.status < 500:  # the fault is in the request; no provider has seen it
            headers[contract.HOP] = kind.code
        body = self._translation.client.replies.error(kind, refusal.message, refusal.param)
        return LocalReply(kind.status, msgspec.json.encode(body), headers, kind.code)


def _pause(headers: Mapping[str, str]) -> dict[str, str]:
    """The provider's retry-after header, if there is one."""
    return {name: headers[name] for name in ("retry-after",) if name in headers}


def back_off(targets: Sequence[str], index: int, base: int) -> float:
    """Seconds to wait before the try at `index`. A new target is tried at once. The second consecutive try waits about
    `base` milliseconds, each later one twice as long. Half of a wait is random, so that clients do not retry in step.
    """
    repeats = 0
    while repeats < index and targets[index - repeats - 1] == targets[index]:
        repeats += 1
    if not repeats:
        return 0.0
    longest = min(base / 1000 * (1 << repeats - 1), _LONGEST_BACK_OFF)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret

"""GuardResult: guardrails over the answers of tools, and quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from extproc.guardrails import GuardInput, GuardrailSettings, apart
from extproc.tools.mcp.call import CALL, CALLS, Call
from extproc.tools.mcp.eras import too_long
from extproc.tools.mcp.policy import as_input
from extproc.tools.mcp.refusals import JSONRPC, refused_result
from extproc.wire.framing import Frame, Framing, rpc
from extproc.words.api import Tools
from extproc.words.dialect import Ask, Result, Text, strings
from extproc.words.errors import GUARDRAIL_BLOCKED, GUARDRAIL_UNAVAILABLE, Refusal
from extproc.words.exchange import Exchange

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_PROGRESS = "notifications/progress"
_FAILED = "The tool failed."


class GuardResult:
    """Guards each message of an answer. If a blocking guardrail finds something in a result, an explaining result
    replaces it; any other such message is dropped. Results in quarantine become answers about them.
    """

    changes_length = True

    def __init__(self, guardrails: Sequence[GuardrailSettings], made: Callable[..., GuardInput]) -> None:
        chosen = [one if one.kind == "quarantine" else as_input(one) for one in guardrails if "tool_results" in one.on]
        self._guard = made(chosen) if chosen else None

    def reads(self, exchange: Exchange) -> bool:
        """True if the answer has to be read. Writes `call.secret`."""
        if self._guard is None or exchange.request.operation not in CALLS:
            return False
        call = exchange.features[CALL]
        chosen = self._guard.chosen(_shadow(exchange))
        found = [guard.replacer for guard in chosen if guard.replacer is not None]
        call.secret = exchange.request.operation == "tools/call" and any(
            replacer.meant(f"{call.server}/{call.tool}") for replacer in found
        )
        return bool(chosen)

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return self.reads(exchange)

    async def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        out: list[Frame] = []
        for event in events:
            if event.data is None or not event.data.strip():
                if not too_long(exchange.features[CALL], event):  # the event is a comment, or has no message
                    out.append(Frame(b":\n\n", None) if exchange.features[CALL].secret else event)
                    continue
                exchange.answer.cut = _unread()
                break
            if (data := await self.judged(exchange, event.data)) is event.data:
                out.append(event)
            elif data is not None:
                out.append(written(event, data))
        return out

    async def judged(self, exchange: Exchange, data: bytes) -> bytes | None:
        """One message in the form for the client; None: the client does not get it."""
        assert self._guard is not None
        call = exchange.features[CALL]
        try:
            tree = _decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return _refused(call, _unread())
        asked = "method" in tree
        shadow = _shadow(exchange, tree, data)
        if call.secret:
            if asked:
                return _progress(tree)
            if "result" not in tree:
                return _encode(rpc.error(call.id, rpc.INTERNAL_ERROR, _FAILED))
            shadow.request.json = {"jsonrpc": "2.0", "id": call.id, "result": tree["result"]}
            shadow.request.body = data = _encode(shadow.request.json)
        try:
            await self._guard(shadow)
        except Refusal as refusal:
            return None if asked else _refused(call, _said(refusal))
        return shadow.request.body if shadow.request.masked else data


class _ServerMessages(JSONRPC):
    """A message of a server, in the form for guardrails."""

    def __init__(self, call: Call, operation: str) -> None:
        super().__init__(call)
        self._of, self._operation = call, operation
        self.offers = replace(self.offers, tools=Tools(results=self._results))

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        for part in ("result", "error", "params"):
            yield from strings(body.get(part), "tool", part)

    def _results(self, body: Mapping[str, Any]) -> Iterator[Result]:
        if self._operation == "tools/call" and "result" in body:
            found = body["result"]
            said = found.get("content") or found.get("structuredContent") if isinstance(found, dict) else found
            failed = isinstance(found, dict) and found.get("isError") is True
            written = partial(_quarantined, self._of, failed)
            yield Result(f"{self._of.server}/{self._of.tool}", said, body, "result", written)


def _quarantined(call: Call, failed: bool, text: str) -> dict[str, Any]:
    """The result without any text of its server."""
    found: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": failed}
    return {"resultType": "complete", **found} if call.modern else found


def _shadow(exchange: Exchange, tree: dict[str, Any] | None = None, data: bytes = b"") -> Exchange:
    """A copy of the exchange for a stage of requests, with a server's message in place of the request. Notes of the
    stage go to the exchange itself.
    """
    made = apart(exchange)
    made.request.dialect = _ServerMessages(exchange.features[CALL], exchange.request.operation)
    made.request.json, made.request.body, made.request.masked = tree or {}, data, False
    made.request.ask = Ask(exchange.request.ask.model)
    return made


def _progress(tree: Mapping[str, Any]) -> bytes | None:
    """For results in quarantine: a progress message without its text; None for any other message."""
    params = tree.get("params")
    if tree.get("method") != _PROGRESS or not isinstance(params, dict):
        return None
    kept = {
        name: value
        for name in ("progressToken", "progress", "total")
        if isinstance(value := params.get(name), int | float) or (name == "progressToken" and isinstance(value, str))
    }
    return _encode({"jsonrpc": "2.0", "method": _PROGRESS, "params": kept})


def written(event: Frame, data: bytes) -> Frame:
    """An event with another message, in the form of `event`."""
    raw = data if event.raw == event.data else b"event: message\ndata: %b\n\n" % data
    return Frame(raw, data)


def _refused(call: Call, refusal: Refusal) -> bytes:
    return rpc.result(call.id, refused_result(call, refusal))


def _said(refusal: Refusal) -> Refusal:
    if refusal.kind is GUARDRAIL_BLOCKED:
        return Refusal(refusal.kind, "A guardrail withheld the result of this tool.")
    return Refusal(refusal.kind, "The result of this tool could not be checked, so it was withheld.")


def _unread() -> Refusal:
    return Refusal(GUARDRAIL_UNAVAILABLE, "The result of this tool cannot be read, so it was withheld.")

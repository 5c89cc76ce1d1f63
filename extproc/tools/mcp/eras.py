"""Calls on their way to a server, and its answers: names, ids, sessions, and the revision that each side speaks.

client   server   the request                                        the answer
same     same     the server's name of the tool                      unchanged
modern   legacy   without modern fields, an id and session of ours   the client's id, the fields that it needs
legacy   modern   with modern fields and headers                     unchanged
legacy   legacy   in a session of this client alone                  questions get ids that find their way back
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.tools.mcp.call import CALL, LEGACY, MODERN, OWN_META, Call
from extproc.tools.mcp.catalogue import Definition
from extproc.tools.mcp.link import headers_for, meta
from extproc.tools.mcp.refusals import too_large
from extproc.tools.mcp.servers import Servers, ServerSession
from extproc.tools.mcp.sessions import ServerQuestion
from extproc.wire.framing import OVERSIZE, Frame, Framing, rpc
from extproc.words.errors import MCP_BAD_ANSWER, RESULT_TOO_LARGE, Refusal
from extproc.words.exchange import Exchange

_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?").fullmatch
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=").fullmatch
_NAMED = ("tools/call", "prompts/get", "resources/read")
_CACHEABLE = ("resources/read",)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def encoded(value: str) -> str:
    """A value for a header `Mcp-…`."""
    if _PLAIN(value) and not _SENTINEL(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decoded(value: str) -> str | None:
    """The value that a header `Mcp-…` stands for; None if it is malformed."""
    if (match := _SENTINEL(value)) is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == match[1] else None
    except ValueError:
        return None


def request_for(call: Call, session: ServerSession | None, id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields of the message to set, by their paths, and headers. `id` replaces the client's id in a shared session."""
    message = call.message
    assert message is not None
    edits: dict[str, Any] = {}
    key = "ref" if message.method == "completion/complete" else "uri" if message.method == "resources/read" else "name"
    if key == "ref" and call.tool != call.name:
        edits["params.ref"] = {**message.params["ref"], "name": call.tool}
    elif call.tool != call.name:
        edits[f"params.{key}"] = call.tool
    modern = call.server_version == MODERN
    if modern and not call.modern:
        edits["params._meta"] = meta(message.meta)
    elif call.modern and not modern:
        edits["params._meta"] = {name: value for name, value in message.meta.items() if not name.startswith(OWN_META)}
        edits["id"] = call.sent_id = id
    headers = headers_for(message.method, call.server_version, "" if session is None else session.id)
    if modern and message.method in _NAMED:
        headers["mcp-name"] = encoded(call.tool)
        if (not call.modern or call.rewritten) and call.entry is not None:
            headers |= _parameters(call.entry, call.arguments)
    return edits, headers


def _parameters(entry: Definition, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Headers with the arguments that the tool's schema repeats in headers."""
    found = {}
    for path, token in entry.headers:
        value: Any = arguments
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, bool):
            found[f"mcp-param-{token}"] = str(value).lower()
        elif isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
            found[f"mcp-param-{token}"] = encoded(str(value))
    return found


class Translate:
    """Reads the messages of an answer: writes `failed` and `rpc_error` of the call, and changes messages into the
    client's form.
    """

    changes_length = True

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return True

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:
        call = exchange.features[CALL]
        kept: list[Frame] = []
        try:
            for event in events:
                call.answer_bytes += len(event.raw)
                if event.data is not None and len(event.raw) > call.settings.max_result:
                    raise too_large(call)
                if event.data is None:
                    if too_long(call, event):
                        self._too_long(call)
                    kept.append(event)
                elif self._message(exchange, call, event):
                    kept.append(event)
            if end and call.must_read and not call.answered:
                if not call.streamed:
                    kept.clear()
                raise Refusal(MCP_BAD_ANSWER, f"Server {call.server} gave no answer to the request; try again.")
        except Refusal as refusal:  # keep the refusal: raised, it would let all these events leave
            exchange.answer.cut = refusal
        return kept

    def _too_long(self, call: Call) -> None:
        if call.answer_bytes > call.settings.max_result:
            raise too_large(call)
        if call.must_read:
            text = "limits.sse_event" if call.streamed else "limits.buffered_response"
            text = f"The result of {call.name!r} is larger than {text}, the most that the gateway reads: ask for less."
            raise Refusal(RESULT_TOO_LARGE, text)

    def _message(self, exchange: Exchange, call: Call, event: Frame) -> bool:
        """Handle a message. True: its event passes on, possibly changed."""
        data = event.data or b""
        try:
            fields = _fields(data)
            method = msgspec.json.decode(fields["method"], type=str) if "method" in fields else None
            id = msgspec.json.decode(fields["id"], type=str | int | None) if "id" in fields else None
        except (msgspec.DecodeError, RecursionError):
            if data.strip():
                self._unreadable(call)
            return True
        if method is not None:
            return id is None or self._question(call, event, fields, id)
        if "result" in fields or "error" in fields:
            self._answer(exchange, call, event, fields, id)
        else:
            self._unreadable(call)
        return True

    def _unreadable(self, call: Call) -> None:
        if call.must_read:
            raise Refusal(MCP_BAD_ANSWER, f"Server {call.server} gave an answer that is no JSON-RPC.")

    def _question(self, call: Call, event: Frame, fields: dict[str, msgspec.Raw], id: rpc.Id) -> bool:
        """Handle a request of the server to the client."""
        if not call.must_read:
            return True
        question = ServerQuestion(call.server, call.server_session, call.server_version, id)
        if call.session is None or call.modern or not call.session.capabilities or call.secret:
            self._servers.refuse(question)
            return False
        _replace(event, {**fields, "id": self._servers.sessions.ask(call.session, question)})
        return True

    def _answer(
        self, exchange: Exchange, call: Call, event: Frame, fields: dict[str, msgspec.Raw], id: rpc.Id | None
    ) -> None:
        expected = call.id if call.sent_id is None else call.sent_id
        if id != expected or type(id) is not type(expected):
            if "error" in fields and id in (None, "server-error", ""):  # an error from before the server read the id
                id = expected
            else:
                self._unreadable(call)
                return
        call.answered = True
        edits: dict[str, Any] = {} if call.id == msgspec.json.decode(fields.get("id", b"null")) else {"id": call.id}
        if "error" in fields:
            call.rpc_error = _code(fields["error"])
            self._note(exchange, str(call.rpc_error))
            if call.rpc_error == rpc.INVALID_PARAMS and exchange.request.operation == "tools/call":
                self._servers.again(call.server)
        else:
            edits |= self._result(exchange, call, fields["result"])
        if edits:
            _replace(event, {**fields, **edits})

    def _note(self, exchange: Exchange, error: str) -> None:
        assert exchange.answer.report is not None, "ReadAnswer wrote it"
        exchange.answer.report.error = error

    def _result(self, exchange: Exchange, call: Call, raw: msgspec.Raw) -> dict[str, Any]:
        """The changes of a result."""
        try:
            result = _fields(raw)
        except msgspec.DecodeError:
            self._unreadable(call)
            return {}
        if exchange.request.operation == "tools/call" and bytes(result.get("isError", b"")) == b"true":
            call.failed = True
            self._note(exchange, "tool_error")
        if call.modern and call.server_version in LEGACY:
            more: dict[str, Any] = {"resultType": "complete"} if "resultType" not in result else {}
            if exchange.request.operation in _CACHEABLE:
                more |= {"ttlMs": 0, "cacheScope": "private"}
            return {"result": {**more, **result}} if more else {}
        return {}


def too_long(call: Call, event: Frame) -> bool:
    """True for a piece of a message too long to be read; false for comments and events without data."""
    plain = not call.streamed and event.raw and not event.raw.startswith(b":")
    return bool(event.name == OVERSIZE or event.edges is not None or plain)


def _code(raw: msgspec.Raw) -> int:
    try:
        found = msgspec.json.decode(raw)["code"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
        return rpc.INTERNAL_ERROR
    return found if type(found) is int and abs(found) < 1 << 31 else rpc.INTERNAL_ERROR


def _replace(event: Frame, fields: Mapping[str, Any]) -> None:
    """Replace the message in an event."""
    data = rpc.encode(fields)
    if event.raw == event.data or event.raw.lstrip(b"\xef\xbb\xbf") == event.data:
        event.raw = data
    elif event.data is not None and event.raw.count(event.data) == 1:
        event.raw = event.raw.replace(event.data, data)
    else:  # the event has several lines of data
        event.raw = b"event: message\ndata: %b\n\n" % data
    event.data = data

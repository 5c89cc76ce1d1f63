"""Refusals as MCP clients take them.

Clients end their whole session at any status but 200. So an authenticated and well-formed request gets its refusal in
the body of a 200: for a tool call a result that the model can read, otherwise an error of JSON-RPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from extproc.access.questions import APPROVAL
from extproc.dialects import _usual
from extproc.dialects._replies import OpenAIReplies
from extproc.tools.mcp.call import CALL, Call
from extproc.wire.framing import rpc
from extproc.wire.framing.patch import patch
from extproc.words.actions import LocalReply
from extproc.words.api import AnswerFacts, Endpoints, Offers, Stored, Tools
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Endpoint, Fields, Step, Text
from extproc.words.errors import (
    CAPABILITY_MISSING,
    HEADER_MISMATCH,
    INVALID_JSON,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MCP_BAD_ANSWER,
    MCP_CREDENTIAL_REJECTED,
    MCP_SERVER_TIMEOUT,
    MCP_SERVER_UNAVAILABLE,
    METHOD_UNKNOWN,
    MISSING_KEY,
    PROFILE_NOT_ALLOWED,
    RESULT_TOO_LARGE,
    SESSION_NOT_FOUND,
    TOOL_NOT_FOUND,
    VERSION_UNSUPPORTED,
    Kind,
    Refusal,
)
from extproc.words.exchange import Exchange
from extproc.words.values import show_size

REFUSAL_META = "llm-extproc/refusal"
"""Key of `_meta` in the result of a refused call, for the code and the seconds until the next try."""
_JSON = {"content-type": "application/json"}
_AT_THE_EDGE = (HEADER_MISMATCH, VERSION_UNSUPPORTED, CAPABILITY_MISSING, SESSION_NOT_FOUND)
"""Refusals of messages that are well-formed JSON-RPC, but not a request of MCP."""


class RPCRefusal(Refusal):
    """A refusal with `data` for its error in JSON-RPC. `edge`: the refusal keeps its HTTP status. `code`: the refusal
    is an error with that code, of a tool's call too.
    """

    def __init__(
        self, kind: Kind, message: str, *, data: Mapping[str, Any] | None = None, edge: bool = False, code: int = 0
    ) -> None:
        super().__init__(kind, message)
        self.data = data or {}
        self.edge = edge
        self.code = code


def _called(body: Mapping[str, Any]) -> Sequence[Step]:
    """The call of a tool that a message makes."""
    params = body.get("params")
    if body.get("method") != "tools/call" or not isinstance(params, dict):
        return ()
    name = params.get("name")
    return [Step(name if isinstance(name, str) else "", params.get("arguments", {}))]


class AskUser(Refusal):
    """A refusal whose body is a question to the client's user (`input_required`)."""

    def __init__(self, kind: Kind, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(kind, message)
        self.result = result


_ANSWER = ("inputResponses", "requestState")


def take_answer(exchange: Exchange, state: str, key: str) -> tuple[str, Mapping[str, Any]]:
    """The answer of the client's user to the question `key` of the gateway, which is removed from the request: the
    rest of the request's state behind `state`, and the result of the elicitation. Both are empty without an answer.
    """
    call, params = exchange.features[CALL], exchange.request.json["params"]
    told = params.get("requestState")
    if not call.modern or not isinstance(told, str) or not told.startswith(state):
        return "", {}
    answers = params.get("inputResponses")
    kept = {name: value for name, value in params.items() if name not in _ANSWER}
    exchange.request.body = patch(exchange.request.body, {}, tuple(f"params.{name}" for name in _ANSWER))
    exchange.request.json["params"] = kept
    assert call.message is not None
    call.message.params = kept
    said = answers.get(key) if isinstance(answers, dict) else None
    return told.removeprefix(state), said if isinstance(said, dict) else {}


def elicits(call: Call, mode: str) -> bool:
    """True if the client can ask its user in this mode: form or url."""
    able = call.capabilities.get("elicitation")
    return isinstance(able, dict) and (mode in able or (mode == "form" and not able))


def asking(key: str, params: Mapping[str, Any], state: str) -> dict[str, Any]:
    """The result that asks the client's user (2026-07-28)."""
    asked = {"method": "elicitation/create", "params": params}
    return {"resultType": "input_required", "inputRequests": {key: asked}, "requestState": state}


_OFFERS = Offers(stored=Stored(unnamed=True), tools=Tools(steps=_called))


class JSONRPC:
    """The MCP gateway as an API, for the stages that all exchanges share. Each exchange has its own object."""

    name = "mcp"
    family = "mcp"
    fields = Fields(
        model=None,
        fixed=(),
        output_limits=(),
        needs={},
        spoken=frozenset(),
        files=frozenset(),
        opaque=frozenset(),
    )
    endpoints = Endpoints()
    answers = AnswerFacts(comments=True)
    translation = None
    observe, observe_edges = staticmethod(_usual.observe_nothing), staticmethod(_usual.observe_edges)
    said = staticmethod(_usual.said)

    def __init__(self, call: Call | None = None) -> None:
        self.replies = RpcReplies(call)
        self.offers = _OFFERS

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        raise NotImplementedError

    def smallest(self, model: str) -> dict[str, Any]:
        raise NotImplementedError

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return _usual.texts(body, self.fields)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        return _usual.conversation(self.texts(body))


class RpcReplies(OpenAIReplies):
    """Refusals in JSON-RPC, in answer to a call."""

    def __init__(self, call: Call | None) -> None:
        self._call = call

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:  # noqa: ARG002
        id = None if self._call is None else self._call.id
        return rpc.error(id, rpc_code(kind), message, {"code": kind.code})

    def cut_off(self, kind: Kind, message: str) -> bytes:
        """The refusal, in place of the answer, or as the last event of a stream."""
        assert self._call is not None, "it was forwarded"
        data = body_of(self._call, Refusal(kind, message))
        return b"\n\nevent: message\ndata: %b\n\n" % data if self._call.streamed else data


class Refuse:
    """Turns a refusal into the answer of an exchange. `resource` is the public address of the gateway."""

    def __init__(self, resource: str | None) -> None:
        self._resource = resource

    def __call__(self, exchange: Exchange, refusal: Refusal) -> LocalReply:
        call = exchange.features.get(CALL)
        kind, status = refusal.kind, refusal.kind.status
        if call is None or call.id is None:  # the message is unreadable, or its sender unknown
            headers = {}
            if status == 401 or kind is PROFILE_NOT_ALLOWED:
                headers["www-authenticate"] = self._challenge(call, kind)
            data = msgspec.json.encode(exchange.request.dialect.replies.error(kind, refusal.message, None))
            return LocalReply(status, data, {**_JSON, **refusal.headers, **headers}, kind.code)
        edge = getattr(refusal, "edge", False) or kind in _AT_THE_EDGE or (kind is METHOD_UNKNOWN and call.modern)
        return LocalReply(status if edge else 200, body_of(call, refusal), _JSON, kind.code)

    def _challenge(self, call: Call | None, kind: Kind) -> str:
        """The challenge header, which says where to get a token (RFC 9728, RFC 6750)."""
        parts = []
        if self._resource is not None and call is not None:
            parts.append(f'resource_metadata="{metadata_url(self._resource, call.profile)}"')
        if kind is PROFILE_NOT_ALLOWED:
            parts.append('error="insufficient_scope"')
        elif kind is not MISSING_KEY:
            parts.append('error="invalid_token"')
        return "Bearer " + ", ".join(parts) if parts else "Bearer"


def body_of(call: Call, refusal: Refusal, id: rpc.Id | None = None) -> bytes:
    """The message that refuses a request: a result, if a tool was called and the model can act on it, otherwise an
    error. `id` is the id of the request, if it differs from the client's.
    """
    id = call.id if id is None else id
    if isinstance(refusal, AskUser):
        return rpc.result(id, refusal.result)
    code = refusal.code if isinstance(refusal, RPCRefusal) else 0
    called = call.message is not None and call.message.method == "tools/call"
    if called and not code and refusal.kind.code not in _CODES:
        return rpc.result(id, refused_result(call, refusal))
    said = {**_said(refusal), **(refusal.data if isinstance(refusal, RPCRefusal) else {})}
    return msgspec.json.encode(rpc.error(id, code or rpc_code(refusal.kind), refusal.message, said))


def refused_result(call: Call, refusal: Refusal) -> dict[str, Any]:
    """The result of a call that was refused: one sentence for the model."""
    found: dict[str, Any] = {"content": [{"type": "text", "text": refusal.message}], "isError": True}
    if call.modern:
        found["resultType"] = "complete"
    return {**found, "_meta": {REFUSAL_META: _said(refusal)}}


def _said(refusal: Refusal) -> dict[str, Any]:
    said: dict[str, Any] = {"code": refusal.kind.code}
    if (wait := refusal.headers.get("retry-after")) is not None:
        said["retry_after"] = int(wait) if wait.isdecimal() else wait
    if (approval := refusal.headers.get(APPROVAL)) is not None:
        said["approval"] = approval
    return said


def rpc_code(kind: Kind) -> int:
    """The code in JSON-RPC for a refusal."""
    if kind.code in _CODES:
        return _CODES[kind.code]
    return rpc.INTERNAL_ERROR if kind.status >= 500 else rpc.INVALID_REQUEST if kind.status == 400 else -32000


_CODES = {
    INVALID_JSON.code: rpc.PARSE_ERROR,
    INVALID_REQUEST.code: rpc.INVALID_REQUEST,
    METHOD_UNKNOWN.code: rpc.METHOD_NOT_FOUND,
    TOOL_NOT_FOUND.code: rpc.INVALID_PARAMS,
    INVALID_PARAMS.code: rpc.INVALID_PARAMS,
    SESSION_NOT_FOUND.code: -32001,
    HEADER_MISMATCH.code: -32020,
    CAPABILITY_MISSING.code: -32021,
    VERSION_UNSUPPORTED.code: -32022,
    MCP_SERVER_UNAVAILABLE.code: rpc.INTERNAL_ERROR,
    MCP_SERVER_TIMEOUT.code: rpc.INTERNAL_ERROR,
    MCP_BAD_ANSWER.code: rpc.INTERNAL_ERROR,
    MCP_CREDENTIAL_REJECTED.code: rpc.INTERNAL_ERROR,
}
"""Refusals that are errors of JSON-RPC, because a model could not act on them."""


def metadata_url(resource: str, profile: str) -> str:
    """The address of a profile's document of RFC 9728."""
    return f"{resource}/.well-known/oauth-protected-resource/mcp/{profile}"


def too_large(call: Call) -> Refusal:
    """The refusal of an answer that is larger than its profile allows."""
    most = show_size(call.settings.max_result)
    text = f"The result of {call.name!r} is larger than {most}, the most that the gateway passes on: ask for less."
    return Refusal(RESULT_TOO_LARGE, text)


def unknown(method: str, name: str) -> Refusal:
    """The refusal of a name that is unknown or not granted: the same words for both."""
    if method == "resources/read":
        return RPCRefusal(TOOL_NOT_FOUND, "Resource not found", data={"uri": name[:256]})
    kind = {"prompts/get": "prompt", "completion/complete": "reference"}.get(method, "tool")
    return RPCRefusal(TOOL_NOT_FOUND, f"Unknown {kind}: {name[:256]}")

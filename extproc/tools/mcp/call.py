"""One exchange as the stages of the MCP gateway see it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.upstream.prices import NANO
from extproc.wire.framing import rpc
from extproc.wire.framing.patch import patch
from extproc.wire.framing.rpc import RpcMessage
from extproc.words.exchange import Exchange, FeatureKey

if TYPE_CHECKING:
    from extproc.access.questions import Question
    from extproc.tools.mcp.behalf import Caller
    from extproc.tools.mcp.catalogue import Catalogue, Definition
    from extproc.tools.mcp.profile_settings import MCPProfileSettings
    from extproc.tools.mcp.sessions import ClientSession, ServerQuestion
    from extproc.tools.mcp.settings import ToolPolicySettings

TOOLS_CALL, EXECUTE = "tools/call", "execute_tool"
"""MCP's method, and the operation that OpenTelemetry names it."""
MODERN = "2026-07-28"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
INFO_KEY = "io.modelcontextprotocol/clientInfo"
SERVER_KEY = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
OWN_META = "io.modelcontextprotocol/"
"""Prefix of the protocol's own names in `_meta`."""
INFO: Mapping[str, str] = {"name": "llm-extproc", "version": "1"}
"""The gateway's name for clients and servers."""
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Revisions with `initialize` and sessions, the newest first. Revisions without sessions are modern."""

CALLS: Mapping[str, str] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "completion/complete": "ref",
}
"""Methods that go to a server, each with the parameter that names its object. The ledger has a row for each call."""


canonical = msgspec.json.Encoder(order="sorted").encode
"""JSON with sorted keys."""


@dataclass(slots=True)
class Call:
    """Facts that the stages find out about one message. A field is unset until the stage named above it writes it."""

    # FindProfile
    profile: str
    settings: MCPProfileSettings
    # ParseRPC; None: the message could not be read, so refusals have no id
    message: RpcMessage | None = None
    # Era
    version: str = ""  # the client's version of the protocol
    capabilities: Mapping[str, Any] = field(default_factory=dict)  # the client's abilities
    session: ClientSession | None = None
    # AnswerLists
    own: Mapping[str, Catalogue] = field(default_factory=dict)  # lists that were read at servers with `lists: session`
    # FindServer
    name: str = ""  # the client's name of the tool or prompt, or the resource's URI
    server: str = ""
    tool: str = ""  # the server's own name of the tool or prompt
    entry: Definition | None = None  # definition of the object; None: a resource that is in no list
    policy: ToolPolicySettings | None = None  # policy of the called tool
    # UnwrapCall, ChangeCall
    rewritten: bool = False  # True: the arguments differ from the client's, or stood at another place
    # AwaitApproval, UseApproval
    approval: Question | None = None  # question to a person about the call
    # ForwardRPC
    server_version: str = ""  # version of the protocol that the server gets
    server_session: str = ""
    sent_id: rpc.Id | None = None  # id that the server got, if it differs from the client's
    question: ServerQuestion | None = None  # question of a server that this message answers
    must_read: bool = False  # True: the client cannot take the server's answer unchanged
    # GuardResult
    secret: bool = False  # True: the tool's result is in quarantine
    # the answer
    streamed: bool = False
    answered: bool = False  # True: the result, or an error, came
    failed: bool = False  # True: the tool's result has `isError`
    rpc_error: int = 0  # code of the server's error
    answer_bytes: int = 0
    # TakeToken
    caller: Caller | None = None  # user on whose behalf servers with `auth` are called
    # ForwardRPC
    on_behalf: bool = False  # True: the server got a token of the user
    server_subject: str = ""  # the user in the server's token, where it is known
    token_given: float = 0.0  # time at which the server's token was given, epoch seconds

    @property
    def listed_tool(self) -> str:
        return "" if self.entry is None else self.tool

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    @property
    def id(self) -> rpc.Id | None:
        return None if self.message is None else self.message.id

    @property
    def shown_session(self) -> str:
        """A digest of the client's session, whose id is a credential; empty without a session."""
        return "" if self.session is None else hashlib.sha256(self.session.id.encode()).hexdigest()[:16]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of a tool or prompt."""
        found = {} if self.message is None else self.message.params.get("arguments")
        return found if isinstance(found, dict) else {}

    def log_fields(self, exchange: Exchange) -> dict[str, Any]:
        """Log fields of the message: never arguments or results."""
        entry: dict[str, Any] = {
            "profile": self.profile,
            "mcp_server": self.server,
            "tool": self.tool[:256],
            "mcp_protocol": self.version,
            "rpc_id": self.id,
            "request_bytes": len(getattr(exchange.request, "body", b"")),
            "answer_bytes": self.answer_bytes,
            "attempts": exchange.answer.attempts,
            "complete": exchange.ending.complete,
        }
        if self.session is not None:
            entry["mcp_session"] = self.shown_session
        if self.message is not None and "arguments" in self.message.params:
            entry["arguments_sha256"] = hashlib.sha256(canonical(self.message.params["arguments"])).hexdigest()
        if self.approval is not None:
            entry["approval"], entry["decided_by"] = self.approval.id, self.approval.by
        if self.on_behalf and self.caller is not None:
            entry["subject"], entry["subject_issuer"] = self.caller.subject[:256], self.caller.issuer
        if self.on_behalf and self.server_subject:
            entry["server_subject"] = self.server_subject
        if exchange.money.cost:
            entry["cost_usd"] = exchange.money.cost / NANO
        if exchange.findings.tainted:
            entry["tainted"] = list(exchange.findings.tainted)
        return entry

    def span_attributes(self, exchange: Exchange) -> dict[str, str]:
        """Attributes of the message's span: never arguments or results."""
        found = {
            "mcp.protocol.version": self.version,
            "mcp.session.id": self.shown_session,
            "jsonrpc.request.id": "" if self.id is None else str(self.id),
            "rpc.response.status_code": str(self.rpc_error or ""),
            "extproc.mcp_server": self.server,
            "extproc.profile": self.profile,
        }
        if hasattr(exchange.request, "operation"):
            found["mcp.method.name"] = exchange.request.operation
            if exchange.request.operation == TOOLS_CALL:
                found["gen_ai.operation.name"], found["gen_ai.tool.name"] = EXECUTE, self.tool or self.name
        return found


CALL: FeatureKey[Call] = FeatureKey("call")
"""Key of the call, which FindProfile writes for a message to a profile."""


def owner(exchange: Exchange) -> str:
    """The consumer in the profile, and the user of its token, to which a session is bound."""
    call = exchange.features[CALL]
    user = "" if call.caller is None else f"#{call.caller.digest}"
    return f"{call.profile}/{exchange.consumer.name}{user}"


def rewrite(exchange: Exchange, edits: Mapping[str, Any], **params: Any) -> None:
    """Give a call other parameters: `edits` of its body as in `patch`, and `params` with their values."""
    call = exchange.features[CALL]
    assert call.message is not None
    exchange.request.body = patch(exchange.request.body, edits)
    call.message.params = exchange.request.json["params"] = {**call.message.params, **params}
    call.rewritten = True

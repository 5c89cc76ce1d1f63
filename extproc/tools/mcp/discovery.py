"""Discovery of tools by search: in a profile with `discovery: search` clients list three tools of the gateway in place
of all tools of its servers.

    find_tools      the tools that fit some words, in short    answered from the catalogues
    describe_tool   one definition as a list would show it     answered from the catalogues
    call_tool       UnwrapCall turns it into the call of the tool that it names, before any stage with a policy

Names, grants, pins, guardrails, budgets, approvals, taint and the ledger see the tool itself. A consumer finds and
calls exactly the tools that a list would show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.tools.mcp.call import CALL, TOOLS_CALL, Call, rewrite
from extproc.tools.mcp.names import CALL_TOOL, DESCRIBE_TOOL, FIND_TOOLS
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import unknown
from extproc.tools.mcp.search import decoded
from extproc.wire.framing.patch import fields_at
from extproc.words.dialect import Ask
from extproc.words.errors import INVALID_PARAMS, Refusal
from extproc.words.exchange import Exchange

_USUAL, _MOST = 5, 20  # tools that one search finds
_MOST_QUERY = 500  # characters of a query
_MOST_SHOWN = 240  # characters of a description in what a search finds
_MOST_ARGUMENTS = 24  # arguments of a tool in what a search finds
_encode = msgspec.json.encode


def _tool(name: str, description: str, required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {**required, **optional}, "required": [*required]}
    return {"name": name, "description": description, "inputSchema": schema}


_NAME = {"type": "string", "description": f"Name of the tool, as {FIND_TOOLS} gives it."}
DEFINITIONS = _encode(
    [
        _tool(
            FIND_TOOLS,
            "Search the tools that you can use here. There are many, and this is the only list of them: search before "
            f"you say that something cannot be done. Then call one with {CALL_TOOL}.",
            {
                "query": {
                    "type": "string",
                    "description": "Action, object and system in a few words, such as 'create issue github'.",
                }
            },
            limit={"type": "integer", "minimum": 1, "maximum": _MOST, "default": _USUAL},
        )
        | {"annotations": {"readOnlyHint": True}},
        _tool(DESCRIBE_TOOL, "Get the whole definition of a tool, with the schema of its arguments.", {"name": _NAME})
        | {"annotations": {"readOnlyHint": True}},
        _tool(
            CALL_TOOL,
            f"Call a tool that {FIND_TOOLS} found.",
            {"name": _NAME},
            arguments={"type": "object", "description": "Arguments of the tool, by its own schema."},
        ),
    ]
)
"""The tools of the gateway, as a list of a profile shows them."""


class UnwrapCall:
    """Turns a call of `call_tool` into the call of the tool that it names. Writes `call.name`, `call.rewritten`, `ask`,
    and the message.
    """

    def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        if not searched(call) or exchange.request.operation != TOOLS_CALL or call.name != CALL_TOOL:
            return
        name, given = call.arguments.get("name"), call.arguments.get("arguments", {})
        if not isinstance(name, str) or not isinstance(given, dict):
            raise Refusal(INVALID_PARAMS, f"{CALL_TOOL} needs the 'name' of a tool, and its 'arguments' as an object.")
        inner = fields_at(exchange.request.body, "params", "arguments").get("arguments", msgspec.Raw(b"{}"))
        edits = {"params.name": name, "params.arguments": inner}  # the arguments keep their bytes
        rewrite(exchange, edits, name=name, arguments=given)
        call.name = name
        exchange.request.ask = Ask(name, free=True)


def searched(call: Call) -> bool:
    """True in a profile whose tools are found by search."""
    return call.settings.discovery == "search"


class Discovery:
    """Answers `find_tools` and `describe_tool`."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    async def __call__(self, exchange: Exchange) -> dict[str, Any] | None:
        """The result of the gateway's own tool; None for a call of any other. Raises Refusal."""
        call = exchange.features[CALL]
        own = searched(call) and exchange.request.operation == TOOLS_CALL
        if not own or call.name not in (FIND_TOOLS, DESCRIBE_TOOL):
            return None
        exchange.request.operation = "tools/list"  # and like a list, it has no row in the ledger
        said = self._describe(exchange, call) if call.name == DESCRIBE_TOOL else await self._find(exchange, call)
        return {"content": [{"type": "text", "text": said.decode()}]}

    async def _find(self, exchange: Exchange, call: Call) -> bytes:
        query, most = call.arguments.get("query"), call.arguments.get("limit", _USUAL)
        if not isinstance(query, str) or not query.strip() or len(query) > _MOST_QUERY:
            raise Refusal(INVALID_PARAMS, f"{FIND_TOOLS} needs a 'query' of up to {_MOST_QUERY} characters.")
        if type(most) is not int or not 1 <= most <= _MOST:
            raise Refusal(INVALID_PARAMS, f"'limit' is a whole number from 1 to {_MOST}.")
        found = await self._profiles.search(exchange, query, most)
        if not found:
            return b"No tool has these words. Try others: the action and the object."
        return _encode(
            {"tools": [_short(name, self._profiles.client_form(call.profile, name, entry)) for name, entry in found]}
        )

    def _describe(self, exchange: Exchange, call: Call) -> bytes:
        name = call.arguments.get("name")
        entry = self._profiles.shown(exchange, "tools").get(name) if isinstance(name, str) else None
        if entry is None:
            raise unknown(TOOLS_CALL, str(name))
        return _encode(self._profiles.client_form(call.profile, str(name), entry))


def _short(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Name, beginning of the description, and arguments with their types; `?` marks the optional ones."""
    description, schema = (decoded(fields.get(field)) for field in ("description", "inputSchema"))
    schema = schema if isinstance(schema, dict) else {}
    properties, required = schema.get("properties"), schema.get("required")
    needed = required if isinstance(required, list) else ()
    arguments = {
        each if each in needed else f"{each}?": value.get("type", "any") if isinstance(value, dict) else "any"
        for each, value in list(properties.items() if isinstance(properties, dict) else ())[:_MOST_ARGUMENTS]
    }
    text = description if isinstance(description, str) else ""
    short = text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
    return {"name": name, "description": short, "arguments": arguments}

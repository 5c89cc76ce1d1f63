"""Tools as a profile changes them: another name, another description, arguments that are fixed or hidden.

Clients see the changed definition. ChangeCall gives a call the arguments of its server before any stage with a policy:
guardrails, approvals, log lines and the server see the same call. Pins and detectors judge the server's own definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec

from extproc.tools.mcp.call import CALL, TOOLS_CALL, rewrite
from extproc.tools.mcp.profile_settings import ToolChangeSettings
from extproc.wire.framing.names import fold
from extproc.wire.framing.patch import fields_at
from extproc.words.errors import INVALID_PARAMS, Refusal
from extproc.words.exchange import Exchange

_MOST_SHOWN = 64  # characters of an argument's name in a refusal


class ChangeCall:
    """Writes the fixed arguments into a call. A call that gives a fixed or hidden argument itself is refused, in any
    spelling that a server may take for it.
    """

    def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        if exchange.request.operation != TOOLS_CALL or call.message is None:
            return
        change = call.settings.servers[call.server].changes.get(call.tool)
        if change is None or not change.withheld:
            return
        if not isinstance(call.message.params.get("arguments"), dict | None):
            raise Refusal(INVALID_PARAMS, f"Tool {call.name!r} takes its arguments as an object.")
        withheld = {fold(name) for name in change.withheld}
        if (argument := next((name for name in call.arguments if fold(name) in withheld), None)) is not None:
            raise Refusal(INVALID_PARAMS, f"Tool {call.name!r} takes no argument {argument[:_MOST_SHOWN]!r}.")
        kept = fields_at(exchange.request.body, "params", "arguments")  # other arguments keep their bytes
        fixed = deepcopy(change.fixed)  # guardrails mask values in place
        rewrite(exchange, {"params.arguments": {**kept, **change.fixed}}, arguments={**call.arguments, **fixed})


def changed(fields: Mapping[str, Any], change: ToolChangeSettings) -> dict[str, Any]:
    """The fields of a definition as clients see them, without its name."""
    found = dict(fields)
    if change.description is not None:
        found["description"] = change.description
    if change.withheld and "inputSchema" in found:
        found["inputSchema"] = _without(msgspec.json.decode(found["inputSchema"]), change.withheld)
    return found


def _without(schema: Any, withheld: frozenset[str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    found, properties, required = dict(schema), schema.get("properties"), schema.get("required")
    if isinstance(properties, dict):
        found["properties"] = {name: value for name, value in properties.items() if name not in withheld}
    if isinstance(required, list):
        found["required"] = [name for name in required if not isinstance(name, str) or name not in withheld]
    return found

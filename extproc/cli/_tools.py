"""The way of a call of a tool through the gateway: `extproc check --explain --tool profile/name`.

Only the settings are known here, not the definitions that servers offer, counts or tainted runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from extproc.access.auth import ANONYMOUS, Access, ToolGrants
from extproc.guardrails.tools import ToolsSettings
from extproc.money.budgets import Leases, Reserve
from extproc.money.budgets.explain import explain_claim
from extproc.settings.config import Settings
from extproc.stores.memory import MemoryCounters
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.pins import Pins
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.refusals import JSONRPC
from extproc.tools.mcp.settings import ApproveSettings, MCPSettings, ToolPolicySettings
from extproc.words.dialect import Ask
from extproc.words.errors import Refusal
from extproc.words.exchange import ClientRequest, Consumer, Exchange, RequestHead
from extproc.words.values import Patterns

_WIDTH = 11
_Row = tuple[str, str]


@dataclass(slots=True, frozen=True)
class _Tool:
    """A tool by the name that clients see, and its place."""

    profile: str
    name: str
    server: str
    own: str  # the server's name of the tool
    policy: ToolPolicySettings


async def explain_tool(
    settings: Settings, wanted: str, consumer: str | None, labels: Mapping[str, str]
) -> tuple[Sequence[str], bool]:
    """Lines about a call of `profile/name`, and whether it would be sent. Raises ValueError for an unknown name."""
    if settings.mcp is None:
        raise ValueError("the settings have no `mcp`")
    tool = _find(settings.mcp, wanted)
    who = _consumer(settings, consumer)
    rows, refusal = [("tool", f"{tool.own} of server {tool.server}, as {tool.name} in profile {tool.profile}")], ""
    granted = who.tools(f"{tool.profile}/{tool.name}")
    rows.append(("consumer", f"{who.name}: {'may call it' if granted else 'was not granted it (`tools`)'}"))
    server = settings.mcp.servers[tool.server]
    if not granted or tool.policy.disabled:
        refusal = "tool_not_found"
    elif server.disabled:
        refusal = "mcp_server_unavailable"
    rows += [("policy", text) for text in _policy(tool, disabled=server.disabled)]
    change = settings.mcp.profiles[tool.profile].servers[tool.server].changes.get(tool.own)
    if change is not None:
        rows += [
            ("arguments", f"{name}: {'fixed' if name in change.fixed else 'hidden'}")
            for name in sorted(change.withheld)
        ]
    pin, changed = _pin(settings.mcp, tool)
    rows.append(("pin", pin))
    if changed and not refusal:
        refusal = "tool_changed"
    rows += [("guardrails", text) for text in _guardrails(settings, tool)]
    held, no = await _budgets(settings, tool, who, labels)
    rows += [("budgets", text) for text in held]
    if no and not refusal:
        refusal = no
    rows.append(("answer", f"refused: {refusal}" if refusal else f"forwarded to server {tool.server}"))
    rows.append(("not known", "whether the server offers it, counts, and tainted runs: ask `extproc mcp list`"))
    return [f"{label:<{_WIDTH}} {text}" for label, text in rows], not refusal


def _find(settings: MCPSettings, wanted: str) -> _Tool:
    profile, _, name = wanted.partition("/")
    if profile not in settings.profiles or not name:
        raise ValueError(f"give the tool as profile/name; profiles are {', '.join(settings.profiles)}")
    shares = settings.profiles[profile].servers.items()
    for server, share in sorted(shares, key=lambda each: -len(each[1].before(each[0]))):  # in the order of `mcp.names`
        prefix = share.before(server)
        own = share.own_name(name.removeprefix(prefix)) if name.startswith(prefix) and name != prefix else None
        if own is not None and Patterns(share.tools)(own):
            return _Tool(profile, name, server, own, settings.policy(server, own))
    raise ValueError(f"no server of profile {profile!r} can have a tool {name!r}: see its prefixes and `tools`")


def _consumer(settings: Settings, name: str | None) -> Consumer:
    if name is None:
        assert settings.mcp is not None
        return Consumer(ANONYMOUS, tools=ToolGrants([Patterns(settings.mcp.anonymous)]))
    entry = next((entry for entry in settings.consumers if entry.name == name), None)
    if entry is None:
        raise ValueError(f"there is no consumer {name!r}")
    return Access(settings.teams, settings.groups).consumer(entry)


def _policy(tool: _Tool, *, disabled: bool) -> Iterator[str]:
    policy = tool.policy
    if disabled:
        yield "its server is disabled"
    if policy.disabled:
        yield "disabled: it is in no list, and a call gets the words of an unknown tool"
    if policy.sensitive:
        yield "sensitive: refused in a run in which an untrusted tool has answered"
    if policy.untrusted:
        yield "untrusted: its answers taint the run"
    if policy.approve == "always":
        yield "approve: each call waits for a person"
    elif isinstance(policy.approve, ApproveSettings):
        yield from (f"approve: a call waits for a person unless {rule.text}" for rule in policy.approve.rules)
        if policy.approve.tainted:
            yield "approve: in a run in which an untrusted tool has answered, a call waits for a person"
    if policy.price:
        yield f"a call costs {policy.price:g} USD"
    if not disabled and policy == ToolPolicySettings():
        yield "none"


def _pin(settings: MCPSettings, tool: _Tool) -> tuple[str, bool]:
    if settings.pins is None or "tools" not in settings.pins.kinds:
        return "none: any definition is taken", False
    pins = Pins(settings.pins.file)
    found = pins.find(tool.server, "tools", tool.own)
    if found is not None:
        return f"{found[:12]}…: a definition with another digest is hidden", False
    warns = settings.pins.on_change == "warn"
    if pins.problem:
        return f"{settings.pins.file} is not used: {pins.problem}", not warns
    return f"not in {settings.pins.file}: {'offered, and logged' if warns else 'hidden'}", not warns


def _guardrails(settings: Settings, tool: _Tool) -> Iterator[str]:
    name, none = f"{tool.server}/{tool.own}", True
    for place in ("tool_descriptions", "tool_arguments", "tool_results"):
        for entry in settings.guardrails:
            if place not in entry.on:
                continue
            if entry.kind == "quarantine" and not Patterns(getattr(entry, "tools", ()))(name):
                continue
            none = False
            yield f"{entry.name} ({entry.kind}) reads {place.removeprefix('tool_')}: {entry.action}"
            if isinstance(entry, ToolsSettings):
                yield from (f"{entry.name}: {text}" for text in entry.build().rules(tool.name).values())
    if none:
        yield "none"


async def _budgets(
    settings: Settings, tool: _Tool, who: Consumer, labels: Mapping[str, str]
) -> tuple[Sequence[str], str]:
    """Budgets that the call counts in, and the refusal code of the budget that refuses it."""
    assert settings.mcp is not None
    call = Call(tool.profile, settings.mcp.profiles[tool.profile], name=tool.name, server=tool.server, tool=tool.own)
    call.policy = tool.policy
    exchange = Exchange("explained", ClientRequest(RequestHead("POST", "", {})))
    exchange.features[CALL], exchange.route.of_tools = call, True
    exchange.request.dialect, exchange.request.operation = JSONRPC(call), "tools/call"
    exchange.consumer, exchange.money.labels = who, {**who.labels, **labels}
    exchange.request.body, exchange.request.json, exchange.request.ask = b"", {}, Ask(tool.name)
    exchange.route.targets = (Policy(settings.mcp).target(call),)
    counters = MemoryCounters()
    reserve = Reserve(settings.budgets, counters, Leases(counters), None, lambda _budget, _verdict: None)
    try:
        await reserve(exchange)
    except Refusal as refusal:
        return [f"{exchange.money.denied_by} refuses: {refusal.message}"], refusal.kind.code
    found = [explain_claim(claim) for claim in exchange.money.reservation.claims]
    return found or ["none"], ""

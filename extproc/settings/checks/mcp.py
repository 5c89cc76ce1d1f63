"""Contradictions and lints of the MCP gateway's settings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.guardrails import RemoteSettings
from extproc.money.budgets.settings import TOOL_CALLS
from extproc.settings.document import Found
from extproc.tools.mcp.settings import HOP
from extproc.words.values import Pattern, is_private

if TYPE_CHECKING:
    from extproc.settings.config import Settings
    from extproc.tools.mcp.profile_settings import MCPProfileSettings
    from extproc.tools.mcp.settings import MCPSettings

_ALONE = "has no effect without mcp"
_LONGEST = 64  # most characters of a tool's name in the APIs of models


def contradictions(settings: Settings) -> Iterator[Found]:
    for index, entry in enumerate(settings.guardrails):
        if "tool_descriptions" in entry.on and isinstance(entry, RemoteSettings):
            message = "tool_descriptions are read by guardrails of this process alone, not by services"
            yield ("guardrails", index, "on"), message
    mcp = settings.mcp
    if mcp is None:
        return
    for name in mcp.servers:
        if HOP + name in settings.providers:
            yield ("mcp", "servers", name), f"the provider {HOP + name!r} would have the same name in Envoy"
    for name, profile in mcp.profiles.items():
        for server in profile.servers:
            if server not in mcp.servers:
                yield ("mcp", "profiles", name, "servers", server), f"there is no server {server!r} in mcp.servers"
        for first, second, text, certain in _shared(profile):
            if certain:
                message = f"{text!r} is also a tool of {first} in this profile: give one of the servers a prefix"
                yield ("mcp", "profiles", name, "servers", second), message
    if mcp.key is not None and mcp.key.read_or_last() is None:
        yield ("mcp", "key"), f"{mcp.key} is not set"
    if settings.processor.address is not None:
        yield ("processor", "address"), "the MCP gateway needs a socket that Envoy and the processor share"
    if settings.processor.workers > 1 and mcp.key is None and settings.auth.key_secret is None:
        yield ("mcp",), "several workers share sessions: give mcp.key or auth.key_secret"


def doubts(settings: Settings) -> Iterator[Found]:
    mcp = settings.mcp
    if mcp is None:
        yield from _grants_without(settings)
        for index, entry in enumerate(settings.guardrails):
            if {*entry.on} <= {"tool_arguments", "tool_descriptions"}:
                yield ("guardrails", index, "on"), _ALONE
        for index, budget in enumerate(settings.budgets):
            if budget.unit == TOOL_CALLS:
                yield ("budgets", index, "unit"), _ALONE
        return
    for name, server in mcp.servers.items():
        where = ("mcp", "servers", name)
        if server.token is not None and server.token.read() is None:
            yield where, f"{server.token} is not set: calls of its tools fail"
        if server.address.scheme == "http" and not is_private(server.address.hostname or ""):
            yield (*where, "url"), "http:// is not encrypted: others on the network can read tokens and results"
        if not any(name in profile.servers for profile in mcp.profiles.values()):
            yield where, "no profile offers this server"
    yield from _profile_doubts(settings, mcp)
    for pattern in mcp.tools:
        named = pattern.partition("/")[0]
        if "*" not in named and named not in mcp.servers:
            yield ("mcp", "tools", pattern), f"there is no server {named!r}: this policy never applies"
    if mcp.pins is not None:
        from extproc.tools.mcp.pins import load  # noqa: PLC0415 - most settings have no pins

        try:
            load(Path(mcp.pins.file))
        except FileNotFoundError:
            yield ("mcp", "pins", "file"), "there is no such file yet: no definition is offered until `extproc mcp pin`"
        except (OSError, ValueError) as error:
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            yield ("mcp", "pins", "file"), f"the file is not used, so every definition counts as new: {reason}"
    if mcp.approvals != type(mcp.approvals)() and not any(policy.approve for policy in mcp.tools.values()):
        yield ("mcp", "approvals"), "has no effect: no entry of mcp.tools has approve"
    for index, key in enumerate(mcp.sign_ins.keys if mcp.sign_ins is not None else ()):
        if key.read() is None:
            yield ("mcp", "sign_ins", "keys", index), f"{key} is not set: nobody can sign in without a key"
    if mcp.sign_ins is not None and not mcp.signs_in:
        yield ("mcp", "sign_ins"), "has no effect: no entry of mcp.servers has auth.sign_in"
    if mcp.resource is not None and not settings.auth.jwt and not mcp.signs_in:
        yield ("mcp", "resource"), "has no effect without auth.jwt: there is no issuer to tell clients of"
    if mcp.anonymous and settings.auth.required:
        yield ("mcp", "anonymous"), "has no effect while auth.required is true"


def _profile_doubts(settings: Settings, mcp: MCPSettings) -> Iterator[Found]:
    from extproc.access.auth import Access  # noqa: PLC0415 - most settings have no profiles

    access = Access(settings.teams, settings.groups)
    known = [access.consumer(entry) for entry in settings.consumers if entry.can_enter]
    for name, profile in mcp.profiles.items():
        where = ("mcp", "profiles", name)
        if settings.auth.required and not settings.auth.jwt and not any(each.tools.enters(name) for each in known):
            yield where, "no consumer may use this profile: grant tools to a consumer, a team or a group"
        for server, share in profile.servers.items():
            prefix = share.before(server)
            if len(prefix) > _LONGEST // 2:
                yield (*where, "servers", server), f"names begin with {len(prefix)} characters, of {_LONGEST} at most"
        for first, second in dict.fromkeys((first, second) for first, second, _, _ in _shared(profile)):
            message = (
                f"its tools may have the names of those of {first}: names that both have belong to {first}, and while "
            )
            message += f"the lists of {first} are not known, none of them is offered. Give one of the servers a prefix"
            yield (*where, "servers", second), message


def _shared(profile: MCPProfileSettings) -> Iterator[tuple[str, str, str, bool]]:
    """Pairs of servers whose tools can have the same name, with a pattern of the second server. True: a name that both
    want.
    """
    for (first, one), (second, two) in combinations(profile.servers.items(), 2):
        if one.before(first) != two.before(second):
            continue  # longer prefixes with the same beginning are compared once lists are known
        known = [one.name_of(each) for each in one.tools]
        for text in map(two.name_of, two.tools):
            if any(Pattern(each)(text) or Pattern(text)(each) for each in known):
                yield first, second, text, text in known and "*" not in text


def _grants_without(settings: Settings) -> Iterator[Found]:
    for index, entry in enumerate(settings.consumers):
        if entry.tools:
            yield ("consumers", index, "tools"), _ALONE
    for section, entries in (("teams", settings.teams), ("groups", settings.groups)):
        for name, each in entries.items():
            if each.tools:
                yield (section, name, "tools"), _ALONE

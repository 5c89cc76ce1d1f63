"""The operator's policy for tools: which definitions are hidden, and which calls and answers are refused.

    definition   kill switch · pin, or else: invisible characters · guardrails on: tool_descriptions   `Policy.judged`
    call         ToolPolicy: all of these, and sensitive tools in a tainted run · GuardCall · approvals.py · ReserveCall
    answer       MarkTaint · GuardResult: guardrails on: tool_results, and quarantine

A server's own statements about its tools (annotations) are never policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from extproc.guardrails import GuardInput, GuardrailSettings, RemoteSettings
from extproc.guardrails._base import DEFINITION, ROLES
from extproc.guardrails._guard import Guard
from extproc.stores import StoreError
from extproc.tools.mcp.call import CALL, CALLS, Call
from extproc.tools.mcp.catalogue import INSTRUCTIONS, NOUNS, Definition, Kind, is_app
from extproc.tools.mcp.pins import Pins, digest_of
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.mcp.unseen import invisible, texts
from extproc.tools.taint import Taint
from extproc.upstream import prices
from extproc.words.errors import TOOL_CHANGED, TOOL_WITHHELD, UNTRUSTED_CONTEXT, Refusal
from extproc.words.exchange import Exchange, Price, Target, Verdict
from extproc.words.values import Patterns

State = Literal["listed", "disabled", "changed", "withheld"]
"""The state of a definition. `changed`: it differs from its pin, or never was pinned. `withheld`: it has invisible
characters, a guardrail found something in it, or it is the instructions of an untrusted server.
"""


class Judged(NamedTuple):
    """The state of a definition, and the reason for people; empty for a listed definition."""

    state: State
    reason: str = ""


_LISTED = Judged("listed")
_MOST = 50_000  # most definitions whose checks are remembered
_FREE = Price(0, 0, 0, 0, 0)

log = logging.getLogger(__name__)


class Policy:
    """The states of definitions. `changed` is called once with server and tool for each definition that differs from
    its pin.
    """

    def __init__(
        self,
        settings: MCPSettings,
        guardrails: Sequence[GuardrailSettings] = (),
        *,
        changed: Callable[[str, str], None] = lambda _server, _tool: None,
        tell: Callable[[Verdict], None] = lambda _verdict: None,
        pins: Pins | None = None,
    ) -> None:
        self._settings = settings
        self._pins = pins or (Pins(settings.pins.file) if settings.pins is not None else None)
        self._warn_only = settings.pins is not None and settings.pins.on_change == "warn"
        local = [one for one in guardrails if not isinstance(one, RemoteSettings)]
        self._guards = [Guard(as_input(one), at) for at, one in enumerate(local) if "tool_descriptions" in one.on]
        self._quarantined = Patterns(
            [text for one in guardrails if one.kind == "quarantine" for text in getattr(one, "tools", ())]
        )
        self._known: dict[tuple[Kind, str, str, str], str] = {}  # kind, server, name, digest -> reason to withhold
        self._digests: dict[int, tuple[Definition, str]] = {}
        self._told: set[tuple[Kind, str, str, str]] = set()
        self._changed, self._tell = changed, tell
        self._prices: dict[float, Price] = {}

    @property
    def version(self) -> int:
        """A number that grows when states may have changed, so that lists are made anew."""
        if self._pins is None:
            return 0
        self._pins.look()
        return self._pins.version

    def state(self, entry: Definition) -> State:
        """The state of a definition."""
        return self.judged(entry).state

    def judged(self, entry: Definition) -> Judged:
        """The state of a definition, with the reason. A pin is a person's decision: no detector checks a pinned
        definition.
        """
        server = self._settings.servers[entry.server]
        if server.disabled:
            return Judged("disabled", "its server is switched off")
        if entry.kind == "tools" and self._settings.policy(entry.server, entry.name).disabled:
            return Judged("disabled", "it is switched off")
        if entry.kind == INSTRUCTIONS and server.untrusted:
            return Judged("withheld", "its server is untrusted")
        if entry.kind != "tools" and entry.is_app and not server.shows_apps:
            return Judged("withheld", "apps of its server are hidden")
        digest, pinned = self.digest(entry), self.pinned(entry)
        if pinned == digest:
            return _LISTED
        if reason := self._finding(entry, digest):
            return Judged("withheld", reason)
        if not self._needs_pin(entry.kind):
            return _LISTED
        self._note(entry, digest, pinned)
        reason = "its definition changed since it was pinned" if pinned else "its definition is not pinned yet"
        return _LISTED if self._warn_only else Judged("changed", reason)

    def pinned(self, entry: Definition) -> str | None:
        """The digest of a definition in the lock file."""
        return None if self._pins is None else self._pins.find(entry.server, entry.kind, entry.name)

    def pinned_names(self, server: str, kind: Kind) -> Collection[str] | None:
        """The names that a server can offer by its pins; None if pins do not limit them."""
        if self._pins is None or self._warn_only or not self._needs_pin(kind):
            return None
        return self._pins.names(server, kind)

    def _needs_pin(self, kind: Kind) -> bool:
        return self._settings.pins is not None and kind in self._settings.pins.kinds

    def hides(self, entry: Definition) -> bool:
        """True for a definition that lists leave out."""
        return self.state(entry) != "listed"

    def omitted(self, entry: Definition) -> tuple[str, ...]:
        """Fields of a definition that clients do not get: answers about a result in quarantine do not fit the server's
        output schema, and `_meta` names hidden apps.
        """
        if entry.kind != "tools":
            return ()
        schema = ("outputSchema",) if self._quarantined(f"{entry.server}/{entry.name}") else ()
        shown = self._settings.servers[entry.server].shows_apps or not entry.is_app
        return schema if shown else (*schema, "_meta")

    def hides_app(self, server: str, uri: str) -> bool:
        """True for the page of a hidden app, also if it is in no list."""
        return is_app(uri) and not self._settings.servers[server].shows_apps

    async def learn(self, entries: Iterable[Definition]) -> None:
        """Judge new definitions on a thread, so that the first list finds them judged."""
        new = [entry for entry in entries if self._key(entry, self.digest(entry)) not in self._known]
        if new:
            found = await asyncio.to_thread(lambda: [self._examine(entry) for entry in new])
            for entry, reason in zip(new, found, strict=True):
                self._remember(entry, self.digest(entry), reason)

    def target(self, call: Call) -> Target:
        """The target of a call, for budgets and the ledger."""
        price = (call.policy.price if call.policy is not None else None) or 0.0
        if (made := self._prices.get(price)) is None:
            made = prices.price(0, 0, per_request=price, version="settings") if price else _FREE
            self._prices[price] = made
        return Target(call.profile, call.server, call.tool, price=made)

    def digest(self, entry: Definition) -> str:
        """The digest of a definition, as a lock file has it."""
        known = self._digests.get(id(entry))
        if known is None or known[0] is not entry:
            if len(self._digests) >= _MOST:
                self._digests.clear()
            known = self._digests[id(entry)] = entry, digest_of(entry)
        return known[1]

    def _key(self, entry: Definition, digest: str) -> tuple[Kind, str, str, str]:
        return entry.kind, entry.server, entry.name, digest

    def _finding(self, entry: Definition, digest: str) -> str:
        known = self._known.get(self._key(entry, digest))
        return self._remember(entry, digest, self._examine(entry)) if known is None else known

    def _remember(self, entry: Definition, digest: str, reason: str) -> str:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[self._key(entry, digest)] = reason
        return reason

    def _examine(self, entry: Definition) -> str:
        """The reason to withhold a definition: invisible characters, or a finding of a blocking guardrail. Empty
        without a reason. May run on any thread.
        """
        definition = {name: entry.value(name) for name in entry.fields}
        where = f"{entry.server}/{entry.name}"
        if invisible(definition):
            log.error("the definition of %s has invisible characters: it is withheld unless it is pinned", where)
            return "its definition has characters that people do not see"
        failed = (guard.name for guard in self._guards if not self._passes(guard, definition, where))
        return f"guardrail {name!r} refused its definition" if (name := next(failed, None)) is not None else ""

    def _passes(self, guard: Guard, definition: Mapping[str, Any], where: str) -> bool:
        kinds: dict[str, int] = {}
        reason = ""
        deadline = time.monotonic() + guard.settings.timeout
        try:
            for text in texts(definition):
                for hit in guard.all_hits(text, DEFINITION, where, deadline):
                    kinds[hit.kind] = kinds.get(hit.kind, 0) + 1
        except Exception as error:  # noqa: BLE001 - withhold a definition that cannot be judged
            reason = getattr(error, "reason", "error")
        if not kinds and not reason:
            return True
        self._tell(Verdict(guard.name, "input", "failed" if reason else guard.action, kinds, reason))
        if reason:
            return not guard.closed
        passes = guard.action not in ("block", "mask")
        log.warning("guardrail %s found something in the definition of %s", guard.name, where)
        return passes

    def _note(self, entry: Definition, digest: str, pinned: str | None) -> None:
        key = self._key(entry, digest)
        if key in self._told:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add(key)
        self._changed(entry.server, entry.name)
        what = entry.kind, entry.server, entry.name
        log.warning("%s: the definition of %s/%s is %s, pinned was %s", *what, digest, pinned or "none")


def as_input(settings: GuardrailSettings) -> GuardrailSettings:
    """A copy of the guardrail that applies to any text."""
    style = "label" if settings.style == "reversible" else settings.style
    every = {"roles": ROLES} if "roles" in type(settings).model_fields else {}
    return settings.model_copy(update={"on": ("input",), "style": style, **every})


# --- the call


class ToolPolicy:
    """Writes `tainted`. Refuses calls whose definition changed or is withheld, and calls of sensitive tools in a
    tainted run.
    """

    def __init__(self, policy: Policy, taint: Taint) -> None:
        self._policy = policy
        self._taint = taint

    def __call__(self, exchange: Exchange) -> None:
        if exchange.request.operation not in CALLS:
            return
        call = exchange.features[CALL]
        if call.entry is not None:
            state, reason = self._policy.judged(call.entry)
            if state != "listed":
                kind = TOOL_CHANGED if state == "changed" else TOOL_WITHHELD
                noun = NOUNS[call.entry.kind].capitalize()
                message = f"{noun} {call.name!r} is withheld: {reason}, and the operator has to look at it."
                raise Refusal(kind, message)
        if exchange.request.operation == "resources/read" and self._policy.hides_app(call.server, call.name):
            raise Refusal(TOOL_WITHHELD, f"Resource {call.name!r} is withheld: apps of its server are hidden.")
        exchange.findings.tainted = self._taint.tools(exchange)
        if exchange.findings.tainted and call.policy is not None and call.policy.sensitive:
            read = ", ".join(exchange.findings.tainted[:3])
            message = f"Tool {call.name!r} is refused: untrusted content was read in this run ({read})."
            raise Refusal(UNTRUSTED_CONTEXT, message)


class GuardCall:
    """Refuses calls if a blocking guardrail finds something in their arguments, and masks findings of masking
    guardrails.
    """

    def __init__(self, guardrails: Sequence[GuardrailSettings], made: Callable[..., GuardInput]) -> None:
        chosen = [as_input(one) for one in guardrails if "tool_arguments" in one.on]
        self._guard = made(chosen) if chosen else None

    async def __call__(self, exchange: Exchange) -> None:
        if self._guard is not None and exchange.request.operation in CALLS:
            await self._guard(exchange)


class ReserveCall:
    """Writes `reservation`: budgets in `tool_calls`, USD and concurrency."""

    def __init__(self, reserve: Callable[[Exchange], Awaitable[None]]) -> None:
        self._reserve = reserve

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.request.operation in CALLS:
            exchange.request.ask.free = False
            await self._reserve(exchange)


# --- the answer


class MarkTaint:
    """Taints the run after any answer of an untrusted tool."""

    def __init__(self, settings: MCPSettings, taint: Taint) -> None:
        self._settings = settings
        self._taint = taint

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        if exchange.request.operation not in CALLS or not call.server:
            return
        policy = call.policy
        if policy.untrusted if policy is not None else self._settings.servers[call.server].untrusted:
            with contextlib.suppress(StoreError):  # this process knows the run anyway
                await self._taint.mark(exchange, f"{call.server}/{call.tool or call.name}")

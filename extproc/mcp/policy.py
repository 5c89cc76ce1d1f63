"""The operator's policy for tools: which definitions are hidden, and which calls and answers are refused.

    definition   kill switch · pin · invisible characters · guardrails on: tool_descriptions      `Policy.state`
    call         Judge: all of these, and sensitive tools in a tainted run · GuardCall · ReserveCall
    answer       MarkTaint · GuardResult: guardrails on: tool_results, and quarantine

Servers' own words about their tools (annotations) are never policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from extproc import prices
from extproc.guardrails import GuardInput, GuardrailSettings, RemoteSettings
from extproc.guardrails._guard import Guard
from extproc.mcp.call import CALLS, Call
from extproc.mcp.catalogue import Entry
from extproc.mcp.pins import Pins, digest_of, invisible, texts
from extproc.mcp.refusals import unknown
from extproc.mcp.settings import MCPSettings
from extproc.stores import StoreError
from extproc.taint import Taint
from extproc.words.errors import TOOL_CHANGED, UNTRUSTED_CONTEXT, Refusal
from extproc.words.exchange import Exchange, Price, Target
from extproc.words.values import Pattern
from extproc.words.verdicts import Verdict

State = Literal["listed", "disabled", "changed", "withheld"]
"""Of a definition. `changed`: it is not as it was pinned, or never was pinned. `withheld`: it has invisible characters,
or a guardrail found something in it.
"""
_MOST = 50_000  # definitions whose checks are remembered
_FREE = Price(0, 0, 0, 0, 0)

log = logging.getLogger(__name__)


class Policy:
    """The states of definitions. `changed` is told of each definition that differs from its pin, once: server, tool."""

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
        self._quarantined = [
            [Pattern(text) for text in getattr(one, "tools", ())] for one in guardrails if one.kind == "quarantine"
        ]
        self._known: dict[tuple[str, str, str], bool] = {}  # server, name, digest -> True for a sound definition
        self._digests: dict[int, tuple[Entry, str]] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._changed, self._tell = changed, tell
        self._prices: dict[float, Price] = {}

    @property
    def version(self) -> int:
        """Grows when states may have changed, so that lists are made anew."""
        if self._pins is None:
            return 0
        self._pins.look()
        return self._pins.version

    def state(self, entry: Entry) -> State:
        """What becomes of a definition."""
        if self._settings.servers[entry.server].disabled:
            return "disabled"
        if entry.kind == "tools" and self._settings.policy(entry.server, entry.name).disabled:
            return "disabled"
        digest = self.digest(entry)
        if not self._sound(entry, digest):
            return "withheld"
        if entry.kind == "tools" and self._pins is not None:
            pinned = self._pins.find(entry.server, entry.name)
            if pinned != digest:
                self._note(entry, digest, pinned)
                return "listed" if self._warn_only else "changed"
        return "listed"

    def pinned(self, entry: Entry) -> str | None:
        """The digest in the lock file."""
        return None if self._pins is None else self._pins.find(entry.server, entry.name)

    def hides(self, entry: Entry) -> bool:
        """True for a definition that is in no list."""
        return self.state(entry) != "listed"

    def omitted(self, entry: Entry) -> tuple[str, ...]:
        """Fields of a definition that clients do not get. The answers about a result in quarantine fit no schema of
        its server.
        """
        name = f"{entry.server}/{entry.name}"
        if entry.kind == "tools" and any(pattern(name) for patterns in self._quarantined for pattern in patterns):
            return ("outputSchema",)
        return ()

    async def learn(self, entries: Iterable[Entry]) -> None:
        """Look through new definitions on a thread, so that a first list finds them judged."""
        new = [entry for entry in entries if (entry.server, entry.name, self.digest(entry)) not in self._known]
        if new:
            found = await asyncio.to_thread(lambda: [self._examine(entry) for entry in new])
            for entry, sound in zip(new, found, strict=True):
                self._remember(entry, self.digest(entry), sound=sound)

    def target(self, call: Call) -> Target:
        """The destination of a call, as budgets and the ledger see it."""
        price = (call.policy.price if call.policy is not None else None) or 0.0
        if (made := self._prices.get(price)) is None:
            made = prices.price(0, 0, per_request=price, version="settings") if price else _FREE
            self._prices[price] = made
        return Target(call.profile, call.server, call.tool, price=made)

    def digest(self, entry: Entry) -> str:
        """The digest of a definition, as a lock file has it."""
        known = self._digests.get(id(entry))
        if known is None or known[0] is not entry:
            if len(self._digests) >= _MOST:
                self._digests.clear()
            known = self._digests[id(entry)] = entry, digest_of(entry)
        return known[1]

    def _sound(self, entry: Entry, digest: str) -> bool:
        known = self._known.get((entry.server, entry.name, digest))
        return self._remember(entry, digest, sound=self._examine(entry)) if known is None else known

    def _remember(self, entry: Entry, digest: str, *, sound: bool) -> bool:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[entry.server, entry.name, digest] = sound
        return sound

    def _examine(self, entry: Entry) -> bool:
        """True for a definition without invisible characters in which no blocking guardrail finds anything. May run on
        any thread.
        """
        definition = {name: entry.value(name) for name in entry.fields}
        where = f"{entry.server}/{entry.name}"
        if invisible(definition):
            log.error("the definition of %s has invisible characters: it is withheld", where)
            return False
        return all(self._passes(guard, definition, where) for guard in self._guards)

    def _passes(self, guard: Guard, definition: Mapping[str, Any], where: str) -> bool:
        kinds: dict[str, int] = {}
        reason = ""
        deadline = time.monotonic() + guard.settings.timeout
        try:
            for text in texts(definition):
                for _, _, kind in guard.all_hits(text, "system", where, deadline):
                    kinds[kind] = kinds.get(kind, 0) + 1
        except Exception as error:  # noqa: BLE001 - a definition that cannot be judged
            reason = getattr(error, "reason", "error")
        if not kinds and not reason:
            return True
        self._tell(Verdict(guard.name, "input", "failed" if reason else guard.action, kinds, reason))
        if reason:
            return not guard.closed
        passes = guard.action not in ("block", "mask")
        log.warning("guardrail %s found something in the definition of %s", guard.name, where)
        return passes

    def _note(self, entry: Entry, digest: str, pinned: str | None) -> None:
        key = entry.server, entry.name, digest
        if key in self._told:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add(key)
        self._changed(entry.server, entry.name)
        log.warning("the definition of %s/%s is %s, pinned was %s", entry.server, entry.name, digest, pinned or "none")


def as_input(settings: GuardrailSettings) -> GuardrailSettings:
    """The guardrail as one of all text it is given."""
    style = "label" if settings.style == "reversible" else settings.style
    return settings.model_copy(update={"on": ("input",), "style": style})


# --- the call


class Judge:
    """Writes `tainted`. Refuses tools that the operator switched off, whose definition changed or was
    refused, and sensitive ones in a run in which an untrusted tool has answered.
    """

    def __init__(self, policy: Policy, taint: Taint) -> None:
        self._policy = policy
        self._taint = taint

    def __call__(self, exchange: Exchange) -> None:
        if exchange.operation not in CALLS:
            return
        call: Call = exchange.mcp
        if call.entry is not None:
            state = self._policy.state(call.entry)
            if state == "disabled":
                raise unknown(exchange.operation, call.name)
            if state != "listed":
                message = f"Tool {call.name!r} is withheld: its definition changed, and the operator has to look at it."
                raise Refusal(TOOL_CHANGED, message)
        exchange.tainted = self._taint.tools(exchange, session_of(call))
        if exchange.tainted and call.policy is not None and call.policy.sensitive:
            read = ", ".join(exchange.tainted[:3])
            message = f"Tool {call.name!r} is refused: untrusted content was read in this run ({read})."
            raise Refusal(UNTRUSTED_CONTEXT, message)


def session_of(call: Call) -> str:
    return call.session.id if call.session is not None else ""


class GuardCall:
    """Refuses calls in whose arguments a blocking guardrail finds something, and masks the findings of others."""

    def __init__(self, guardrails: Sequence[GuardrailSettings], made: Callable[..., GuardInput]) -> None:
        chosen = [as_input(one) for one in guardrails if "tool_arguments" in one.on]
        self._guard = made(chosen) if chosen else None

    async def __call__(self, exchange: Exchange) -> None:
        if self._guard is not None and exchange.operation in CALLS:
            await self._guard(exchange)


class ReserveCall:
    """Writes `reservation`: budgets in `tool_calls`, USD and concurrency."""

    def __init__(self, reserve: Callable[[Exchange], Awaitable[None]]) -> None:
        self._reserve = reserve

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.operation in CALLS:
            exchange.ask.free = False
            await self._reserve(exchange)


# --- the answer


class MarkTaint:
    """Taints the run when an untrusted tool has answered, whatever it says."""

    def __init__(self, settings: MCPSettings, taint: Taint) -> None:
        self._settings = settings
        self._taint = taint

    async def __call__(self, exchange: Exchange) -> None:
        call: Call = exchange.mcp
        if exchange.operation not in CALLS or not call.server:
            return
        policy = call.policy
        if policy.untrusted if policy is not None else self._settings.servers[call.server].untrusted:
            with contextlib.suppress(StoreError):  # this process knows
                await self._taint.mark(exchange, f"{call.server}/{call.tool or call.name}", session_of(call))

"""GuardOutput: guardrails over the events of an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from extproc.guardrails._audits import Audits
from extproc.guardrails._base import Finding, GuardrailSettings, IdleSettings
from extproc.guardrails._channel import Window
from extproc.guardrails._guard import Guard
from extproc.guardrails._guarding import GUARDING, Guarding, guarding, signed
from extproc.guardrails._mask import Mask, Restore
from extproc.guardrails._remote import Context, Passage
from extproc.guardrails._threads import INLINE, TURN, Threads
from extproc.guardrails._watch import MOST_WHOLE, Watch
from extproc.wire.framing import Frame, Framing
from extproc.wire.framing.json import WholeBody
from extproc.wire.outbound.service import Failure, together
from extproc.words.contract import GUARDRAILS
from extproc.words.errors import GUARDRAIL_UNAVAILABLE, Refusal
from extproc.words.exchange import Exchange, Verdict

_MOST_KNOWN = 16  # most texts whose findings are kept: some APIs repeat each text
_GRACE = 1.0  # seconds beyond the guardrails' own time limits


class GuardOutput:
    """Holds events back until the guardrails have judged their text, masks, and ends an answer that must not go on."""

    changes_length = True
    merges = guards = parses = True

    def __init__(
        self,
        guardrails: Sequence[GuardrailSettings],
        tell: Callable[[Verdict], None],
        *,
        first_window: int = 128,
        most: int = 64,
        most_whole: int = MOST_WHOLE,
        audits: Audits | None = None,
    ) -> None:
        self._masks = {one.name: Mask(one) for one in guardrails}
        self._tell = tell
        self._audits = audits or Audits()
        self._first_window, self._most_whole = first_window, most_whole
        self._threads = Threads(most)

    def needed(self, exchange: Exchange, framing: Framing) -> bool:
        guarding = exchange.features.get(GUARDING)
        if guarding is None or (not guarding.readers and guarding.vault is None):
            return False
        plain = isinstance(framing, WholeBody)
        guarding.cost = sum(guard.cost for guard in guarding.guards) if plain else 0.0
        guarding.watch = self._watch(exchange, guarding, plain=plain)
        return True

    def _watch(self, exchange: Exchange, guarding: Guarding, *, plain: bool) -> Watch:
        guards, vault = list(guarding.readers), guarding.vault
        restore: Guard | None = None
        if vault is not None:
            settings = IdleSettings.model_construct(name="", kind="restore", action="mask", on=("output",))
            restore = Guard(settings, -1).using(Restore(vault.kept))
            guards.append(restore)

        def label(guard: Guard, kind: str, found: str) -> str:
            if guard is restore:
                return vault.kept[kind] if vault is not None else ""
            return self._masks[guard.name](kind, found)

        def tell(verdict: Verdict) -> None:
            if verdict.guardrail and exchange.answer.cut is None:  # a thread beyond its time limit may still be working
                exchange.findings.add(verdict)
                self._tell(verdict)

        window, most = self._first_window, self._most_whole
        return Watch(
            exchange.request.dialect,
            guards,
            label,
            tell,
            plain=plain,
            first_window=window,
            most_whole=most,
            signed=bool(signed(exchange)),
        )

    def unreadable(self, exchange: Exchange) -> None:
        """Handle an answer that the gateway cannot read. Raises Refusal (503) if a guardrail must not fail."""
        self._failed(exchange, "unreadable")
        for guard in guarding(exchange).guards:
            if guard.closed:
                message = f"Guardrail {guard.name!r} cannot read the answer; it was withheld."
                raise Refusal(GUARDRAIL_UNAVAILABLE, message, headers={GUARDRAILS: f"{guard.name}:failed"})

    def _failed(self, exchange: Exchange, reason: str) -> None:
        for guard in guarding(exchange).guards:
            verdict = Verdict(guard.name, "output", "failed", reason=reason)
            exchange.findings.add(verdict)
            self._tell(verdict)

    def overdue(self, exchange: Exchange) -> Sequence[Frame] | None:
        """See `framing.events.EventStage`."""
        watch = exchange.features[GUARDING].watch
        assert watch is not None, "see needed"
        return watch.overdue()

    async def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:
        guarding = exchange.features[GUARDING]
        watch = guarding.watch
        assert watch is not None, "see needed"
        size = sum(len(event.raw) for event in events)
        long = size * guarding.cost > TURN or watch.fills_window(size, end=end)
        quick = size <= INLINE and (not long or self._threads.full)
        if quick and not watch.heavy:
            out = watch.take(events, end)
        else:
            longest = max((guard.settings.timeout for guard in guarding.guards), default=1.0)
            try:
                out = await self._threads.run(partial(watch.take, events, end), longest + _GRACE)
            except Failure as failure:  # end the answer, as the thread may still work on it
                self._failed(exchange, failure.reason)
                exchange.answer.cut = Refusal(GUARDRAIL_UNAVAILABLE, "The answer could not be checked in time.")
                return ()
        if watch.asking and watch.refusal is None:
            out = [*out, *await self._ask(exchange, watch)]
        exchange.answer.cut = watch.refusal
        return out

    async def _ask(self, exchange: Exchange, watch: Watch) -> Sequence[Frame]:
        """The events that may leave once services have judged their text. Audit-only services are asked without
        waiting.
        """
        asks = watch.asks()
        for guard, windows in asks:
            if guard.aside:
                self._audits.answer(exchange, guard, windows, self._tell)
        if not watch.remote:
            return ()
        context = Context("output", exchange.id, exchange.consumer.name, exchange.request.ask.model)
        then = time.monotonic()

        async def judge(guard: Guard, text: str, window: Window) -> Sequence[Finding]:
            passage = Passage(text, window.channel.role, window.channel.where)
            [found] = await guard.ask([passage], context, then + guard.settings.timeout)
            return found

        async def findings(guard: Guard, windows: Sequence[Window]) -> _Answer:
            found = {each.text: watch.known.get((guard.name, each.text)) for each in windows if each.text.strip()}
            new = {each.text: each for each in windows if each.text in found and found[each.text] is None}
            # One call for each text: for several texts a service may not tell which one it means.
            work = [partial(judge, guard, text, window) for text, window in new.items()]
            try:
                answers = dict(zip(new, await together(work), strict=True))
            except Failure as failure:
                return guard, windows, failure
            if len(watch.known) > _MOST_KNOWN:
                watch.known.clear()
            watch.known.update({(guard.name, text): each for text, each in answers.items()})
            return guard, windows, [answers.get(each.text) or found.get(each.text) or () for each in windows]

        return watch.judged(
            await together([partial(findings, guard, windows) for guard, windows in asks if not guard.aside])
        )


_Answer = tuple[Guard, Sequence[Window], Sequence[Sequence[Finding]] | Failure]

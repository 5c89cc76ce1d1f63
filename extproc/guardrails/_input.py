"""GuardInput: chooses the guardrails of a request, and searches its text with them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from extproc.guardrails._across import split_hits, unquoted_hits
from extproc.guardrails._applies import Chosen
from extproc.guardrails._audits import Audits
from extproc.guardrails._base import GuardrailSettings
from extproc.guardrails._collect import Collected, Source, collect, is_word
from extproc.guardrails._guard import Guard
from extproc.guardrails._guarding import guarding
from extproc.guardrails._mask import Mask, Vault
from extproc.guardrails._remote import Around, Context, Passage, RemoteSettings, Replacer
from extproc.guardrails._results import Results
from extproc.guardrails._screen import screens
from extproc.guardrails._source import Edit, Hit, render
from extproc.guardrails._threads import INLINE, TEXT_COST, TURN, Threads
from extproc.wire.framing.multipart import is_form
from extproc.wire.framing.patch import replaced, rewritten
from extproc.wire.outbound.service import Failure, bounded, together
from extproc.words.contract import GUARDRAILS
from extproc.words.errors import GUARDRAIL_BLOCKED, GUARDRAIL_UNAVAILABLE, INVALID_REQUEST, Refusal
from extproc.words.exchange import MOST_EXAMPLES, Example, Exchange, Verdict

_MOST_NAMED = 32
_MOST_WHERE = 256  # most characters of a path in the audit trail
_LASTING = ("too_long", "too_many")  # reasons of failures that another try cannot change


Called = Callable[[str, str, str, float], None]
"""Called after each call to a service: guardrail, kind, outcome, seconds."""
_Made = TypeVar("_Made")


class GuardInput:
    """Refuses (400) a request in which a blocking guardrail finds something, anywhere a client can put text, and masks
    findings of masking guardrails. Writes `guards`, the guardrails of the answer.

    `also` are models that any request may be sent to after this stage, by a budget that downgrades. `around` are
    settings for guardrails that ask a service; `called` gets each of their calls: guardrail, kind, outcome, seconds.
    `results` are tool results in quarantine. `audits` asks for guardrails that stand aside. `named`: the request may
    name guardrails in a header.
    """

    def __init__(
        self,
        guardrails: Sequence[GuardrailSettings],
        tell: Callable[[Verdict], None],
        *,
        most: int = 64,
        also: Sequence[str] = (),
        around: Around | None = None,
        called: Called = lambda _guardrail, _kind, _outcome, _seconds: None,
        results: Results | None = None,
        audits: Audits | None = None,
        named: bool = True,
    ) -> None:
        self._guards = [Guard(settings, order, around) for order, settings in enumerate(guardrails)]
        self._own = {one.asks_as for one in guardrails if isinstance(one, RemoteSettings) and one.asks_as}
        for guard in self._guards:
            for service in guard.services:
                service.observe = partial(called, guard.name, guard.settings.kind)
        self._screens = screens(self._guards)
        self._names = {guard.name: guard for guard in self._guards}
        self._masks = {guard.name: Mask(guard.settings) for guard in self._guards if guard.masks}
        self._threads = Threads(most)
        self._chosen = Chosen(self._guards, also)
        self._tell = tell
        self._results = results or Results()
        self._audits = audits or Audits()
        self._named = named

    async def __call__(self, exchange: Exchange) -> None:
        if not self._guards and GUARDRAILS not in exchange.request.head.headers:
            return
        guards = self.chosen(exchange)
        if exchange.consumer.require:
            _check_services(guards, exchange)
        for guard in guards:
            if guard.replacer is not None:  # replace first: other guardrails read the text that the model will read
                await self._replace(exchange, guard, guard.replacer)
        guarding(exchange).guards = tuple(
            self._bound(
                exchange,
                [guard for guard in guards if guard.on_answer and not exchange.request.dialect.answers.wordless],
            )
        )
        for guard in guards:
            if guard.measures:
                await self._measure(exchange, guard)
        if asked := [guard for guard in guards if guard.on_request]:
            await self._search(exchange, asked)

    def chosen(self, exchange: Exchange) -> Sequence[Guard]:
        """The guardrails of the request: by the settings, and by names in its header. Raises Refusal (400) for an
        unknown name, because the client relies on that guardrail.
        """
        named: set[str] = set()
        told = exchange.request.head.headers.get(GUARDRAILS, "") if self._named else ""
        for name in told.split(",")[: _MOST_NAMED + 1]:
            if not (name := name.strip()):
                continue
            if name not in self._names or len(named) >= _MOST_NAMED:
                message = f"The header {GUARDRAILS} names a guardrail that the gateway does not have."
                raise Refusal(INVALID_REQUEST, message, param=GUARDRAILS)
            named.add(name)
        guards = self._chosen.of(exchange, [self._names[name] for name in named])
        # A guardrail's own question: its text was judged before, and judging it again would never end.
        if exchange.consumer.name in self._own:
            return [guard for guard in guards if guard.masks and guard.remote is None and guard.on_request]
        return guards

    def _bound(self, exchange: Exchange, guards: Sequence[Guard]) -> Iterator[Guard]:
        """The guardrails of the answer, each bound to this exchange."""
        for guard in guards:
            try:
                bound = guard.bound(exchange)
            except Failure as failure:
                self._fail(exchange, guard, failure)
            else:
                if bound is not None:
                    if bound.withholds is not None and bound.action == "block":
                        self._withhold(exchange, bound, bound.withholds.withheld)
                    yield bound

    def _withhold(self, exchange: Exchange, guard: Guard, withheld: Callable[[str], bool]) -> None:
        """Remove tools from the request."""
        changed, names = exchange.request.dialect.offers.tools.without(exchange.request.json, withheld)
        if names:
            self._note(exchange, Verdict(guard.name, "input", "mask", {"sensitive_tool": len(names)}))
            exchange.request.body, exchange.request.masked = (
                replaced(exchange.request.body, exchange.request.json, changed),
                True,
            )

    async def _replace(self, exchange: Exchange, guard: Guard, replacer: Replacer) -> None:
        """Replace tool results by answers about them."""
        found = [
            one
            for one in exchange.request.dialect.offers.tools.results(exchange.request.json)
            if replacer.meant(one.tool)
        ]
        fixed = [one.tool for one in found if one.written is None]
        if fixed := [*fixed, *(name for name in exchange.request.ask.hosted if replacer.meant(name))]:
            self._note(exchange, Verdict(guard.name, "input", "block", {"provider_tool": len(fixed)}))
            tool = repr(fixed[0]) if fixed[0] else "a tool"
            message = f"Guardrail {guard.name!r} cannot put results of {tool} in quarantine: the provider has them."
            raise _blocked(guard, message, "")
        if not found:
            return
        consumer, size = exchange.consumer.name, len(exchange.request.body)
        deadline = time.monotonic() + guard.settings.timeout
        read = await _done(partial(replacer.read, found, consumer), size)
        try:
            texts = await bounded(replacer.shown(read, consumer, self._results, deadline), deadline)
        except Failure as failure:
            self._fail(exchange, guard, failure)
            raise AssertionError("it fails closed") from None
        changed: dict[tuple[int, Any], Any] = {}
        for one, text in zip(found, texts, strict=True):
            assert one.written is not None
            if (new := one.written(text)) != one.holder[one.key]:
                changed[id(one.holder), one.key] = new
        if changed:
            self._note(exchange, Verdict(guard.name, "input", guard.action, {"quarantined": len(changed)}))
            work = partial(rewritten, exchange.request.body, exchange.request.json, changed)
            exchange.request.body, exchange.request.masked = await _done(work, size), True

    async def _measure(self, exchange: Exchange, guard: Guard) -> None:
        try:
            if len(exchange.request.body) <= INLINE:
                found = guard.measure(exchange)
            else:
                work = partial(guard.measure, exchange)
                found = await self._threads.run(work, guard.settings.timeout, len(exchange.request.body))
        except Failure as failure:
            self._fail(exchange, guard, failure)
            return
        if not found:
            return
        for action, kinds in guard.by_action({one.kind: 1 for one in found}).items():
            self._note(exchange, Verdict(guard.name, "input", action, kinds))
            if action == "block":
                first = next(one for one in found if one.kind in kinds)
                message = f"Guardrail {guard.name!r}: {first.message} The request was not sent."
                raise _blocked(guard, message, first.where)

    async def _search(self, exchange: Exchange, guards: Sequence[Guard]) -> None:
        if unreadable := exchange.request.ask.unreadable:
            for guard in guards:
                if guard.closed:
                    what = "a file of an unknown kind" if is_form(exchange.request.body) else "token ids"
                    if exchange.route.kept.object:
                        what = "a part of a file, or a file of an unknown kind"
                    message = f"'{unreadable}' holds {what}, which guardrails cannot read: send text."
                    raise _blocked(guard, message, unreadable)
                self._note(exchange, Verdict(guard.name, "input", "failed", reason="unreadable"))
        then = time.monotonic()
        local = [guard for guard in guards if guard.remote is None]
        collected, found = await self._scan(exchange, local, then, max(guard.settings.timeout for guard in guards))
        self._say_unsearched(exchange, guards, collected if isinstance(collected, Collected) else Collected())
        if isinstance(collected, Failure):
            for guard in guards:
                self._fail(exchange, guard, collected)
            return
        edits = self._judged(exchange, collected.sources, found)
        for guard in guards:
            if guard.aside and (asked := _asked(guard, collected.sources)):
                self._audits.request(exchange, guard, [*asked.values()], self._tell)
        if remote := [guard for guard in guards if guard.remote is not None and not guard.aside]:
            answers = await together([partial(self._ask, guard, collected.sources, exchange, then) for guard in remote])
            edits += self._judged(exchange, collected.sources, answers)
        if edits:
            body = await _done(partial(self._masked, exchange, collected.sources, edits), len(exchange.request.body))
            exchange.request.masked = exchange.request.masked or body is not exchange.request.body
            exchange.request.body = body

    def _say_unsearched(self, exchange: Exchange, guards: Sequence[Guard], collected: Collected) -> None:
        """Note content that guardrails could not search: images, sound, packed files, content outside the body. Raises
        Refusal (400) if a guardrail is set to refuse it.
        """
        ask = exchange.request.ask
        kinds = dict.fromkeys(ask.unseen, 1)
        if ask.images:
            kinds["image"] = ask.images
        if collected.missed:
            kinds["file"] = len(collected.missed)
        for guard in guards:
            unsearched = _skipped(guard, collected.sample)
            if guard.enforces and "input" in guard.on:
                unsearched |= kinds
            if not unsearched:
                continue
            if guard.enforces and guard.settings.unsearched == "refuse":
                self._note(exchange, Verdict(guard.name, "input", "block", unsearched))
                message = (
                    f"Guardrail {guard.name!r} cannot search {', '.join(sorted(unsearched))}; the request was not sent."
                )
                raise _blocked(guard, message, collected.missed[0].where if collected.missed else "")
            verdict = Verdict(guard.name, "input", "unsearched", unsearched)
            if guard.action == "audit":  # clients get no word of audits
                exchange.findings.verdicts.append(verdict)
                self._tell(verdict)
            else:
                self._note(exchange, verdict)

    async def _scan(
        self, exchange: Exchange, guards: Sequence[Guard], then: float, longest: float
    ) -> tuple[Collected | Failure, Sequence[_Found]]:
        """The text of the request, and the findings of guardrails that ask no service."""
        size = len(exchange.request.body)
        small = size <= INLINE
        try:
            work = partial(collect, exchange)
            collected = work() if small else await self._threads.run(work, longest, size)
            sources, met = collected.sources, guards
            for screen in self._screens:
                look = partial(screen.passed, met, partial(_attempt, sources=sources, then=then))
                quick = small and (TEXT_COST * len(sources) < TURN / 2 or self._threads.full)
                met = look() if quick else await self._threads.run(look, longest, size)
        except Failure as failure:
            return failure, ()
        results = await self._attempt_all(met, sources, then, size, TURN if small else 0.0)
        by_order = {guard.order: result for guard, result in zip(met, results, strict=True)}
        return collected, [(guard, by_order.get(guard.order, {})) for guard in guards]

    async def _attempt_all(
        self, guards: Sequence[Guard], sources: Sequence[Source], then: float, size: int, turn: float
    ) -> Sequence[Hits | Failure]:
        """The findings of each guardrail. Guardrails run on the event loop while their costs fit into a turn, given in
        microseconds, and otherwise on threads. A small request stays on the loop if all threads are busy.
        """
        characters = sum(len(source.written.text) for source in sources) if turn else 0
        found: dict[int, Hits | Failure] = {}
        left = turn
        for number, guard in enumerate(guards):
            cost = guard.cost * characters + TEXT_COST * len(sources)
            if turn and (cost <= left or self._threads.full):
                left -= cost
                found[number] = _attempt(guard, sources, then)
        aside = [number for number in range(len(guards)) if number not in found]
        work = [self._attempt_aside(guards[number], sources, then, size) for number in aside]
        found |= zip(aside, await asyncio.gather(*work), strict=True) if work else ()
        return [found[number] for number in range(len(guards))]

    async def _attempt_aside(self, guard: Guard, sources: Sequence[Source], then: float, size: int) -> Hits | Failure:
        try:
            left = then + guard.settings.timeout - time.monotonic()
            return await self._threads.run(partial(_attempt, guard, sources, then), max(left, 0.001), size)
        except Failure as failure:
            return failure

    async def _ask(self, guard: Guard, sources: Sequence[Source], exchange: Exchange, then: float) -> _Found:
        """The findings of a service."""
        asked = _asked(guard, sources)
        if not asked:
            return guard, {}
        context = Context("input", exchange.id, exchange.consumer.name, exchange.request.ask.model)
        try:
            answers = await guard.ask([*asked.values()], context, then + guard.settings.timeout)
        except Failure as failure:
            return guard, failure
        return guard, {
            index: sorted({Hit.of(one) for one in findings}, key=Hit.key)
            for index, findings in zip(asked, answers, strict=True)
            if findings
        }

    def _judged(self, exchange: Exchange, sources: Sequence[Source], found: Iterable[_Found]) -> list[_Edits]:
        """Act on findings and failures. Returns the findings to mask. Raises Refusal."""
        edits: list[_Edits] = []
        for guard, hits in found:
            if isinstance(hits, Failure):
                self._fail(exchange, guard, hits)
            elif hits:
                self._act(exchange, guard, sources, hits)
                if guard.masks:
                    edits.append((guard, hits))
        return edits

    def _fail(self, exchange: Exchange, guard: Guard, failure: Failure) -> None:
        self._note(exchange, Verdict(guard.name, "input", "failed", reason=failure.reason))
        if guard.closed and failure.reason in _LASTING:
            what = "has too many findings" if failure.reason == "too_many" else "cannot check that much text"
            raise _blocked(guard, f"Guardrail {guard.name!r} {what}; the request was not sent.", "")
        if guard.closed:
            message = f"Guardrail {guard.name!r} could not check the request; it was not sent."
            raise Refusal(GUARDRAIL_UNAVAILABLE, message, headers={GUARDRAILS: f"{guard.name}:failed"})

    def _act(self, exchange: Exchange, guard: Guard, sources: Sequence[Source], hits: Hits) -> None:
        found = [(index, hit) for index, each in sorted(hits.items()) for hit in each]
        ruled = guard.action == "mask" and any(hit.blocks for _, hit in found)
        if guard.masks and not ruled:
            left = {one for one in found if sources[one[0]].signed and guard.action_of(one[1].kind) == "mask"}
            if left:
                found = [one for one in found if one not in left]
                self._note(exchange, Verdict(guard.name, "input", "annotate", Counter(hit.kind for _, hit in left)))
        for action, kinds in guard.by_action(Counter(hit.kind for _, hit in found)).items():
            mine = [one for one in found if one[1].kind in kinds]
            examples = [_example(guard, sources[index], hit) for index, hit in mine[:MOST_EXAMPLES]]
            self._note(exchange, Verdict(guard.name, "input", "block" if ruled else action, kinds, examples=examples))
            for index, hit in mine if action in ("block", "mask") else ():
                source, blocks = sources[index], action == "block" or hit.blocks
                if blocks or (not source.texts and not ruled):
                    said = "; the request was not sent." if blocks else ", which it cannot mask; it was not sent."
                    said += f" {hit.ruling.message}" if blocks and hit.ruling and hit.ruling.message else ""
                    message = f"Guardrail {guard.name!r} matched {source.where} ({hit.kind}){said}"
                    raise _blocked(guard, message, source.where)

    def _note(self, exchange: Exchange, verdict: Verdict) -> None:
        exchange.findings.add(verdict)
        self._tell(verdict)

    def _masked(self, exchange: Exchange, sources: Sequence[Source], found: Sequence[_Edits]) -> bytes:
        """The body with the findings replaced. Where findings overlap, the first guardrail's label stays."""
        changed: dict[tuple[int, Any], str] = {}
        part = guarding(exchange)
        for index in sorted({index for _, hits in found for index in hits if not sources[index].signed}):
            source = sources[index]
            edits: list[tuple[Edit, int]] = []
            for guard, hits in found:
                mask = self._masks[guard.name]
                for hit in hits.get(index, ()):
                    if guard.action_of(hit.kind) != "mask":
                        continue
                    if mask.reversible and part.vault is None:
                        part.vault = Vault(text.value for each in sources if not each.signed for text in each.texts)
                    label = hit.ruling.replacement if hit.ruling is not None else None
                    if label is None:
                        label = mask(hit.kind, source.written.text[hit.start : hit.end], part.vault)
                    edits += [(edit, guard.order) for edit in source.written.edits(*hit[:2], label, final=True)]
            if edits:
                edits.sort(key=lambda edit: (edit[0][0], edit[1]))
                changed |= _changes(source, [edit for edit, _ in edits])
        return rewritten(exchange.request.body, exchange.request.json, changed) if changed else exchange.request.body


Hits = Mapping[int, Sequence[Hit]]
"""Findings of a guardrail, by the index of their source."""
_Edits = tuple[Guard, Hits]
_Found = tuple[Guard, Hits | Failure]
"""A guardrail, and its findings or the failure that prevented them."""


async def _done(work: Callable[[], _Made], size: int) -> _Made:
    """The result of `work` on a body of `size` bytes: on the event loop, or for a large body on a thread."""
    return work() if size <= INLINE else await asyncio.to_thread(work)


def _skipped(guard: Guard, sources: Sequence[Source]) -> dict[str, int]:
    """The number of texts that a guardrail cannot judge, by the reason."""
    if guard.remote is not None:
        return {}
    return dict(Counter(kind for one in sources if (kind := guard.skips(one.written.text, one.role))))


def _asked(guard: Guard, sources: Sequence[Source]) -> Mapping[int, Passage]:
    """The passages that a service is asked about, by the index of their source."""
    return {
        index: Passage(source.written.text, source.role, source.where)
        for index, source in enumerate(sources)
        if guard.reads_input(source.role) and _says(source)
    }


def _says(source: Source) -> bool:
    """False for text without meaning for a service: white space, and the types of parts and schemas."""
    text = source.written.text
    return bool(text.strip()) and not (len(source.texts) == 1 and source.texts[0].key == "type" and is_word(text))


def _blocked(guard: Guard, message: str, where: str) -> Refusal:
    return Refusal(GUARDRAIL_BLOCKED, message, param=where, headers={GUARDRAILS: f"{guard.name}:block"})


def _example(guard: Guard, source: Source, hit: Hit) -> Example:
    text = source.written.text[hit.start : hit.end]
    return Example(source.where[:_MOST_WHERE], hit.kind, round(hit.score, 3), guard.hash(text))


def _attempt(guard: Guard, sources: Sequence[Source], then: float) -> Hits | Failure:
    """The findings in each source. A blocking guardrail stops at its first finding."""
    found: dict[int, Sequence[Hit]] = {}
    deadline = then + guard.settings.timeout
    try:
        for index, source in enumerate(sources):
            if not guard.reads_input(source.role):
                continue
            hits = guard.all_hits(source.written.text, source.role, source.where, deadline)
            if hits := sorted((*hits, *unquoted_hits(guard, source, hits, deadline))):
                found[index] = hits
                if any(guard.action_of(hit.kind) == "block" for hit in hits):
                    return found
        for index, hits in split_hits(guard, sources, found, deadline).items():
            found[index] = sorted((*found.get(index, ()), *hits))
    except Failure as failure:
        return failure
    return found


def _changes(source: Source, edits: Sequence[Edit]) -> Iterator[tuple[tuple[int, Any], str]]:
    at = 0
    for text in source.texts:
        value = text.value
        new = render(value, at, edits)
        at += len(value)
        if new != value:
            yield (id(text.holder), text.key), new


def _check_services(guards: Sequence[Guard], exchange: Exchange) -> None:
    """Refuse (503) a request whose text a guardrail would send to a service that the consumer's `require` does not
    allow: neither sending it nor passing it unchecked is safe.
    """
    for guard in guards:
        if guard.services and not all(require.may_ask(guard.name) for require in exchange.consumer.require):
            message = f"The guardrail {guard.name!r} asks a service that `require` does not allow for this consumer."
            raise Refusal(GUARDRAIL_UNAVAILABLE, message, headers={GUARDRAILS: f"{guard.name}:failed"})

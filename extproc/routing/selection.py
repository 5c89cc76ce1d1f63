"""Select: the targets that can serve this request, in the order to try them.

Targets that cannot serve a request are dropped, each with a reason. The strategies order the remaining targets, and
Envoy executes the order. A cool-down skips a target only while other targets remain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from extproc.dialects import provider_apis
from extproc.routing.adaptation import adapt, marks_caches
from extproc.routing.catalog import Catalog
from extproc.routing.history import History
from extproc.routing.matching import mismatch, tokens
from extproc.words.chain import Branch, Candidate, Skip
from extproc.words.dialect import (
    ABILITIES,
    BY_URL,
    CHARACTERS_PER_TOKEN,
    HOSTED,
    IMAGE_OUTPUT,
    NATIVE,
    SAFETY,
    Ask,
)
from extproc.words.errors import NO_PROVIDER_AVAILABLE, UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.exchange import Exchange, Target

_REMEDY = " (`hosted_tools: drop` of the provider leaves them out)"
_STATELESS = " (set 'store' to false, and send the whole conversation)"
_TEMPORARY = ("disabled", "no_key")
"""Reasons that only an operator can remove, not the client."""


class Select:
    """Narrows `targets` to the targets that can serve, in the order to try them, and notes the other targets in
    `skipped`. Each target gets its `adaptation`: the API of the try, and the rewriting of the request.

    503 when all targets that could serve are switched off, 400 when no target could serve. Targets in a cool-down are
    skipped while other targets remain.
    """

    def __init__(
        self,
        catalog: Catalog,
        history: History,
        count: Callable[[str], None],
        unpriced: Callable[[Exchange, Target], str | None] | None = None,
    ) -> None:
        self._catalog = catalog
        self._history = history
        self._count = count  # counter of skips, by reason
        self._unpriced = unpriced  # the budget that keeps a request from a target of unknown price

    def __call__(self, exchange: Exchange) -> None:
        if "thread" in exchange.request.ask.needs:
            _check_thread(exchange)
        left: list[Target] = []
        for target in exchange.route.targets:
            why = self._unable(target, exchange)
            if why is None:
                left.append(target)
            else:
                exchange.route.skipped.append(Skip(target, *why))
        if not left:
            self._count_skipped(exchange)
            raise self._refusal(exchange)
        if exchange.route.kept.keeper:
            left = self._keeping(left, exchange)
        if "state" in exchange.request.ask.needs:
            left = left[:1]  # always the same target: only it has the content that it stores
        if len(left) > 1:
            left = self._warm(left, exchange)
        root = exchange.route.chain.root
        if root is not None and len(left) > 1:
            left = _unique(order(root, {id(target) for target in left}, exchange))
            first, consumer = left[0].deployment, exchange.consumer.name
            self._history.chosen(
                first, len(exchange.request.body), streamed=exchange.request.ask.stream, consumer=consumer
            )
        if not exchange.attached:  # in attach mode the owner's Envoy sets the number of tries
            left = [target for target in left for _ in range(target.tries)][: exchange.route.chain.retry.attempts]
        client = exchange.request.dialect
        traces = () if client.translation is None else client.translation.traces
        exchange.route.traces = any(trace in exchange.request.body for trace in traces)
        marked = any(target.prompt_cache for target in left) and marks_caches(client.name)
        left = [adapt(target, self._catalog, exchange) for target in left]
        exchange.route.translated = any(not target.adaptation.own for target in left) or (
            bool(exchange.request.ask.thinking) and (exchange.route.traces or marked)  # True: the request is rewritten
        )
        exchange.route.targets = tuple(left)
        self._count_skipped(exchange)

    def _keeping(self, left: list[Target], exchange: Exchange) -> list[Target]:
        """The targets at the provider that keeps the conversation which the request continues."""
        found = [target for target in left if target.provider == exchange.route.kept.keeper]
        if not found:
            message = (
                f"The provider {exchange.route.kept.keeper} keeps what the request goes on from, and no target of "
            )
            raise Refusal(UNSUPPORTED_BY_TARGETS, f"{message}{exchange.request.ask.model!r} is there{_STATELESS}.")
        return found

    def _unable(self, target: Target, exchange: Exchange) -> tuple[str, str] | None:
        catalog, ask, client = self._catalog, exchange.request.ask, exchange.request.dialect
        dialect = catalog.api(target, client)
        if dialect is None or (exchange.attached and dialect != client.name):
            path = exchange.request.head.path.partition("?")[0]  # a query may hold a key
            return "dialect", f"provider {target.provider} does not serve {path}"
        if dialect != client.name and (unsaid := [need for need in ask.needs if _lacks(dialect, target, need, ask)]):
            why = f"the API of provider {target.provider} has no {', '.join(_named(ask, need) for need in unsaid)}"
            if "state" in unsaid:
                return "dialect", why + (_STATELESS if client.offers.stored.objects.items else "")
            return "dialect", why + _REMEDY if HOSTED in unsaid and "hosted_call" not in unsaid else why
        if BY_URL in ask.needs and catalog.fetches_not(target, dialect):
            return "dialect", f"provider {target.provider} fetches no images or files by URL (send them in base64)"
        before = exchange.consumer.before if exchange.route.chain.next is not None else None
        if target.match and (failed := mismatch(target.match, exchange, before)) is not None:
            name, value = failed
            return "no_match", f"it is not for {name} {value[:64]!r}"
        if target.supports is not None and ask.needs:
            changed = [name for name, *_ in target.changes]
            lacking = [
                ability
                for ability, field in ask.needs.items()
                if ability in ABILITIES and ability not in target.supports and field not in changed
            ]
            if lacking:
                return "ability", f"it does not support {', '.join(lacking)}"
        if target.context is not None:
            size = tokens(exchange)
            if size > target.context:
                return "context", f"about {size} tokens do not fit into its context of {target.context}"
        if ask.inputs and client.family == "embeddings" and (why := _too_many(ask, target, dialect)):
            return "batch", why
        if self._unpriced is not None and (budget := self._unpriced(exchange, target)) is not None:
            return "no_price", f"its price is unknown and the budget {budget!r} counts money: it needs a `price`"
        # checked last: a target that could serve, but is switched off
        return catalog.unavailable(target, attached=exchange.attached)

    def _warm(self, left: list[Target], exchange: Exchange) -> list[Target]:
        """Targets without a cool-down. If all have one, all targets: asking a cooling provider is better than asking
        none.
        """
        consumer = exchange.consumer.name
        waits = [self._history.cooling(target.deployment, consumer) for target in left]
        if not any(waits) or all(waits):
            return left
        for target, wait in zip(left, waits, strict=True):
            if wait:
                _, cause = self._history.cause(target.deployment, consumer)
                text = f"it cools down for another {wait:.0f} s: {cause}"
                exchange.route.skipped.append(Skip(target, "cooling_down", text))
        return [target for target, wait in zip(left, waits, strict=True) if not wait]

    def _count_skipped(self, exchange: Exchange) -> None:
        for skip in exchange.route.skipped:
            self._count(skip.reason)

    def _refusal(self, exchange: Exchange) -> Refusal:
        name, skipped = exchange.request.ask.model, exchange.route.skipped
        off = [skip for skip in skipped if skip.reason in _TEMPORARY]
        if off:
            skip = off[0]
            message = f"No target of {name!r} can serve now: provider {skip.target.provider}: {skip.text}."
            return Refusal(NO_PROVIDER_AVAILABLE, message, headers={"retry-after": "30"})  # until an operator has acted
        reasons = "; ".join(f"{skip.target.name}: {skip.text}" for skip in skipped[:4])
        fields = [exchange.request.ask.needs[ability] for ability in exchange.request.ask.needs]
        param = fields[0] if fields and any(skip.reason in ("ability", "dialect") for skip in skipped) else "model"
        if any(skip.reason == "batch" for skip in skipped):
            param = "input"
        return Refusal(
            UNSUPPORTED_BY_TARGETS, f"No target of {name!r} can serve this request: {reasons}."[:1000], param=param
        )


def _check_thread(exchange: Exchange) -> None:
    """Refuse a conversation kept by a provider if another provider might have to continue it. Clients then send the
    whole conversation, which can fail over.
    """
    if len({target.provider for target in exchange.route.chain.targets}) > 1:
        ask = exchange.request.ask
        message = f"{ask.model!r} has targets at several providers, and a thread stays with one: send the whole "
        raise Refusal(UNSUPPORTED_BY_TARGETS, f"{message}conversation.", param=ask.needs["thread"])


def _too_many(ask: Ask, target: Target, dialect: str) -> str:
    """The reason why a batch most likely exceeds the target's limits for one request; empty if it fits."""
    most = target.batch
    if most is None and (api := provider_apis().get(dialect)) is not None:
        most = api.able.batch(target.model)
    if most is None:
        return ""
    if ask.inputs > most.inputs:
        return f"it takes at most {most.inputs} inputs in one request, not {ask.inputs}"
    tokens = ask.inputs_bytes // CHARACTERS_PER_TOKEN
    if tokens > most.tokens:
        return f"it takes at most {most.tokens} tokens in one request, not about {tokens}"
    return ""


def _named(ask: Ask, need: str) -> str:
    """A need, with the field that asks for it if their names differ: `choices ('n')`."""
    field = ask.needs[need]
    return need if field in (need, "input", "tools") else f"{need} ({field!r})"


def _lacks(dialect: str, target: Target, need: str, ask: Ask) -> bool:
    """True if a request that needs `need` cannot be translated for `target`."""
    able = provider_apis()[dialect].able
    if need == HOSTED:
        return target.hosted_tools != "drop"
    if need == IMAGE_OUTPUT:
        return not able.images
    if need == SAFETY:
        return all(name != ask.needs[need] for name, *_ in target.changes)
    return need in able.lacks or need in NATIVE


def order(branch: Branch, left: Collection[int], exchange: Exchange) -> Sequence[Target]:
    """The targets below `branch` whose id() is in `left`, in the order of the branch's strategies."""
    found = choices(branch, left, exchange)
    if len(found) > 1:
        found = branch.strategy.order(found, exchange)
    return [target for choice in found for target in choice.targets]


def choices(branch: Branch, left: Collection[int], exchange: Exchange) -> Sequence[Candidate]:
    """The candidates for the strategy of `branch`."""
    found = []
    for index, (below, share) in enumerate(zip(branch.below, branch.shares, strict=True)):
        if isinstance(below, Target):
            targets: Sequence[Target] = (below,) if id(below) in left else ()
        else:
            targets = order(below, left, exchange)
        if targets:
            found.append(Candidate(targets, share.weight, share.max_complexity, index, share.quality))
    return found


def is_same(one: Target, other: Target) -> bool:
    """True if a try at the second target would be the same as one at the first."""
    return one.name == other.name and one.provider == other.provider and one.changes == other.changes


def _unique(targets: Sequence[Target]) -> list[Target]:
    """The targets, each once, at its first place: several paths may lead to it."""
    if len({(target.name, target.provider) for target in targets}) == len(targets):
        return list(targets)
    found: list[Target] = []
    for target in targets:
        if not any(is_same(target, other) for other in found):
            found.append(target)
    return found

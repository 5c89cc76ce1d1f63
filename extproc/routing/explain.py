"""Routing in the explanation of a request: `extproc check --explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from extproc.routing.selection import is_same
from extproc.routing.settings import VirtualModelSettings
from extproc.upstream.providers import kinds
from extproc.wire.framing.patch import decode_fields, patch
from extproc.words import contract
from extproc.words.chain import Branch, Candidate
from extproc.words.contract import Edit, Service
from extproc.words.exchange import Exchange, Target

_NOTES: Mapping[str, str] = {
    "weighted": "the draw: each request that is not sticky is given an order of its own, this is one of them",
    "latency": "how fast targets are: nothing is measured here",
    "load": "how busy targets are: nothing is measured here",
}


@dataclass(slots=True, frozen=True)
class RoutingExplained:
    """The routing of `exchange`, up to the last stage that ran."""

    virtual_models: Mapping[str, VirtualModelSettings]
    exchange: Exchange

    def strategies(self) -> Iterator[str]:
        """A line for the requested model and each virtual model in it."""
        chain = self.exchange.route.chain
        if chain.name not in self.virtual_models:
            keys = f", with {len(chain.targets)} keys by weight" if chain.root is not None else ""
            yield f"none: {chain.name} is one model{keys}"
        for depth, name in self._virtuals():
            virtual = self.virtual_models[name]
            sticky = f", sticky by {virtual.sticky.by}" if virtual.sticky else ""
            yield f"{'  ' * depth}{name}: {', then '.join(virtual.strategy)}{sticky}"

    def _virtuals(self) -> Iterator[tuple[int, str]]:
        """The requested virtual model and all virtual models in it, each with its depth."""
        name = self.exchange.route.chain.name
        stack = [(0, name)] if name in self.virtual_models else []
        while stack:
            depth, name = stack.pop()
            yield depth, name
            inner = [target.model for target in self.virtual_models[name].targets]
            stack += [(depth + 1, below) for below in reversed(inner) if below in self.virtual_models]

    def targets(self, *, selected: bool, forwarded: bool) -> Iterator[tuple[str, str]]:
        """Label and line of each target: tried, skipped or left. `selected`: the tries are known. `forwarded`: the
        changes of each try are known, too.
        """
        exchange = self.exchange
        rows = [("skipped", skip.target.name, skip.target.deployment, skip.text) for skip in exchange.route.skipped]
        if selected:
            skipped = (skip.target for skip in exchange.route.skipped)
            seen = {id(target) for target in (*exchange.route.targets, *skipped)}
            left = [target for target in exchange.route.chain.targets if seen.isdisjoint(_leaves(target))]
            tries = self._tries(left, forwarded=forwarded)
            rows = [*tries, *rows, *(("not tried", *self._untried(target)) for target in left)]
        names, deployments = (max((len(row[at]) for row in rows), default=0) for at in (1, 2))
        for label, name, deployment, text in rows:
            yield label, f"{name:<{names}}  {deployment:<{deployments}}  {text}"

    def _tries(self, left: Sequence[Target], *, forwarded: bool) -> Iterator[tuple[str, str, str, str]]:
        chain, tried = self.exchange.route.chain, self.exchange.route.targets
        changed = _changed(self.exchange) if forwarded else [""] * len(tried)
        for index, target in enumerate(tried):
            if index and tried[index - 1] is target:
                texts = ["once more, after a pause"]
            else:
                reasons = list(self._reasons(chain.name, chain.root, target, (*tried, *left)))
                texts = [f"{name}: {why}" if len(reasons) > 1 else why for name, why in reasons] + [changed[index]]
            yield "targets", f"{index + 1}. {target.name}", target.deployment, ", ".join(filter(None, texts))

    def _untried(self, target: Target) -> tuple[str, str, str]:
        tried, attempts = self.exchange.route.targets, self.exchange.route.chain.retry.attempts
        same = any(is_same(target, other) for other in tried)
        return target.name, target.deployment, "the same as one above" if same else f"retry.attempts is {attempts}"

    def _reasons(
        self, name: str, branch: Branch | None, target: Target, ordered: Sequence[Target]
    ) -> Iterator[tuple[str, str]]:
        """Each virtual model on the way to the target, and the reason for its place. `ordered` is the order of this
        run, because a second call of a strategy might give another order.
        """
        entries = zip(branch.below, branch.shares, strict=True) if branch else ()
        for index, (below, share) in enumerate(entries):
            leaves = _leaves(below)
            if branch and id(target) in leaves:
                targets = [other for other in ordered if id(other) in leaves]
                choice = Candidate(targets, share.weight, share.max_complexity, index, share.quality)
                yield name, branch.strategy.why(choice, self.exchange)
                if isinstance(below, Branch):  # of a virtual model, or of the keys of a provider
                    inner = self.virtual_models[name].targets[index].model
                    yield from self._reasons(inner, below, target, ordered)

    def unknowns(self, *, by_name: bool) -> Iterator[str]:
        """Facts of the running gateway that would change the order. `by_name`: the consumer was given by name, without
        a key.
        """
        route = self.exchange.route
        if len(route.chain.targets) - len(route.skipped) < 2:
            return
        virtuals = [self.virtual_models[name] for _, name in self._virtuals()]
        used = [name for virtual in virtuals for name in virtual.strategy]
        used += ["latency" for virtual in virtuals if virtual.objectives and virtual.objectives.measures]
        yield from dict.fromkeys(_NOTES[name] for name in used if name in _NOTES)
        if by_name and any(virtual.sticky and virtual.sticky.by == "key" for virtual in virtuals):
            yield "the key in use: sticky by key is shown for the first one"


def _leaves(below: Branch | Target) -> set[int]:
    """The id() of each target below a branch, and of the same target adapted to a request."""
    if isinstance(below, Target):
        return {id(below), *map(id, below.adapted.values())}
    return set().union(*map(_leaves, below.below))


def edits_of(exchange: Exchange) -> Sequence[Edit]:
    """The changes of the body for each try."""
    told = exchange.route.onward.set_headers.get(contract.EDITS)
    return [Edit({})] * len(exchange.route.targets) if told is None else contract.decode_edits(told)


def _changed(exchange: Exchange) -> Sequence[str]:
    """The changed fields of each try, without the model's name; plain values are shown."""
    before, onward = decode_fields(exchange.request.body), exchange.route.onward.body
    found = []
    for edit in edits_of(exchange):
        after = decode_fields(patch(exchange.request.body if onward is None else onward, edit.fields, edit.removed))
        fields = [name for name, value in after.items() if name != "model" and before.get(name) != value]
        removed = [name for name in before if name not in after]
        texts = [f"sets {', '.join(name + _plain_value(after[name]) for name in fields)}"] if fields else []
        if removed:
            texts.append(f"removes {', '.join(removed)}")
        if edit.service is not None:
            texts.append(f"is made a request of {edit.service.dialect}{_why(edit.service)}")
        found.append(", ".join(texts))
    return found


def _why(service: Service) -> str:
    """The reason why the request does not use the provider's preferred API."""
    provider = kinds()[service.kind]
    if service.dialect in provider.prefers and service.dialect == provider.preferred(service.model)[0]:
        return " (it reasons: `api` of the model sets another)"
    return ""


def _plain_value(value: msgspec.Raw) -> str:
    """A number, true, false or null as text; other values are left out, because they may be long or private."""
    text = bytes(value)
    return f"={text.decode()}" if len(text) <= 20 and text[:1] not in b'"[{' else ""

"""Requests that a guardrail checks, and the guardrails of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from extproc.guardrails._base import AppliesToSettings, ConditionsSettings
from extproc.words.exchange import Exchange
from extproc.words.values import Pattern

if TYPE_CHECKING:
    from extproc.guardrails._guard import Guard


class Conditions:
    """Conditions on a request; all must hold. Without conditions every request matches."""

    def __init__(self, settings: ConditionsSettings) -> None:
        self.consumers = _patterns(settings.consumers)
        self.models = _patterns(settings.models)
        self.labels = {label: Pattern(value) for label, value in settings.labels.items()}
        self._teams, self._keys, self._paths = map(_patterns, (settings.teams, settings.keys, settings.paths))

    def hold(self, exchange: Exchange, also: Sequence[str]) -> bool:
        """True for a request that meets all conditions. `also` are further models that it may be sent to."""
        if not _matches(self.consumers, (exchange.consumer.name,)) or not _matches(
            self._teams, (exchange.consumer.team,)
        ):
            return False
        if not _matches(self._keys, (exchange.money.key,)) or not _matches(self._paths, (_path(exchange),)):
            return False
        if self.models is not None and not _matches(self.models, models(exchange, also)):
            return False
        labels: Mapping[str, str] = exchange.money.labels
        return all(label in labels and pattern(labels[label]) for label, pattern in self.labels.items())


class Applies:
    """The requests that a guardrail checks: requests that meet its conditions and none of its exceptions."""

    def __init__(self, settings: AppliesToSettings) -> None:
        self._wanted = Conditions(settings)
        self._excepted = [Conditions(one) for one in settings.exceptions]

    def __call__(self, exchange: Exchange, also: Sequence[str] = ()) -> bool:
        return self._wanted.hold(exchange, also) and not any(one.hold(exchange, also) for one in self._excepted)

    def facts(self) -> Sequence[tuple[str, str]] | None:
        """Facts of which every checked request has one: a consumer, the value of a label, or a model. None: any request
        may be checked.
        """
        wanted = self._wanted
        if wanted.consumers is not None and not any("*" in pattern.text for pattern in wanted.consumers):
            return [("consumer", pattern.text) for pattern in wanted.consumers]
        for label, pattern in wanted.labels.items():
            if "*" not in pattern.text:
                return [(f"label {label}", pattern.text)]
        if wanted.models is not None and not any("*" in pattern.text for pattern in wanted.models):
            return [("model", pattern.text) for pattern in wanted.models]
        return None


class Chosen:
    """Guardrails by a fact that each requires. A request looks only at guardrails that require one of its facts,
    however many guardrails there are.
    """

    def __init__(self, guards: Sequence[Guard], also: Sequence[str]) -> None:
        self._also = also
        self._any: list[Guard] = []
        self._by_fact: dict[tuple[str, str], list[Guard]] = {}
        for guard in guards:
            facts = guard.applies.facts()
            if facts is None:
                self._any.append(guard)
            for fact in facts or ():
                self._by_fact.setdefault(fact, []).append(guard)

    def of(self, exchange: Exchange, named: Sequence[Guard]) -> Sequence[Guard]:
        """The guardrails that apply to a request, and those that the request has `named`, in the order of the
        settings.
        """
        found = {guard.order: guard for guard in named}
        found |= {guard.order: guard for guard in self._any if guard.applies(exchange, self._also)}
        if self._by_fact:
            facts = [("consumer", exchange.consumer.name)]
            facts += [(f"label {label}", value) for label, value in exchange.money.labels.items()]
            facts += [("model", name) for name in models(exchange, self._also)]
            for fact in facts:
                for guard in self._by_fact.get(fact, ()):
                    if guard.order not in found and guard.applies(exchange, self._also):
                        found[guard.order] = guard
        return [found[order] for order in sorted(found)]


def models(exchange: Exchange, also: Sequence[str]) -> Sequence[str]:
    """The models that a request may be sent to: `also` and those of its route."""
    return exchange.request.ask.model, *(target.name for target in exchange.route.targets), *also


def _path(exchange: Exchange) -> str:
    return exchange.request.head.path.partition("?")[0]


def _patterns(texts: Sequence[str] | None) -> Sequence[Pattern] | None:
    return None if texts is None else [Pattern(text) for text in texts]


def _matches(patterns: Sequence[Pattern] | None, names: Sequence[str]) -> bool:
    return patterns is None or any(pattern(name) for pattern in patterns for name in names)

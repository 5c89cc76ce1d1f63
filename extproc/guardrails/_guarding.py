"""The part of an exchange that guardrails keep: the guardrails of the answer, and pending audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from extproc.words.exchange import Exchange, FeatureKey

if TYPE_CHECKING:
    from extproc.guardrails._audits import Review
    from extproc.guardrails._guard import Guard
    from extproc.guardrails._held import Held
    from extproc.guardrails._mask import Vault
    from extproc.guardrails._watch import Watch


@dataclass(slots=True)
class Guarding:
    """Written by GuardInput, then by GuardOutput."""

    guards: Sequence[Guard] = ()  # guardrails that read the answer
    cost: float = 0.0  # microseconds for a character of an answer that is one event
    vault: Vault | None = None  # texts behind reversible masks
    watch: Watch | None = None  # the guardrails' view of the answer
    held: Held | None = None  # calls of the answer that may wait for a person
    audits: list[Review] = field(default_factory=list)  # audits that only the record waits for

    @property
    def readers(self) -> Sequence[Guard]:
        """The guardrails that decide by themselves."""
        return [guard for guard in self.guards if not guard.asks]


GUARDING: FeatureKey[Guarding] = FeatureKey("guardrails")


def guarding(exchange: Exchange) -> Guarding:
    """The guardrails' part of the exchange, created if missing."""
    found = exchange.features.get(GUARDING)
    if found is None:
        found = exchange.features[GUARDING] = Guarding()
    return found


def has_guards(exchange: Exchange) -> bool:
    """True if guardrails read the answer."""
    found = exchange.features.get(GUARDING)
    return found is not None and bool(found.guards)


def has_vault(exchange: Exchange) -> bool:
    """True if a mask has to be reversed in the answer."""
    found = exchange.features.get(GUARDING)
    return found is not None and found.vault is not None


def is_watched(exchange: Exchange) -> bool:
    """True if guardrails watch the events of the answer."""
    found = exchange.features.get(GUARDING)
    return found is not None and (found.watch is not None or found.held is not None)


def apart(exchange: Exchange) -> Exchange:
    """A copy of the exchange for guardrails over another text: its request is writable and lacks the client's headers.
    Findings and audits are shared with the exchange itself.
    """
    made = copy(exchange)
    made.request = copy(exchange.request)
    made.request.head = replace(exchange.request.head, headers={})
    made.features = exchange.features.copy()
    made.features[GUARDING] = copy(guarding(exchange))
    return made


def signed(exchange: Exchange) -> Mapping[Any, str]:
    """Fields with signed text, and the field with its signature, if every target checks signatures: a provider of the
    client's own API.
    """
    fields = exchange.request.dialect.fields.signed
    return fields if fields and all(target.adaptation.own for target in exchange.route.targets) else {}

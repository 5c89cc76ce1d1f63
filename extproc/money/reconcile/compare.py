"""The comparison: each cell's difference, billed less charged, split into causes that add up to it exactly.

A bill tells costs and tokens by kind, so it has a price for each kind. At these prices

    billed - charged  =  (the ledger's tokens at the bill's prices - charged)          a difference of prices
                       + (the bill's tokens - the ledger's) at the bill's prices     a difference of tokens
                       + fees                                                            calls, storage, sessions

A difference of prices is `unknown_price` for rows without a price, and `stale_price` otherwise. If the bill has more
tokens than the ledger, the cause is `rows_without_usage` as far as such rows can have used them, and
`beside_the_gateway` beyond that. If it has fewer, the cause is `not_billed`, or `another_model` if another model of
that day and key was billed for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from operator import itemgetter
from typing import Any

from extproc.money.reconcile import TOKENS, ZERO, Billed, Cell, Charges, Kind, family

CAUSES: Mapping[str, str] = {
    "unknown_price": "rows whose price is not known: add it under `prices`",
    "stale_price": "other prices than the provider's",
    "rows_without_usage": "rows without counts of the provider: the gateway's own, cut down, or none",
    "beside_the_gateway": "traffic with this key that never passed the gateway",
    "another_model": "another model answered than the ledger has",
    "fees": "charges for calls, storage and sessions that the ledger lacks",
    "not_billed": "rows that the bill does not have, or not yet",
    "no_quantities": "costs whose tokens the bill does not tell",
    "rounding": "less than the provider rounds",
}
"""Causes of differences, with a sentence for each."""
_COUNTED = "provider"  # the `usage_source` of rows with the provider's own counts
_FREE = "none"  # the `usage_source` of rows without a provider's charge
_KEPT = ("hit", "similar")  # cache outcomes of answers that no provider bills
_NANO = Decimal("1e-9")


@dataclass(slots=True)
class Charged:
    """The ledger's sums of one cell. `unsure` are rows without the provider's counts, `unpriced_tokens` tokens of rows
    without a price.
    """

    requests: int = 0
    unsure: int = 0
    cost: Decimal = ZERO
    tokens: dict[Kind, Decimal] = field(default_factory=dict)
    unsure_tokens: dict[Kind, Decimal] = field(default_factory=dict)
    unpriced_tokens: dict[Kind, Decimal] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of a usage report that is grouped by `usage_source`."""
        requests = row["requests"]
        cached, written = Decimal(row["cached_tokens"]), Decimal(row["cache_write_tokens"])
        plain = max(ZERO, row["input_tokens"] - cached - written)
        tokens: Mapping[Kind, Decimal] = {
            "input": plain,
            "cached": cached,
            "write": written,
            "output": Decimal(row["output_tokens"]),
        }
        self.requests += requests
        self.cost += Decimal(row["cost_usd"])
        _accumulate(self.tokens, tokens, Decimal(1))
        _accumulate(self.unpriced_tokens, tokens, Decimal(row["unpriced"]) / requests)
        if row["group"]["usage_source"] != _COUNTED:
            self.unsure += requests
            _accumulate(self.unsure_tokens, tokens, Decimal(1))


def _accumulate(sums: dict[Kind, Decimal], tokens: Mapping[Kind, Decimal], share: Decimal) -> None:
    for kind, amount in tokens.items():
        if amount and share:
            sums[kind] = sums.get(kind, ZERO) + amount * share


@dataclass(slots=True)
class Difference:
    """The comparison of one cell, in USD. `causes` add up to `billed` less `charged`. `surplus` is the bill's excess of
    tokens over the ledger, by kind. `answered` names the model that was billed in place of this one.
    """

    cell: Cell
    model: str
    billed: Decimal
    charged: Decimal
    causes: dict[str, Decimal] = field(default_factory=dict)
    surplus: dict[Kind, Decimal] = field(default_factory=dict)
    answered: str = ""
    slack: Decimal = ZERO  # USD of difference that rounding explains

    @property
    def size(self) -> Decimal:
        """Sum of the absolute amounts of its causes, USD, without rounding."""
        return sum((abs(usd) for cause, usd in self.causes.items() if cause != "rounding"), ZERO)

    def note(self, cause: str, usd: Decimal) -> None:
        """Add USD to a cause. A cause that sums to zero is dropped."""
        if usd:
            self.causes[cause] = self.causes.get(cause, ZERO) + usd
            if not self.causes[cause]:
                del self.causes[cause]

    def move(self, cause: str, other: str, usd: Decimal) -> None:
        self.note(cause, -usd)
        self.note(other, usd)


class Book:
    """The ledger's sums by cell. `names` are the ledger's spellings of models by family."""

    def __init__(self, one: str = "") -> None:
        self.cells: dict[Cell, Charged] = {}
        self.names: dict[str, str] = {}
        self._one = one  # the one provider of all rows, if the bill's keys are not separated

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of one day's usage report by `provider`, `provider_model`, `usage_source` and `cache`."""
        group = row["group"]
        if not group["provider"] or group["cache"] in _KEPT or group["usage_source"] == _FREE:
            return
        cell = Cell(row["start"][:10], self._one or group["provider"], family(group["provider_model"]))
        self.names.setdefault(cell.family, group["provider_model"])
        self.cells.setdefault(cell, Charged()).add(row)


def compare(billed: Billed, book: Book) -> Sequence[Difference]:
    """All cells, in order of day, provider and model."""
    found = []
    for cell in sorted({*billed.cells, *(cell for cell, charged in book.cells.items() if charged.requests)}):
        model = book.names.get(cell.family) or billed.names.get(cell.family) or "(no model)"
        found.append(_difference(cell, model, billed.cells.get(cell, Charges()), book.cells.get(cell, Charged())))
    groups: dict[tuple[str, str], list[Difference]] = defaultdict(list)
    for each in found:
        groups[each.cell.day, each.cell.provider].append(each)
    for differences in groups.values():
        _pair_models(differences, billed)
        _pair_fees(differences)
    return found


def _difference(cell: Cell, model: str, charges: Charges, charged: Charged) -> Difference:
    found = Difference(cell, model, charges.total, charged.cost)
    found.note("fees", charges.cost.get("fee", ZERO))
    billed_tokens, own, unsure, unpriced = _alike(charges, charged)
    found.surplus = {kind: left for kind in TOKENS if (left := billed_tokens[kind] - own.get(kind, ZERO))}
    found.slack = charges.slack + charged.requests * _NANO
    if not charged.requests:
        found.note("beside_the_gateway", found.billed - charges.cost.get("fee", ZERO))
        return found
    rates = {kind: rate for kind in TOKENS if (rate := charges.rate(kind)) is not None}
    if not rates:  # the bill has no tokens of this model, or does not count tokens
        costs = sum((charges.cost.get(kind, ZERO) for kind in TOKENS), ZERO)
        found.note("no_quantities" if costs else "not_billed", costs - charged.cost)
        return found

    def worth(tokens: Mapping[Kind, Decimal]) -> Decimal:
        return sum((tokens[kind] * rate for kind, rate in rates.items() if kind in tokens), ZERO)

    missing = worth(unpriced)
    found.note("unknown_price", missing)
    price = worth(own) - charged.cost - missing
    found.note("rounding" if abs(price) <= found.slack else "stale_price", price)
    unmeasured = sum((charges.cost.get(kind, ZERO) for kind in TOKENS if kind not in rates), ZERO)
    found.note("no_quantities", unmeasured)
    _split_tokens(found, charges, charged, worth, unsure)
    # Divisions have 28 digits: their remainder is far below any provider's rounding.
    found.note("rounding", found.billed - found.charged - sum(found.causes.values(), ZERO))
    return found


def _alike(
    charges: Charges, charged: Charged
) -> tuple[dict[Kind, Decimal], Mapping[Kind, Decimal], Mapping[Kind, Decimal], Mapping[Kind, Decimal]]:
    """Tokens by kind: the bill's, and the ledger's in all, unsure and unpriced. Kinds of input that the bill does not
    separate are counted as plain input of the ledger, too.
    """
    billed = {kind: charges.tokens(kind) for kind in TOKENS}

    def folded(tokens: Mapping[Kind, Decimal]) -> Mapping[Kind, Decimal]:
        found = dict(tokens)
        for kind in ("cached", "write"):
            if not billed[kind] and kind in found:
                found["input"] = found.get("input", ZERO) + found.pop(kind)
        return found

    return billed, folded(charged.tokens), folded(charged.unsure_tokens), folded(charged.unpriced_tokens)


def _split_tokens(
    found: Difference,
    charges: Charges,
    charged: Charged,
    worth: Callable[[Mapping[Kind, Decimal]], Decimal],
    unsure: Mapping[Kind, Decimal],
) -> None:
    """Note the causes of a difference of tokens. A row without usage can have used as much as an average row. If the
    bill counts requests, their number separates such rows from traffic beside the gateway.
    """
    tokens = worth(found.surplus)
    if not charged.unsure:
        found.note("beside_the_gateway" if tokens > 0 else "not_billed", tokens)
        return
    if tokens <= 0:
        held = min(-tokens, worth(unsure))
        found.note("rows_without_usage", -held)
        found.note("not_billed", tokens + held)
        return
    known = charged.requests - charged.unsure
    own = worth(charged.tokens) - worth(unsure)
    beside = charges.requests - charged.requests if charges.requests else None
    if beside is not None:
        share = tokens * max(beside, 0) / (max(beside, 0) + charged.unsure)
    elif known:
        share = max(ZERO, tokens - max(ZERO, own / known * charged.unsure - worth(unsure)))
    else:
        share = ZERO
    share = share if share > found.slack else ZERO
    found.note("beside_the_gateway", share)
    found.note("rows_without_usage", tokens - share)


def _pair_models(differences: Iterable[Difference], billed: Billed) -> None:
    """Move tokens that were billed as another model of the same day and key from `beside_the_gateway` and `not_billed`
    to `another_model`. If the ledger charged the other model's price, the cost moves along and no difference remains.
    """
    for one in [each for each in differences if "not_billed" in each.causes]:
        lacking = {kind: -left for kind, left in one.surplus.items() if left < 0}
        others = [
            (sum(other.surplus.values(), ZERO), other)
            for other in differences
            if other.causes.get("beside_the_gateway", ZERO) > 0
            and all(other.surplus.get(kind, ZERO) >= left for kind, left in lacking.items())
        ]
        if not lacking or not others:
            continue
        _, other = min(others, key=itemgetter(0))  # the model with the most similar surplus
        charges = billed.cells[other.cell]
        worth = sum((left * (charges.rate(kind) or ZERO) for kind, left in lacking.items()), ZERO)
        worth = min(worth, other.causes["beside_the_gateway"])
        paid = one.causes["not_billed"] + one.causes.get("stale_price", ZERO)
        if abs(paid + worth) <= one.slack + other.slack:  # the ledger charged the price of the model that answered
            for cause in ("stale_price", "not_billed"):
                one.causes.pop(cause, None)
            one.note("rounding", paid + worth)
            other.note("beside_the_gateway", -worth)
            one.charged -= worth
            other.charged += worth
        else:
            one.move("not_billed", "another_model", one.causes["not_billed"])
            other.move("beside_the_gateway", "another_model", worth)
        other.surplus = {kind: left - lacking.get(kind, ZERO) for kind, left in other.surplus.items()}
        one.answered = other.model


def _pair_fees(differences: Iterable[Difference]) -> None:
    """Offset fees by the ledger's costs beyond tokens: the ledger adds a call's fee to the cost of its model."""
    paying = [each for each in differences if each.causes.get("stale_price", ZERO) < 0]
    for owed in differences:
        for payer in paying:
            part = min(owed.causes.get("fees", ZERO), -payer.causes.get("stale_price", ZERO))
            if part > 0:
                owed.note("fees", -part)
                payer.note("stale_price", part)
                owed.charged += part
                payer.charged -= part
    for payer in paying:
        if abs(left := payer.causes.get("stale_price", ZERO)) <= payer.slack:
            payer.move("stale_price", "rounding", left)

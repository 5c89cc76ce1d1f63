"""A budget, compiled, and the claims of requests on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from urllib.parse import quote, unquote

from msgspec.structs import replace

from extproc.access.auth.facts import fact
from extproc.money.budgets.settings import (
    CALL,
    CONCURRENCY,
    OF_CALLS,
    RATE,
    TOOL_CALLS,
    UNLIMITED,
    USD,
    WINDOWS,
    BudgetSettings,
)
from extproc.stores import Hold
from extproc.upstream import prices
from extproc.words.exchange import Exchange, Price, Target, Usage
from extproc.words.values import Pattern

_Amount = Callable[[int, int], int]
_UNITS: Mapping[str, _Amount] = {
    "requests": lambda _input, _output: 1,
    CONCURRENCY: lambda _input, _output: 1,
    TOOL_CALLS: lambda _input, _output: 1,
    "tokens": lambda input_, output: input_ + output,
    "input_tokens": lambda input_, _output: input_,
    "output_tokens": lambda _input, output: output,
}
_ANY = "*"
"""Stands for any value in the name of a count that requests share beyond `max_scopes`."""
_OF_MODELS = frozenset(("model", "provider"))
_OF_TARGETS = _OF_MODELS.union(OF_CALLS)
_ONE = ("requests", CONCURRENCY, TOOL_CALLS)
"""Units in which each request counts exactly one."""
_TOOLS_CALL = "tools/call"
PROVEN = frozenset(("consumer", "team", "key"))
"""Facts that a credential proves; other facts are the client's choice."""


@dataclass(slots=True, frozen=True)
class Budget:
    """A budget, compiled. Amounts and the limit are whole numbers of its unit, nano-USD for money."""

    settings: BudgetSettings
    name: str
    per: tuple[str, ...]
    match: tuple[tuple[str, Pattern], ...]
    limit: int
    most_granted: int  # most that grants can add to one count
    window: int
    idle: float  # seconds after which an unused count is forgotten; 0: never
    alert_at: tuple[float, ...]  # the shares to report, the highest first
    enforced: bool
    is_call: bool  # True: compares each request and counts nothing
    is_slot: bool  # True: counts requests at the same time
    is_rate: bool  # True: headers tell clients the remaining amount
    counts_money: bool
    counts_tokens: bool  # True: counts tokens, or money, whose amount depends on tokens
    counts_input: bool
    grows: bool  # True: the amount grows with the length of the answer
    patient: bool  # True: holds the expected amount, not the worst
    strict: bool  # True: holds the worst, even of a request without a limit
    of_tools: bool  # True: counts tool calls alone, no requests to models
    counts_tools: bool  # True: counts tool calls
    amount: _Amount  # amount for input and output tokens

    def foreseeable(self, *, free: bool) -> bool:
        """True if a request without room in this budget can be refused before its body is known. A `free` request uses
        no tokens.
        """
        if not self.enforced or self.is_call or self.counts_money or self.yields:
            return False
        if self.counts_tokens and (free or not self.counts_input):
            return False
        return _OF_TARGETS.isdisjoint((*self.per, *(name for name, _ in self.match)))

    @property
    def asks(self) -> bool:
        """True: operators are asked about requests without room."""
        return self.settings.on_exceed == "ask"

    @property
    def yields(self) -> bool:
        """True: an operator is asked, or another model tried, before a request without room is refused."""
        return self.settings.on_exceed != "refuse"

    def covers(self, exchange: Exchange, target: Target) -> bool:
        if exchange.route.of_tools:
            if not self.counts_tools or (
                self.settings.unit == TOOL_CALLS and exchange.request.operation != _TOOLS_CALL
            ):
                return False
        elif self.of_tools:
            return False
        match = self.match
        return not match or all(pattern(_value(name, exchange, target)) for name, pattern in match)

    def scope(self, exchange: Exchange, target: Target) -> str:
        """The name of the request's count: `per-run:label.run=42`, see `read_scope`."""
        if not self.per:
            return self.name
        fields = [f"{field}={_quoted(_value(field, exchange, target))}" for field in self.per]
        return f"{self.name}:{':'.join(fields)}"

    @staticmethod
    def quoted(value: str) -> str:
        """A value, quoted for the name of a count."""
        return _quoted(value)

    def has(self, scope: str) -> bool:
        """True when the name is that of one of this budget's counts."""
        name, fields = read_scope(scope)
        if name != self.name or fields.keys() != set(self.per):
            return False
        own = ":".join([name, *[f"{field}={_quoted(fields[field])}" for field in self.per]])
        return scope in (own, self.shared(own), self.overflow)

    def shared(self, scope: str) -> str:
        """The shared count for requests beyond `max_scopes`: proven fields keep their values, the client's own become
        `*`.
        """
        _, *parts = scope.split(":")
        pairs = zip(self.per, parts, strict=True)
        kept = [part if field in PROVEN else f"{field}={_ANY}" for field, part in pairs]
        return ":".join([self.name, *kept])

    @property
    def overflow(self) -> str:
        """The shared count for requests beyond `max_scopes` of shared counts."""
        return ":".join([self.name, *[f"{field}={_ANY}" for field in self.per]])

    def bound(
        self,
        target: Target,
        input_tokens: int,
        output_tokens: int,
        possible: Collection[str] = prices.ALL_KINDS,
        price: Price | None = None,
        *,
        units: Mapping[str, int] = prices.NO_UNITS,
    ) -> int:
        """The most that a request with these tokens can use at `target`, in the budget's unit."""
        if not self.counts_money:
            return self.amount(input_tokens, output_tokens)
        price = price or target.price
        return 0 if price is None else prices.bound(price, input_tokens, output_tokens, possible, units)

    def charge(self, usage: Usage, cost: int | None) -> int:
        """The real use; an unknown price counts as nothing."""
        if self.counts_money:
            return cost or 0
        return self.amount(usage.input_tokens, usage.output_tokens)

    def hold(self, scope: str, amount: int, room: int = 0) -> Hold:
        """The store's hold of `amount`; `room` is the amount granted beyond the limit."""
        limit = min(self.limit + room, UNLIMITED) if self.enforced else UNLIMITED
        return Hold(scope, self.window, limit, amount, self.is_slot, self.idle)

    def show(self, amount: int, *, unit: bool = False) -> str:
        """An amount for people. Money always shows its unit; tokens and requests show it if `unit` is true."""
        if self.counts_money:
            return f"{prices.decimal(amount)} USD"
        what = "requests at once" if self.is_slot else self.settings.unit
        return f"{amount} {what}" if unit else f"{amount}"


class ByMatch:
    """Budgets by a value that each one matches. A request is compared only with the budgets of its own sender and
    targets, however many budgets there are. Budgets without an exact value are compared with every request.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._all = budgets
        # Budgets without an exact value, with their indexes in `budgets`, whose order claims keep.
        self._others: list[tuple[int, Budget]] = []
        self._named: dict[str, dict[str, list[tuple[int, Budget]]]] = {}  # fact -> value -> budgets
        for entry in enumerate(budgets):
            exact = {name: pattern.text for name, pattern in entry[1].match if "*" not in pattern.text}
            if exact:
                name = min(exact, key=_how_common)
                self._named.setdefault(name, {}).setdefault(exact[name], []).append(entry)
            else:
                self._others.append(entry)

    def candidates(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Budget]:
        """The budgets that may cover a request for one of `targets`; `covers` decides for each."""
        if not self._named:
            return self._all
        found = self._others.copy()
        for name, by_value in self._named.items():
            for value in {_value(name, exchange, target) for target in targets}:
                found += by_value.get(value, ())
        found.sort(key=itemgetter(0))
        return [budget for _, budget in found]


def _how_common(name: str) -> int:
    """The rank of a fact: how many requests share one of its values."""
    return ("key", "consumer").index(name) if name in ("key", "consumer") else 3 if name in _OF_TARGETS else 2


def compile_budget(settings: BudgetSettings) -> Budget:
    unit = settings.unit
    window = WINDOWS.get(settings.window or "total", 0)
    enforced = settings.mode == "enforce"
    return Budget(
        settings,
        settings.name,
        tuple(settings.per),
        tuple((name, Pattern(pattern)) for name, pattern in settings.match.items()),
        limit=(limit := int(settings.limit * (prices.NANO if unit == USD else 1))),
        most_granted=settings.max_granted * max(limit, 1),
        window=window,
        idle=settings.idle_ttl if window == 0 else 0.0,
        alert_at=tuple(sorted(settings.alert_at, reverse=True)),
        enforced=enforced,
        is_call=settings.window == CALL,
        is_slot=unit == CONCURRENCY,
        is_rate=enforced and unit != USD and 0 < window <= RATE,
        counts_money=unit == USD,
        counts_tokens=unit not in _ONE,
        counts_input=unit not in (*_ONE, "output_tokens"),
        grows=unit not in (*_ONE, "input_tokens"),
        patient=settings.reserve == "expected",
        strict=settings.reserve == "worst" or (settings.window == CALL and settings.reserve is None),
        of_tools=unit == TOOL_CALLS or not settings.match.keys().isdisjoint(OF_CALLS),
        counts_tools=unit in (TOOL_CALLS, USD, CONCURRENCY) and settings.match.keys().isdisjoint(_OF_MODELS),
        amount=_UNITS.get(unit, _nothing),
    )


def _nothing(_input: int, _output: int) -> int:
    raise AssertionError("money is no number of tokens")


def read_scope(scope: str) -> tuple[str, Mapping[str, str]]:
    """The budget's name and the fields of a count's name."""
    name, *parts = scope.split(":")
    return name, {key: unquote(value) for key, _, value in (part.partition("=") for part in parts)}


@lru_cache(maxsize=4096)
def _quoted(value: str) -> str:
    return quote(value, safe="/")


@dataclass(slots=True)
class Claim:
    """An amount that a request claims of one budget."""

    budget: Budget
    scope: str
    amount: int
    own: str = ""  # the request's own count, which has no room, if an operator approved the request
    approved: Hold | None = None  # the hold on the approval's count, in place of the budget's own

    def hold(self, amount: int, room: int = 0) -> Hold:
        """The store's hold of `amount`; `room` is the amount granted beyond the limit."""
        if self.approved is not None:
            return replace(self.approved, amount=amount)
        return self.budget.hold(self.scope, amount, room)


def counting(claims: Sequence[Claim], exchange: Exchange, target: Target) -> Sequence[bool]:
    """For each claim True when an exchange served by `target` counts in it; other claims are of other targets."""
    if len(exchange.route.targets) == 1:
        return [True] * len(claims)
    claimed = {claim.own or claim.scope for claim in claims}
    return [
        claim.budget.covers(exchange, target)
        and (claim.own or claim.scope) == _count_of(claim, exchange, target, claimed)
        for claim in claims
    ]


def _count_of(claim: Claim, exchange: Exchange, target: Target, claimed: Collection[str]) -> str:
    """The count of a request served by `target`: its own, or a shared one beyond `max_scopes`."""
    own = claim.budget.scope(exchange, target)
    shared = claim.budget.shared(own)
    return own if own in claimed else shared if shared in claimed else claim.budget.overflow


def _value(name: str, exchange: Exchange, target: Target) -> str:
    """A fact of the request. The target of a call of a tool is the tool at its server, in its profile."""
    if name in _OF_TARGETS:
        if exchange.route.of_tools == (name in _OF_MODELS):
            return ""
        if name in ("model", "profile"):
            return target.name
        return target.deployment if name == "tool" else target.provider
    if name == "key":
        return exchange.money.key
    return fact(name, exchange)

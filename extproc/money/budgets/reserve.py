"""Reserve: holds the most a request can use before it leaves, and holds more while its answer grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from extproc.access.questions import Question, Questions, State, TooManyQuestionsError
from extproc.dialects._thinkers import unasked
from extproc.money.budgets.bounds import USUAL, beside_text, bound_output, input_bound, input_estimate, possible_kinds
from extproc.money.budgets.budget import Budget, ByMatch, Claim, compile_budget, counting
from extproc.money.budgets.exact import Exact
from extproc.money.budgets.expected import Expected
from extproc.money.budgets.facts import pack_facts
from extproc.money.budgets.grants import Grants
from extproc.money.budgets.leases import Leases
from extproc.money.budgets.named import named_models, with_named
from extproc.money.budgets.options import dearest, unpriced
from extproc.money.budgets.questions import approved_claim, question_of, until
from extproc.money.budgets.refusals import exceeded, rates, too_dear, turned_down, unanswered
from extproc.money.budgets.refusals import unasked as not_asked
from extproc.money.budgets.scopes import Scopes
from extproc.money.budgets.settings import USD, BudgetSettings
from extproc.money.budgets.watch import Alert, LevelWatch
from extproc.routing.parameters import output_limit
from extproc.stores import Counters, Denied, Level, NotSentError, StoreError
from extproc.words.errors import INVALID_REQUEST, STORE_UNAVAILABLE, UNBOUNDED_INPUT, Refusal
from extproc.words.exchange import Exchange, Reservation, Target

LEASE = 60.0
"""Seconds from the last renewal of a reservation to the end of its lease, by default (`limits.lease`)."""

COUNT_TOKENS = "count_tokens"
"""Name of the operation that uses no tokens."""

_UNKNOWN = Target("", "", "")
_MOST_BYTES_PER_TOKEN = 8  # bytes for each token held: a longer answer exceeds its limit, at any size of a token
_USUAL_BYTES_PER_TOKEN = 4  # bytes of an average token, to tell when an expected amount is used up
_SLACK = 512  # most bytes of a few tokens
_STEP = 256  # fewest output tokens that are added to a hold at a time


class Unpriced:
    """The name of the budget that keeps a request from a target without a known price, or None."""

    def __init__(self, budgets: Sequence[BudgetSettings]) -> None:
        counting_money = [entry for entry in budgets if entry.unit == USD and entry.mode == "enforce"]
        self._budgets = ByMatch([compile_budget(entry) for entry in counting_money])

    def __call__(self, exchange: Exchange, target: Target) -> str | None:
        if target.price is not None or exchange.request.ask.free:
            return None
        candidates = self._budgets.candidates(exchange, (target,))
        return next((budget.name for budget in candidates if budget.covers(exchange, target)), None)


@dataclass(slots=True, frozen=True)
class ReserveTools:
    """Helpers of Reserve beside the counters store. They outlive a configuration."""

    used: Callable[[str, Callable[[], float]], None] = lambda _budget, _share: None
    tell: Callable[[Alert], None] = lambda _alert: None
    grants: Grants | None = None
    expected: Expected = field(default_factory=Expected)
    exact: Exact = field(default_factory=lambda: Exact({}))
    questions: Questions | None = None


@dataclass(slots=True, frozen=True)
class _Denial:
    """A claim that found no room."""

    claim: Claim
    refusal: Refusal


@dataclass(slots=True)
class _Asking:
    """Questions to operators about one request."""

    approved: dict[str, Question] = field(default_factory=dict)  # questions by the count without room
    begun: float | None = None  # monotonic seconds at the first question


class Reserve:
    """Writes `reservation`. 429 or 402 when a budget has no room, 503 when the store does not answer.

    `reroute` sends an exchange to another model, for `on_exceed: downgrade`; it raises Refusal when that is not
    possible.
    """

    def __init__(
        self,
        budgets: Sequence[BudgetSettings],
        counters: Counters,
        leases: Leases,
        cap: int | None,
        count: Callable[[str, str], None],
        *,
        tools: ReserveTools | None = None,
        reroute: Callable[[Exchange, str], None] | None = None,
        lease: float = LEASE,
        now: Callable[[], float] = time.time,
    ) -> None:
        tools = tools or ReserveTools()
        compiled = [compile_budget(settings) for settings in budgets]
        self._budgets = ByMatch(compiled)
        self._most_downgrades = len(compiled)
        self._scopes = {budget.name: Scopes(budget, now) for budget in compiled}
        self._counters = counters
        self._leases = leases
        self._lease = lease
        self._cap = cap
        self._count = count  # (budget, verdict)
        self._watch = LevelWatch(tools.used, tools.tell, self._room, now)
        self._grants = tools.grants
        self._expected = tools.expected
        self._exact = tools.exact
        self._questions = tools.questions
        self._reroute = reroute

    async def __call__(self, exchange: Exchange) -> None:
        counted: int | None = None
        left, asking = self._most_downgrades, _Asking()
        while True:
            reservation = self._plan(exchange, counted, worst=bool(asking.approved))
            if asking.approved:
                reservation.claims = [
                    approved_claim(claim, asking.approved[claim.scope]) if claim.scope in asking.approved else claim
                    for claim in reservation.claims
                ]
            no = self._call(reservation) or await self._hold_claims(exchange, reservation)
            if no is None:
                return
            if counted is None and (counted := await self._counted(exchange, reservation, no)) is not None:
                continue
            if no.claim.budget.asks and self._questions is not None:
                await self._ask(exchange, no, counted, asking, self._questions)
                continue
            settings = no.claim.budget.settings
            if settings.downgrade_to is None or left == 0 or not self._downgrade(exchange, settings):
                raise self._denied(exchange, no.claim.budget, no.refusal)
            left -= 1

    async def count_only(self, exchange: Exchange, target: Target) -> bool:
        """Count a request for which no provider is asked: budgets in requests apply, budgets in tokens and USD do not.
        `target` is the target that once gave its answer. 429, 402 or 503 as for any request. False if a budget without
        room sends requests to another model or asks an operator: then nothing is counted.
        """
        candidates = self._budgets.candidates(exchange, (target,))
        covered = [budget for budget in candidates if not budget.counts_tokens and budget.covers(exchange, target)]
        reservation: Reservation[Claim] = Reservation(exchange.id, 0, 0)
        exchange.money.reservation = reservation
        claims = [Claim(budget, self._scope(budget, exchange, target), 1) for budget in covered if not budget.is_call]
        reservation.claims = claims
        no = await self._hold_claims(exchange, reservation)
        if no is None:
            return True
        if no.claim.budget.yields:
            return False
        raise self._denied(exchange, no.claim.budget, no.refusal)

    async def look_ahead(self, exchange: Exchange) -> None:
        """Refuse a request for which a budget has no room, whatever its body asks for. Holds nothing.

        Reads budgets whose counts are known without the body. It skips budgets in USD, because a target may have no
        price, and budgets in tokens for requests that use no tokens.
        """
        claims = [
            Claim(budget, self._scope(budget, exchange, _UNKNOWN), 1)
            for budget in self._budgets.candidates(exchange, (_UNKNOWN,))
            if budget.foreseeable(free=exchange.request.operation == COUNT_TOKENS) and budget.covers(exchange, _UNKNOWN)
        ]
        if not claims:
            return
        try:
            levels = await self._counters.levels([(claim.scope, claim.budget.window) for claim in claims])
        except StoreError:  # `store_failure` is applied by Reserve itself
            return
        for claim, level in zip(claims, levels, strict=True):
            hold = claim.budget.hold(claim.scope, 1, self._room(claim))
            left = hold.limit - level.settled - level.reserved
            if left < 1:
                outcome = Denied(0, max(0, left), level.resets_in)
                self._watch.denied(claim, hold, outcome)
                self._watch.full(claim, level)
                raise self._denied(exchange, claim.budget, exceeded(claim, outcome, self._room(claim)))

    def _denied(self, exchange: Exchange, budget: Budget, refusal: Refusal, verdict: str = "denied") -> Refusal:
        """The refusal, after counting it and noting its budget in the exchange."""
        self._count(budget.name, verdict)
        exchange.money.denied_by = budget.name
        return refusal

    def _plan(self, exchange: Exchange, counted: int | None, *, worst: bool = False) -> Reservation[Claim]:
        """The claims of the request on each budget that applies. `counted` are the exact tokens of its text, if known.
        `worst`: claim the most that it can use, so that nothing more is held later.
        """
        covered = []
        targets = exchange.route.targets
        tokens = strict = money = False
        for budget in self._budgets.candidates(exchange, targets):
            for index, target in enumerate(targets):
                if budget.covers(exchange, target):
                    covered.append((budget, index))
                    tokens = tokens or budget.counts_tokens
                    strict = strict or budget.strict
                    money = money or budget.counts_money
        outputs, limits = bound_output(exchange, self._cap, counted=tokens, strict=strict or worst)
        inputs = self._inputs(exchange, counted) if tokens else [input_bound(exchange)] * len(targets)
        inputs, unseen = self._with_unseen(exchange, covered, inputs)
        reservation: Reservation[Claim] = Reservation(
            exchange.id, max(inputs), max(outputs, default=0), outputs, tuple(inputs)
        )
        reservation.unseen, reservation.limits = unseen, limits
        exchange.money.reservation = reservation
        if tokens:
            reservation.named = named_models(exchange)
        if money:
            reservation.possible = possible_kinds(exchange)
            self._price_options(exchange, covered)
        claims: dict[str, Claim] = {}
        reservation.output = reservation.output_tokens
        grows = False
        for budget, index in covered:
            target = targets[index]
            tokens_in, tokens_out = inputs[index], outputs[index] if outputs else 0
            if not worst and (usual := self._less(exchange, budget, index)) is not None:
                if budget.patient and self._expected.output(target.deployment) is not None:
                    tokens_in = min(tokens_in, input_estimate(exchange))
                tokens_out = min(usual, tokens_out)
                reservation.output = min(reservation.output, tokens_out)
            grows = grows or (budget.grows and budget.enforced)
            free = exchange.request.ask.free and budget.counts_money
            amount = 0 if free else _bound(exchange, budget, target, tokens_in, tokens_out)
            scope = self._scope(budget, exchange, target)
            if scope not in claims:
                claims[scope] = Claim(budget, scope, amount)
            elif amount > claims[scope].amount:
                claims[scope].amount = amount
        reservation.calls = tuple([claim for claim in claims.values() if claim.budget.is_call])
        reservation.claims = tuple([claim for claim in claims.values() if not claim.budget.is_call])
        if grows and outputs:
            reservation.enough = _covered_bytes(reservation)
        return reservation

    def _less(self, exchange: Exchange, budget: Budget, index: int) -> int | None:
        """Tokens of output to hold first, if fewer than the worst case; None: hold the worst case."""
        reservation, target = exchange.money.reservation, exchange.route.targets[index]
        if budget.patient and (expected := self._expected.output(target.deployment)) is not None:
            return expected
        if not reservation.outputs or budget.strict or not budget.grows or _limited(exchange, index):
            return None
        reservation.usual = True
        return self._usual(exchange, target)

    def _usual(self, exchange: Exchange, target: Target) -> int:
        """Tokens of output to hold first for a request without a limit."""
        ask = exchange.request.ask
        one = self._expected.output(target.deployment) or USUAL + (ask.thinking or unasked(target.model))
        return one * ask.choices

    def _price_options(self, exchange: Exchange, covered: Sequence[tuple[Budget, int]]) -> None:
        """Remove the client's options that have no price, if a budget in USD has to hold the request."""
        if not exchange.request.dialect.fields.options:
            return
        for budget, index in covered:
            if budget.counts_money and budget.enforced:
                exchange.request.ignored += tuple(unpriced(exchange, exchange.route.targets[index]))

    def _inputs(self, exchange: Exchange, counted: int | None) -> list[int]:
        bound = input_bound(exchange)
        if counted is None:
            return [bound] * len(exchange.route.targets)
        counted += beside_text(exchange)
        return [min(bound, counted) if self._exact.fits(target) else bound for target in exchange.route.targets]

    def _with_unseen(
        self, exchange: Exchange, covered: Sequence[tuple[Budget, int]], inputs: list[int]
    ) -> tuple[list[int], bool]:
        """The bounds of the input, including input outside the body; and True if there is such input.

        An image has a bound, unless a translation could turn it into another kind of file.
        """
        ask, targets = exchange.request.ask, exchange.route.targets
        unseen = () if ask.free else ask.unseen if exchange.route.translated else ask.unbounded
        if not unseen:
            return inputs, False
        for budget, index in covered:
            self._check_unseen(exchange, budget, targets[index], unseen)
        most = [ask.requests * (target.context or 0) for target in targets]
        return list(map(max, inputs, most)), True

    def _check_unseen(self, exchange: Exchange, budget: Budget, target: Target, unseen: Sequence[str]) -> None:
        """Check the bound of input outside the body: all that the model can read. 400 where the model's context is
        unknown and the worst is to be held.
        """
        if target.context is not None or budget.patient or not budget.enforced:
            return
        if not budget.counts_input:
            return
        exchange.money.denied_by = budget.name
        message = (
            f"{', '.join(unseen[:4])} refers to content that is not in the request, so budget {budget.name!r} cannot "
            f"bound its cost. Send the content itself, or have the operator set the `context` of {target.name!r}."
        )
        raise Refusal(UNBOUNDED_INPUT, message, param=unseen[0])

    def _scope(self, budget: Budget, exchange: Exchange, target: Target) -> str:
        settings = budget.settings
        if settings.missing == "refuse" and budget.enforced:
            for name in settings.per:
                label = name.removeprefix("label.")
                if label != name and not exchange.money.labels.get(label):
                    exchange.money.denied_by = settings.name
                    message = f"Budget {settings.name!r} counts by the label {label!r}, which the request lacks"
                    raise Refusal(
                        INVALID_REQUEST,
                        f"{message}: send it as a header, {label!r} after the prefix (by default x-ai-{label}).",
                    )
        return self._scopes[settings.name].admit(budget.scope(exchange, target))

    def _call(self, reservation: Reservation[Claim]) -> _Denial | None:
        """Compare the claims with the limits of `window: call`."""
        for claim in reservation.calls:
            if claim.amount > claim.budget.limit:
                if claim.budget.enforced:
                    return _Denial(claim, too_dear(claim))
                self._count(claim.budget.name, "would_deny")
        return None

    async def _hold_claims(self, exchange: Exchange, reservation: Reservation[Claim]) -> _Denial | None:
        """Hold the claims."""
        claims = reservation.claims
        if not claims and not exchange.route.of_tools:
            return None  # a tool call is held even without a budget, so its row survives this process
        holds = [claim.hold(claim.amount, self._room(claim)) for claim in claims]
        try:
            outcome = await self._counters.reserve(reservation.id, holds, self._lease, facts=pack_facts(exchange))
        except (StoreError, asyncio.CancelledError) as error:
            if not isinstance(error, NotSentError):
                self._leases.give_up(reservation.id)
            if not isinstance(error, StoreError):  # the client left
                raise
            self._store_failed(exchange, error)
            return None
        if isinstance(outcome, Denied):
            claim, hold = claims[outcome.index], holds[outcome.index]
            reservation.claims = ()
            reservation.levels = {claim.scope: (hold.limit - outcome.remaining, hold.limit, hold.amount)}
            if claim.approved is None:
                self._watch.denied(claim, hold, outcome)
                await self._look(claim)
            return _Denial(claim, exceeded(claim, outcome, self._room(claim)))
        reservation.held = True
        self._leases.add(exchange)
        for claim, hold, level in zip(claims, holds, outcome.levels, strict=True):
            budget = claim.budget
            counted, limit = level.settled + level.reserved, hold.limit if budget.enforced else budget.limit
            reservation.levels[claim.scope] = counted - hold.amount, limit, hold.amount
            if counted > limit and not budget.enforced:
                self._count(budget.name, "would_deny")
        exchange.money.alert = self._watch.granted(claims, outcome.levels)
        exchange.money.rate = rates(claims, holds, outcome.levels)
        return None

    async def _look(self, claim: Claim) -> None:
        """Read the level of a count without room, for the gauge."""
        if not self._watch.looks(claim):
            return
        try:
            [level] = await self._counters.levels([(claim.scope, claim.budget.window)])
        except StoreError:  # the next denial reads it again
            return
        self._watch.full(claim, level)

    def _room(self, claim: Claim) -> int:
        if self._grants is None:
            return 0
        budget = claim.budget
        return self._grants.room(claim.scope, budget.settings.unit, budget.most_granted)

    def _store_failed(self, exchange: Exchange, error: StoreError) -> None:
        for claim in exchange.money.reservation.claims:
            settings = claim.budget.settings
            self._count(settings.name, "store_failure")
            if settings.store_failure == "deny" and settings.mode == "enforce":
                exchange.money.denied_by = settings.name
                message = f"Budget {settings.name!r} cannot be checked now: try again in a moment."
                raise Refusal(STORE_UNAVAILABLE, message, headers={"retry-after": "1"}) from error
        exchange.money.reservation.claims = ()

    async def _counted(self, exchange: Exchange, reservation: Reservation[Claim], no: _Denial) -> int | None:
        """The exact tokens of the request's text, if they may fit although the bound in bytes did not."""
        exact = self._exact
        if reservation.unseen or not no.claim.budget.counts_input or exchange.route.of_tools:
            return None
        if exchange.request.ask.free or not any(exact.fits(target) for target in exchange.route.targets):
            return None
        counted = await exact.count(exchange)
        return counted if counted is not None and counted + beside_text(exchange) < reservation.input_tokens else None

    async def _ask(
        self, exchange: Exchange, no: _Denial, counted: int | None, asking: _Asking, questions: Questions
    ) -> None:
        """Ask an operator and wait for the decision. Returns when another try may succeed; raises 402 otherwise."""
        scope, budget = no.claim.own or no.claim.scope, no.claim.budget
        asking.approved.pop(scope, None)  # another request used the approval first
        if asking.begun is None:
            asking.begun = time.monotonic()
        worst = self._plan(exchange, counted, worst=True)
        [claim] = [claim for claim in worst.claims if claim.scope == scope]
        worst.claims = ()  # nothing is held while the request waits
        try:
            question, state = await questions.ask(
                question_of(claim, exchange),
                lambda now: until(now, budget),
                budget.settings.alert_webhook,
                budget,
            )
            decided: State | None = state
            if state is State.OPEN:
                self._count(budget.name, "asked")
                ends = asking.begun + budget.settings.wait
                counted_in, fits = (claim.scope, budget.window), partial(self._fits, claim)
                decided = await questions.wait(exchange, question, ends, counted_in, fits)
            denial = await questions.find(question.id) if decided is State.DENIED else None
        except TooManyQuestionsError:
            raise self._denied(exchange, budget, not_asked(no.refusal)) from None
        except StoreError:
            raise self._denied(exchange, budget, no.refusal) from None
        if decided is State.DENIED:
            raise self._denied(exchange, budget, turned_down(claim, question.id, denial.reason if denial else ""))
        if decided is State.APPROVED:
            self._count(budget.name, "approved")
            asking.approved[scope] = question
        elif decided is State.OPEN:
            raise self._denied(exchange, budget, unanswered(no.refusal, question.id))

    def _fits(self, claim: Claim, level: Level) -> bool:
        """True if the claim's own count seems to have room, including grants."""
        return level.settled + level.reserved + claim.amount <= claim.budget.limit + self._room(claim)

    def _downgrade(self, exchange: Exchange, settings: BudgetSettings) -> bool:
        """Send the exchange to the cheaper model. False if that model cannot serve it, or is the target already."""
        model = settings.downgrade_to
        if self._reroute is None or model is None or exchange.route.of_tools or model == exchange.route.chain.name:
            return False
        try:
            self._reroute(exchange, model)
        except Refusal:
            return False
        self._count(settings.name, "downgraded")
        exchange.money.downgraded = settings.name
        return True

    # --- while the answer streams

    async def extend(self, exchange: Exchange) -> Refusal | None:
        """Hold more for an answer longer than its reservation. Returns the refusal that ends the answer, or None."""
        reservation = exchange.money.reservation
        output = reservation.output + max(_STEP, reservation.output // 2)
        worst = reservation.output_tokens
        if reservation.output < worst:
            output = min(output, worst)
        more = _lacking(exchange, output)
        holds = [claim.hold(amount, self._room(claim)) for claim, amount in zip(reservation.claims, more, strict=True)]
        try:
            outcome = await self._counters.extend(reservation.id, holds)
        except StoreError:
            for claim, amount in zip(reservation.claims, more, strict=True):
                if amount and claim.budget.enforced and claim.budget.settings.store_failure == "deny":
                    message = f"Budget {claim.budget.name!r} cannot be checked now: the answer ends here."
                    refusal = Refusal(STORE_UNAVAILABLE, message)
                    return self._denied(exchange, claim.budget, refusal, "store_failure")
            outcome = None
        if isinstance(outcome, Denied):
            claim = reservation.claims[outcome.index]
            self._watch.denied(claim, holds[outcome.index], outcome)
            return self._denied(exchange, claim.budget, exceeded(claim, outcome, self._room(claim)), "cut")
        if outcome is not None:
            for claim, amount in zip(reservation.claims, more, strict=True):
                claim.amount += amount
        reservation.output = output
        reservation.enough = _covered_bytes(reservation)
        return None


def _bound(exchange: Exchange, budget: Budget, target: Target, input_tokens: int, output_tokens: int) -> int:
    """The most that a request with these tokens can use of a budget at `target`."""
    price = dearest(exchange, target) if budget.counts_money else None
    reservation = exchange.money.reservation
    most = budget.bound(
        target, input_tokens, output_tokens, reservation.possible, price, units=exchange.request.ask.most_units
    )
    if not reservation.named or not budget.counts_tokens:
        return most
    return with_named(exchange, budget, target, most, (input_tokens, output_tokens))


def _limited(exchange: Exchange, index: int) -> bool:
    """True if the request, as sent to the target, limits its output."""
    if exchange.request.ask.output_field is None:
        return True
    limits, target = exchange.money.output_limits, exchange.route.targets[index]
    return limits[index] is not None or output_limit(target.changes, exchange.request.ask.max_output_tokens) is not None


def _lacking(exchange: Exchange, output: int) -> Sequence[int]:
    """The amount each claim lacks for `output` tokens of an answer from the target that serves."""
    reservation, target = exchange.money.reservation, exchange.answer.target
    assert target is not None, "it answers"
    known = reservation.inputs[exchange.route.targets.index(target)]
    usual = min(known, input_estimate(exchange))
    return [
        max(
            0,
            _bound(exchange, claim.budget, target, usual if claim.budget.patient else known, output) - claim.amount,
        )
        if counted and claim.budget.grows
        else 0
        for claim, counted in zip(reservation.claims, counting(reservation.claims, exchange, target), strict=True)
    ]


def _covered_bytes(reservation: Reservation[Claim]) -> int:
    """Bytes of an answer that the held amounts cover. While less than the worst case is held, it is an estimate; then
    it is a length that no answer within its limit can have.
    """
    output = reservation.output
    within = output < reservation.output_tokens or None in reservation.limits
    return output * (_USUAL_BYTES_PER_TOKEN if within else _MOST_BYTES_PER_TOKEN) + _SLACK

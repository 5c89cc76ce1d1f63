"""Reports for operators and consumers: spending, budgets, grants.

Two readers: the admin API (`AdminReports`), for everything, from its own threads; and a consumer through the gateway,
for its own data (`Reporter`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from extproc.access.questions import DecidedError, Question, Questions, State
from extproc.cache.answers import Answers
from extproc.cache.settings import SAMPLES
from extproc.money.accounting.alerts import amount, moment, told_question
from extproc.money.budgets import Budget, BudgetSettings, Grant, Grants, compile_budget, read_scope
from extproc.money.ledger import LedgerError
from extproc.money.ledger.comparing import CompareQuery
from extproc.money.ledger.ledger import Ledger
from extproc.money.ledger.query import ExchangeQuery, Query, instant, label_of
from extproc.operate.reports import ReportError
from extproc.operate.reports.under_way import MOST_UNDER_WAY
from extproc.stores import Counters, Level, StoreError, window_at
from extproc.upstream import prices
from extproc.words.exchange import Consumer

if TYPE_CHECKING:
    from extproc.money.accounting.forgotten import Forgotten

MOST_SCOPES = 100
"""Most counts of one budget in an answer, the fullest first."""
_NOT_OPEN = "no open question has that id: it was never asked, or its time is over"
_PATIENCE = 10.0  # most seconds that a thread waits for the event loop

Entry = Mapping[str, Any]
"""One exchange as JSON; at least `id`, `request_id`, `time`, `status` and `outcome`."""
_T = TypeVar("_T")


class WorkerMemory(msgspec.Struct):
    """Facts in a worker's memory alone: recent exchanges and those under way, findings about deployments, and samples
    of questions.
    """

    recent: list[Entry] = []
    deployments: Mapping[str, Mapping[str, Any]] = {}
    similar: list[Entry] = []
    under_way: Sequence[Entry] = []


@dataclass(slots=True, frozen=True)
class OwnMemory:
    """Memory of this process. Each part is made when it is asked for, on any thread."""

    recent: Callable[[], list[Entry]]
    deployments: Callable[[], Mapping[str, Mapping[str, Any]]]
    similar: Callable[[], list[Entry]]
    under_way: Callable[[], Sequence[Entry]]

    def whole(self) -> WorkerMemory:
        return WorkerMemory(self.recent(), self.deployments(), self.similar(), self.under_way())


@dataclass(slots=True, frozen=True)
class Reporter:
    """Reads the counters and the ledger. `now` in epoch seconds."""

    counters: Counters
    ledger: Ledger
    grants: Grants
    now: Callable[[], float]

    async def budgets(
        self, settings: Sequence[BudgetSettings], name: str | None = None, who: Consumer | None = None
    ) -> Mapping[str, Any]:
        """Every budget with its fullest counts; with `who`, only budgets that concern this consumer. Raises
        StoreError.
        """
        data = []
        for entry in settings:
            if name not in (None, entry.name) or entry.window == "call":
                continue
            if who is not None and not _concerns(entry, who):
                continue
            data.append(await self._budget(compile_budget(entry), who))
        return {"object": "list", "data": data}

    async def _budget(self, budget: Budget, who: Consumer | None) -> Mapping[str, Any]:
        settings = budget.settings
        _, ends = window_at(self.now(), budget.window)
        if who is None:
            found = await self.counters.fullest(settings.name, budget.window, MOST_SCOPES)
        else:
            found = await self._own(budget, who)
        scopes = [self._scope(budget, scope, level) for scope, level in found if "approved" not in read_scope(scope)[1]]
        return {
            "name": settings.name,
            "unit": settings.unit,
            "window": settings.window,
            "limit": amount(budget, budget.limit),
            "mode": settings.mode,
            "on_exceed": settings.on_exceed,
            "alert_at": list(settings.alert_at),
            "resets_at": None if ends is None else moment(ends),
            "scopes": scopes,
        }

    async def _own(self, budget: Budget, who: Consumer) -> Sequence[tuple[str, Level]]:
        """The counts of a budget that belong to the consumer, to its team, or to all. It reads as little as possible,
        because any client may call it at any rate.
        """
        per = budget.settings.per
        if "consumer" not in per and any(field == "key" or field.startswith("label.") for field in per):
            return []  # labels and keys do not identify the consumer
        prefix, known = budget.settings.name, 0
        for field in per:  # if the consumer's name comes first, its counts share a prefix
            if field not in ("consumer", "team"):
                break
            prefix += f":{field}={budget.quoted(who.name if field == 'consumer' else who.team)}"
            known += 1
        if known == len(per):
            [level] = await self.counters.levels([(prefix, budget.window)])
            return [(prefix, level)] if level.settled or level.reserved else []
        found = await self.counters.fullest(prefix, budget.window, MOST_SCOPES)
        return [(scope, level) for scope, level in found if _belongs_to(scope, who)]

    def _scope(self, budget: Budget, scope: str, level: Level) -> Mapping[str, Any]:
        granted = self.grants.room(scope, budget.settings.unit, budget.most_granted)
        limit = budget.limit + granted
        return {
            "scope": scope,
            "fields": read_scope(scope)[1],
            "settled": amount(budget, level.settled),
            "reserved": amount(budget, level.reserved),
            "granted": amount(budget, granted),
            "remaining": amount(budget, max(0, limit - level.settled - level.reserved)),
            "used": round((level.settled + level.reserved) / limit, 4) if limit else 1.0,
        }

    def usage(self, parameters: Sequence[tuple[str, str]], who: Consumer | None = None) -> Mapping[str, Any]:
        """The usage report; with `who`, of this consumer's requests only. Blocks. Raises ValueError for unreadable
        parameters, LedgerError.
        """
        query = self._query(parameters)
        return self.ledger.usage(query if who is None else query.only("consumer", who.name)).json()

    def latency(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """Times of answers. Blocks, and raises as `usage` does."""
        return self.ledger.latency(self._query(parameters))

    def findings(self, parameters: Sequence[tuple[str, str]]) -> Sequence[Mapping[str, Any]]:
        """Findings of guardrails. Blocks, and raises as `usage` does."""
        return self.ledger.findings(self._query(parameters))

    def _query(self, parameters: Sequence[tuple[str, str]]) -> Query:
        return Query.parse(parameters, datetime.fromtimestamp(self.now(), UTC))


class AdminReports:
    """The reports of the admin API about a running processor. Methods are called on threads, several at a time, and
    block. They raise ReportError, LedgerError, StoreError and CacheError, and ValueError for a question that cannot be
    read. Some of them run a part on the event loop.

    `entries` are the exchanges that this process remembers, the latest last; `deployments` is `History.deployments`.
    `siblings` gives both from other workers. `answers` are the kept answers, `tools` the definitions of MCP servers.
    `stale` says why the settings in use differ from the file, `certificate` that the listener's certificate ends soon;
    both may be empty. `forgotten` reaches all processes of a fleet.
    """

    def __init__(
        self,
        reporter: Reporter,
        budgets: Callable[[], Sequence[BudgetSettings]],
        own: OwnMemory,
        loop: asyncio.AbstractEventLoop,
        *,
        answers: Answers | None = None,
        siblings: Callable[[], Sequence[WorkerMemory]] = tuple,
        tools: Callable[[bool], Sequence[Mapping[str, Any]]] | None = None,
        stale: Callable[[], str] = str,
        forgotten: Forgotten | None = None,
        certificate: Callable[[], str] = str,
    ) -> None:
        self.stale = stale
        self.certificate = certificate
        self._own = own
        self._siblings = siblings
        self._answers = answers
        self._similar_since = 0.0  # older samples of questions are hidden: other workers may still have them
        self._tools = tools
        self._reporter = reporter
        self._forgotten: dict[str, float] = {}  # consumer -> time of forgetting; older memories of workers are hidden
        self._elsewhere = forgotten
        self._budgets = budgets
        self._loop = loop

    def usage(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        return self._reporter.usage(parameters)

    def latency(self, parameters: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        return self._reporter.latency(parameters)

    def findings(self, parameters: Sequence[tuple[str, str]]) -> Sequence[Mapping[str, Any]]:
        return self._reporter.findings(parameters)

    def budgets(self, name: str | None) -> Mapping[str, Any]:
        """All budgets, or the budget of that name, with the room left in each."""
        found = self._ask(self._reporter.budgets(self._budgets(), name))
        if name is not None and not found["data"]:
            raise ReportError(404, "no budget that counts has that name")
        return found

    def stores(self) -> Mapping[str, Mapping[str, str]]:
        """The state of counters and ledger, by a write to each that changes nothing."""

        async def counters() -> tuple[str, str]:
            try:
                return "", await self._reporter.counters.examine()
            except StoreError as error:
                return str(error), ""

        problem, remark = self._ask(counters())
        found = {"counters": {"problem": problem, "remark": remark}, "ledger": {"problem": "", "remark": ""}}
        try:
            self._reporter.ledger.examine()
        except LedgerError as error:
            found["ledger"]["problem"] = str(error)
        return found

    def tools(self, *, definitions: bool) -> Sequence[Mapping[str, Any]]:
        """The MCP servers and the state of their tools."""
        if (tools := self._tools) is None:
            raise ReportError(404, "the settings have no MCP servers")

        async def now() -> Sequence[Mapping[str, Any]]:  # runs on the loop, where the servers change
            return tools(definitions)

        return self._ask(now())

    def providers(self) -> Mapping[str, Mapping[str, Any]]:
        """Findings of all workers about each deployment; if several have one, the highest value. Cool-downs (`cooled`)
        are those that any worker knows.
        """
        found: dict[str, dict[str, Any]] = {}
        for deployments in (self._own.deployments(), *(each.deployments for each in self._siblings())):
            for name, facts in deployments.items():
                known = found.setdefault(name, {})
                for fact, value in facts.items():
                    known[fact] = (
                        [*known.get(fact, ()), *value] if fact == "cooled" else max(value, known.get(fact, value))
                    )
        return found

    def under_way(self) -> Sequence[Entry]:
        """Exchanges that have not ended, of all workers, the longest first."""
        found = [*self._own.under_way(), *(entry for each in self._siblings() for entry in each.under_way)]
        return sorted(found, key=lambda entry: entry["seconds"], reverse=True)[:MOST_UNDER_WAY]

    def exchanges(self, parameters: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        """Exchanges that this process remembers, refused keys included, and exchanges of other and earlier processes
        from the ledger.
        """
        query, remembered = ExchangeQuery.parse(parameters), self._remembered()
        found = [entry for entry in remembered if matches(entry, query)]
        if query.before is not None:
            row = self._reporter.ledger.exchange(query.before)
            if (last := _of_id(remembered, query.before) or row) is None:
                return []
            began = _began(last)
            found = [entry for entry in found if _began(entry) < began]
            # An exchange without a row, such as one with a wrong key, is placed by its time.
            if row is None or row["id"] != query.before:
                end = datetime.fromtimestamp(began, UTC)
                query = replace(query, before=None, end=end if query.end is None else min(end, query.end))
        found = sorted(found, key=_began)[-query.limit :]
        seen = {entry["id"] for entry in found}
        found += [entry for entry in self._reporter.ledger.exchanges(query) if entry["id"] not in seen]
        return sorted(found, key=_began, reverse=True)[: query.limit]

    def exchange(self, id: str) -> Entry | None:
        """One exchange, by its id or its `x-request-id`. The ledger knows more of it, such as its charges."""
        try:
            found = self._reporter.ledger.exchange(id)
        except LedgerError:
            if (found := _of_id(self._remembered(), id)) is None:
                raise
        return found or _of_id(self._remembered(), id)

    def runs(self, consumer: str | None, hours: int) -> Sequence[Mapping[str, Any]]:
        """The latest runs of the last hours, with sums over their exchanges in that time."""
        since = datetime.fromtimestamp(self._reporter.now(), UTC) - timedelta(hours=hours)
        return self._reporter.ledger.runs(since, consumer)

    def run(self, id: str, consumer: str | None) -> Sequence[Mapping[str, Any]]:
        """The runs of that name, one for each consumer, with their calls and problems."""
        return self._reporter.ledger.run(id, consumer)

    def compare(
        self,
        a: str,
        b: str,
        begin: str | int,
        *,
        label: str | None = None,
        model: str | None = None,
        pairs: tuple[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """Two targets compared since a time, or over the last hours; over requests for one model if it is given. With
        `pairs`, see `CompareQuery`. Raises ValueError for a time that cannot be read.
        """
        end = datetime.fromtimestamp(self._reporter.now(), UTC)
        start = end - timedelta(hours=begin) if isinstance(begin, int) else instant("start", begin)
        filters = {} if model is None else {"model": [model]}
        return self._reporter.ledger.compare(CompareQuery(a, b, start, end, label, filters, pairs))

    def grants(self) -> Sequence[Mapping[str, Any]]:
        known = self._compiled()
        return [
            grant_answer(grant, budget)
            for grant in self._reporter.grants.all()
            if (budget := known.get(grant.budget)) is not None and budget.settings.unit == grant.unit
        ]

    def grant(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Grant room beyond a limit: `budget`, `scope`, `amount` (a Decimal above 0), `expires_in` (seconds or None).
        Raises ValueError when the grant fits no budget.
        """
        scope = str(body["scope"])
        budget = self._count_of(str(body["budget"]), scope)
        more = Decimal(str(body["amount"])) * (prices.NANO if budget.counts_money else 1)
        if more % 1 or not 0 < more <= max(budget.limit, 1):
            whole = "" if budget.counts_money else ", and whole"
            raise ValueError(
                f"amount must be more than 0, at most the limit {budget.show(budget.limit, unit=True)}{whole}"
            )
        now, seconds = self._reporter.now(), body.get("expires_in")
        ends = window_at(now, budget.window)[1]
        until = min(
            (at for at in (ends, None if seconds is None else now + float(seconds)) if at is not None), default=None
        )
        settings, most = budget.settings, budget.most_granted
        give = self._reporter.grants.add(settings.name, scope, int(more), settings.unit, until, most=most)
        return grant_answer(self._ask(give), budget)

    def reset(self, name: str, scope: str) -> Mapping[str, Any]:
        """Begin a count of a budget anew in its window. Raises ValueError when the budget has no such count."""
        budget = self._count_of(name, scope)
        was = self._ask(self._reporter.counters.reset(scope, budget.window))
        return {"budget": name, "scope": scope, "settled": amount(budget, was)}

    def end_sign_in(self, server: str, consumer: str, issuer: str, subject: str) -> None:
        """Forget a user's tokens at an MCP server."""
        from extproc.tools.sign_in.sign_ins import User, sign_out  # noqa: PLC0415 - most gateways have no MCP servers

        self._ask(sign_out(self._reporter.counters, server, User(consumer, issuer, subject)))

    @property
    def _questions(self) -> Questions:
        return Questions(self._reporter.counters, now=self._reporter.now)

    def questions(self) -> Sequence[Mapping[str, Any]]:
        """Questions about requests without room and about calls of tools, the latest first."""
        known = self._compiled()
        return [
            asked(question, state, known.get(question.budget))
            for question, state in self._ask(self._questions.all())
            if _is_known(question, known)
        ]

    def decide(self, id: str, *, approve: bool, by: str, reason: str) -> Mapping[str, Any]:
        """Decide a question, in the name of an operator."""
        known = self._compiled()
        asked_about = self._ask(self._questions.find(id))
        if asked_about is None or not _is_known(asked_about, known):
            raise ReportError(404, _NOT_OPEN)
        try:
            found = self._ask(self._questions.decide(id, approve=approve, by=by, reason=reason))
        except DecidedError as error:
            who = f" by {error.question.by}" if error.question.by else ""
            state = "denied" if error.state is State.DENIED else "approved"
            raise ReportError(409, f"the question was {state} already{who}") from None
        if found is None:
            raise ReportError(404, _NOT_OPEN)
        return asked(found, State.APPROVED if approve else State.DENIED, known.get(found.budget))

    def cache(self) -> Mapping[str, int]:
        return self._ask(self._cached_answers().stats())

    def similar(self) -> Sequence[Mapping[str, Any]]:
        """Samples of questions in other words, the latest first."""
        found = [*self._own.similar(), *(one for each in self._siblings() for one in each.similar)]
        found = [one for one in found if one["time"] > self._similar_since]
        return sorted(found, key=lambda one: one["time"], reverse=True)[:SAMPLES]

    def forget(self, consumer: str | None) -> int:
        """Delete the kept answers to a consumer's requests, with None all answers. Returns their number."""
        self._similar_since = self._reporter.now()
        return self._ask(self._cached_answers().forget(consumer))

    def forget_consumer(self, consumer: str, *, delete: bool) -> Mapping[str, int]:
        """Forget a consumer: its `rows` of the ledger lose every name of it, or are deleted; its kept `answers` are
        deleted. Returns the numbers of both.
        """
        self._forgotten[consumer] = self._reporter.now()
        if self._elsewhere is not None:
            self._ask(self._elsewhere.add(consumer))
        self._similar_since = self._reporter.now()
        answers = 0 if self._answers is None else self._ask(self._answers.forget(consumer))
        rows = self._reporter.ledger.forget(consumer, delete=delete)
        return {"rows": rows, "answers": answers}

    def export(self, consumer: str, before: str | None, limit: int) -> Sequence[Entry]:
        """Rows of a consumer in the ledger before the row with the id `before`, the latest first."""
        return self._reporter.ledger.exchanges(
            ExchangeQuery(filters={"consumer": [consumer]}, before=before, limit=limit)
        )

    def rebuild(self) -> None:
        """Mark the ledger's sums of hours and days to be made anew."""
        self._reporter.ledger.rebuild()

    def _cached_answers(self) -> Answers:
        if self._answers is None or not self._answers.caches:
            raise ReportError(404, "the cache is off: no rule of `cache` keeps answers")
        return self._answers

    def revoke(self, id: str) -> bool:
        """Revoke a grant. False: no grant has that id."""
        return self._ask(self._reporter.grants.revoke(id))

    def _remembered(self) -> Sequence[Entry]:
        """The exchanges that workers remember, the latest last."""
        own, others = self._own.recent(), [entry for each in self._siblings() for entry in each.recent]
        found = sorted([*own, *others], key=_began) if others else own
        return [entry for entry in found if _began(entry) > self._forgotten.get(entry.get("consumer", ""), 0.0)]

    def _compiled(self) -> Mapping[str, Budget]:
        return {entry.name: compile_budget(entry) for entry in self._budgets()}

    def _count_of(self, name: str, scope: str) -> Budget:
        """The budget with this count, which must count over a time. Raises ValueError."""
        budget = self._compiled().get(name)
        if budget is None or budget.settings.window is None or budget.settings.window == "call":
            raise ValueError(f"there is no budget {name!r} that counts over a time")
        if not budget.has(scope):
            raise ValueError(
                f"{scope!r} is no count of the budget {name!r}; GET /budgets/{name} has its counts, each with its "
                "`scope`"
            )
        return budget

    def _ask(self, question: Coroutine[Any, Any, _T]) -> _T:
        late = False

        async def answer() -> _T:
            if late:  # the caller has given up, and would not learn of the grant
                question.close()
                raise TimeoutError
            return await question

        try:
            return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(_PATIENCE)
        except TimeoutError:
            late = True
            raise ReportError(503, "the processor is too busy to answer") from None


def _of_id(entries: Iterable[Entry], id: str) -> Entry | None:
    return next((entry for entry in entries if id in (entry["id"], entry["request_id"])), None)


def matches(entry: Entry, query: ExchangeQuery) -> bool:
    """True when `entry` matches a query; a status is compared as text, and a missing label is empty."""
    if query.run is not None and entry.get("run", "") != query.run:
        return False
    if query.findings and not entry.get("guardrails"):
        return False
    began = _began(entry) if query.start or query.end else 0.0
    if (query.start and began < query.start.timestamp()) or (query.end and began >= query.end.timestamp()):
        return False
    return all(_value(entry, name) in wanted for name, wanted in query.filters.items())


def _began(entry: Entry) -> float:
    """Start of an exchange in seconds since the epoch. Remembered exchanges have the time of their end."""
    time = entry["time"]
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time - entry["duration_ms"] / 1000


def _value(entry: Entry, name: str) -> str:
    label = label_of(name)
    found = entry.get(name, "") if label is None else entry.get("labels", {}).get(label, "")
    return str(found).lower() if isinstance(found, bool) else str(found)


def grant_answer(grant: Grant, budget: Budget) -> Mapping[str, Any]:
    return {
        "id": grant.id,
        "budget": grant.budget,
        "scope": grant.scope,
        "amount": amount(budget, grant.amount),
        "expires_at": moment(grant.expires),
    }


def _is_known(question: Question, budgets: Mapping[str, Budget]) -> bool:
    """False for a question about a budget that the settings have no more."""
    budget = budgets.get(question.budget)
    return question.call is not None or (budget is not None and budget.settings.unit == question.unit)


def asked(question: Question, state: State, budget: Budget | None) -> Mapping[str, Any]:
    """A question, and its state, for the API."""
    became = {"state": state.value, "decided_by": question.by, "reason": question.reason}
    return {**told_question(question, budget), **became}


def _concerns(settings: BudgetSettings, who: Consumer) -> bool:
    """True when a consumer's requests may fall under the budget."""
    facts = {"consumer": who.name, "team": who.team}
    match = compile_budget(settings).match
    return all(pattern(facts[name]) for name, pattern in match if name in facts)


def _belongs_to(scope: str, who: Consumer) -> bool:
    """True when the fields of a count name the consumer, or its team."""
    fields = read_scope(scope)[1]
    return fields["consumer"] == who.name if "consumer" in fields else fields.get("team", who.team) == who.team

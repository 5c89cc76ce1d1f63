"""Calls of tools in budgets: what counts where, what it costs, and that no budget is overdrawn."""

import asyncio
import time

import pytest

from extproc.money.accounting.books import row_of_expired
from extproc.money.accounting.settle import Settle
from extproc.money.budgets import Leases, Reserve
from extproc.settings.document import ConfigError
from extproc.stores.memory import MemoryCounters
from extproc.upstream import prices
from extproc.words.dialect import Ask
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead, Target
from tests.exchanges import new_exchange


class Stages:
    def __init__(self, settings, budgets):
        self.counters = MemoryCounters(time.time)
        made = settings(f"budgets: [{budgets}]").budgets
        leases = Leases(self.counters)
        self.reserve = Reserve(made, self.counters, leases, None, lambda *_: None)
        self.settle = Settle(self.counters, leases, lambda *_: None)

    async def levels(self, *scopes):
        found = await self.counters.levels([(scope, 3600) for scope in scopes])
        return [(level.settled, level.reserved) for level in found]


def call(dialect, tool="create_issue", *, operation="tools/call", price=0.0, number=1, server="github"):
    exchange = new_exchange(f"id-{number}", RequestHead("POST", "/mcp/dev", {}))
    exchange.route.of_tools, exchange.request.operation, exchange.request.dialect = True, operation, dialect
    exchange.consumer, exchange.money.labels = Consumer("alice", "red"), {"run": "7"}
    exchange.request.body, exchange.request.json, exchange.request.ask = b'{"jsonrpc": "2.0"}', {}, Ask(f"gh_{tool}")
    exchange.route.targets = (Target("dev", server, tool, price=prices.price(0, 0, per_request=price)),)
    return exchange


def ended(exchange, status=200, *, forwarded=True):
    exchange.route.forwarded, exchange.answer.status = forwarded, status
    if forwarded:
        exchange.answer.target = exchange.route.targets[0]
    exchange.end(whole=forwarded, refused="" if forwarded else "x")
    return exchange


ONE = "name: b, unit: tool_calls, limit: 100, window: hour"


@pytest.mark.parametrize(
    ("budget", "scope", "counted"),
    [
        (ONE, "b", True),
        ("name: b, unit: usd, limit: 1, window: hour", "b", True),
        ("name: b, unit: concurrency, limit: 9", "b", True),
        ("name: b, unit: requests, limit: 100, window: hour", "b", False),
        ("name: b, unit: tokens, limit: 99999, window: hour", "b", False),
        (ONE + ", match: {tool: 'github/create_*'}", "b", True),
        (ONE + ", match: {tool: 'create_*'}", "b", False),
        (ONE + ", match: {mcp_server: jira}", "b", False),
        (ONE + ", match: {mcp_server: '*', profile: dev}", "b", True),
        (ONE + ", match: {model: '*'}", "b", False),
        (ONE + ", per: [consumer, tool]", "b:consumer=alice:tool=github/create_issue", True),
        (ONE + ", per: [profile, mcp_server, label.run]", "b:profile=dev:mcp_server=github:label.run=7", True),
        ("name: b, unit: usd, limit: 1, window: hour, per: [model]", "b:model=", True),
    ],
)
async def test_budgets_that_a_call_counts_in(settings, exchange, budget, scope, counted):
    stages = Stages(settings, f"{{{budget}}}")
    one = call(exchange().request.dialect, price=0.25)
    await stages.reserve(one)
    assert [claim.scope for claim in one.money.reservation.claims] == ([scope] if counted else [])
    await stages.settle(ended(one))
    assert one.money.cost == prices.NANO // 4
    assert one.money.usage.total_tokens == 0
    # a request to a model
    other = exchange()
    await stages.reserve(other)
    of_models = "tool" not in budget.replace("unit: tool_calls", "tool") and "mcp_server" not in budget
    assert bool(other.money.reservation.claims) is of_models


async def test_a_call_is_charged_when_a_server_took_it(settings, exchange):
    stages = Stages(settings, f"{{{ONE}}}, {{name: usd, unit: usd, limit: 10, window: hour}}")
    dialect = exchange().request.dialect
    for number, (status, forwarded, prompt) in enumerate(
        [(200, True, False), (500, True, False), (0, False, False), (200, True, True)]
    ):
        one = call(dialect, price=2, number=number, operation="prompts/get" if prompt else "tools/call")
        await stages.reserve(one)
        await stages.settle(ended(one, status, forwarded=forwarded))
    # a failed call counts, and costs nothing; a prompt is no call of a tool
    assert await stages.levels("b", "usd") == [(2, 0), (4 * prices.NANO, 0)]


async def test_the_row_of_a_call_survives_its_process(settings, exchange, clocks):
    """Also without any budget: another process writes it when the lease has run out."""
    clock = clocks()
    counters = MemoryCounters(clock)
    one = call(exchange().request.dialect)
    leases = Leases(counters)
    await Reserve([], counters, leases, None, lambda *_: None)(one)
    assert one.money.reservation.held
    one.route.forwarded = True
    await leases.turn()
    clock.now += 120
    [expired] = await counters.expire(keep=60)
    row = row_of_expired(expired, {}, {}, clock())
    assert (row.operation, row.model, row.target, row.provider, row.provider_model, row.consumer) == (
        *("tools/call", "gh_create_issue", "dev", "github", "create_issue", "alice"),
    )
    # one that ended is settled with nothing to charge
    other = call(exchange().request.dialect, number=2)
    await Reserve([], counters, leases, None, lambda *_: None)(other)
    await Settle(counters, leases, lambda *_: None)(ended(other))
    assert other.money.charges == {}


async def test_no_call_too_many_at_once(settings, exchange):
    stages = Stages(
        settings,
        f"{{{ONE}}}, {{name: slots, unit: concurrency, limit: 150}}, {{name: usd, unit: usd, limit: 1, window: hour}}",
    )
    dialect = exchange().request.dialect

    async def one(number):
        made = call(dialect, number=number, price=0.01)
        try:
            await stages.reserve(made)
        except Refusal as refusal:
            return refusal.kind.code
        await asyncio.sleep(0)
        await stages.settle(ended(made))
        return "ok"

    said = await asyncio.gather(*map(one, range(200)))
    assert said.count("ok") == 100
    assert set(said) <= {"ok", "rate_limited", "budget_exceeded"}
    assert await stages.levels("b", "usd", "slots") == [(100, 0), (prices.NANO, 0), (0, 0)]


def test_settings(settings):
    for more, message in (
        ("window: call", "limits nothing"),
        ("window: hour, reserve: expected", "tokens or USD"),
        ("window: hour, on_exceed: downgrade, downgrade_to: m", "no other"),
        ("window: hour, match: {mcp: x}", "not one of"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings(f"budgets: [{{name: b, unit: tool_calls, limit: 1, {more}}}]")

"""Budgets at work without a gateway: Reserve and Settle over one store, with their metrics."""

from __future__ import annotations

from extproc.money.accounting.settle import Settle
from extproc.money.budgets import BudgetSettings, Expected, Grants, Leases, Reserve, ReserveTools
from extproc.money.budgets.settings import WINDOWS
from extproc.stores.memory import MemoryCounters


class Spending:
    """`budgets` are settings, each completed by `defaults`. `counted`, `used` and `told` are what metrics and alerts
    got.
    """

    def __init__(self, clock, *budgets, defaults, tools=None, reroute=None, counters=None, cap=4096):
        self.clock, self.counted, self.used, self.told = clock, [], {}, []
        self.counters = counters or MemoryCounters(clock)
        self.leases, self.grants, self.expected = Leases(self.counters), Grants(self.counters, clock), Expected()
        settings = [BudgetSettings(**{"name": "b", **defaults, **budget}) for budget in budgets]
        self._window = WINDOWS[defaults["window"]]
        count = lambda *what: self.counted.append(what)  # noqa: E731
        tools = tools or ReserveTools(self.used.__setitem__, self.told.append, self.grants, self.expected)
        self.reserve = Reserve(
            settings, self.counters, self.leases, cap, count, tools=tools, reroute=reroute, now=clock
        )
        self._settle = Settle(self.counters, self.leases, count, expected=self.expected)

    def settles_with(self, **more):
        self._settle = Settle(self.counters, self.leases, lambda *_: None, **more)

    async def settle(self, sent):
        """Settle an exchange. One that has not ended is ended as if its client had disconnected."""
        sent.end()
        await self._settle(sent)

    async def level(self, scope="b", window=None):
        [level] = await self.counters.levels([(scope, self._window if window is None else window)])
        return level.settled, level.reserved

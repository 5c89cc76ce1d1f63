"""Budgets and rate limits: reserved before anything is spent. `settle` replaces a reservation by the real use.

A rate limit is a budget with a short window. Before a request leaves, an upper bound of its use is taken from every
budget that applies, all or none. At its end, of whatever kind, the bound is replaced by the truth. So `settled +
reserved <= limit` holds at every instant, with any number of requests in flight.
"""

from extproc.budgets.bounds import estimate, input_bound, input_estimate, without
from extproc.budgets.budget import Budget, Claim, compile_budget, counting, read_scope
from extproc.budgets.exact import Exact
from extproc.budgets.expected import Expected
from extproc.budgets.facts import Facts, unpack_facts
from extproc.budgets.grants import Grant, Grants
from extproc.budgets.leases import Leases
from extproc.budgets.reserve import LEASE, Reserve, Tools, Unpriced
from extproc.budgets.settings import BudgetSettings
from extproc.budgets.watch import Alert

__all__ = [
    "LEASE",
    "Alert",
    "Budget",
    "BudgetSettings",
    "Claim",
    "Exact",
    "Expected",
    "Facts",
    "Grant",
    "Grants",
    "Leases",
    "Reserve",
    "Tools",
    "Unpriced",
    "compile_budget",
    "counting",
    "estimate",
    "input_bound",
    "input_estimate",
    "read_scope",
    "unpack_facts",
    "without",
]

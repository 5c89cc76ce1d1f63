"""Budgets and rate limits: reserved before anything is spent. `settle` replaces a reservation by the real use.

A rate limit is a budget with a short window. Before a request leaves, an upper bound of its use is taken from every
budget that applies, all or none. At the request's end, of any kind, the real use replaces the bound. So `settled +
reserved <= limit` holds at every instant, with any number of requests in flight.

    settings   keys of the YAML                  refusals   messages to clients
    budget     a budget, compiled; claims        watch      fill levels: gauge, headers, alerts
    bounds     tokens in, tokens out             expected   usual output, for `reserve: expected`
    exact      counts of text, on threads        scopes     the most counts that labels may make
    reserve    the stage, and extend             grants     grants by operators beyond a limit
    passed     tokens of text, by model          leases     the store's knowledge of reservations
    questions  operators asked about requests without room

The bound is one token for each byte of input text, and for the output the limit that the client set. Without a limit it
is the usual output of the model and grows with the stream, or with `reserve: worst` the most that the model can write.
Input is counted exactly only when its bytes do not fit, so the usual request needs no counting. While an answer
streams, one comparison for each piece shows whether the answer is within the held amount; beyond it `extend` holds
more, or the answer ends with an error event. A bound in USD is the bound at the most expensive target that the request
may reach. Pictures are bounded by their size. Input given by reference (file ids, URLs, earlier responses) holds the
whole context of the model.
"""

from extproc.money.budgets.bounds import estimate, input_bound, input_estimate, without
from extproc.money.budgets.budget import Budget, Claim, compile_budget, counting, read_scope
from extproc.money.budgets.exact import Exact
from extproc.money.budgets.expected import Expected
from extproc.money.budgets.facts import Facts, unpack_facts
from extproc.money.budgets.grants import Grant, Grants
from extproc.money.budgets.leases import Leases
from extproc.money.budgets.reserve import LEASE, Reserve, ReserveTools, Unpriced
from extproc.money.budgets.settings import BudgetSettings
from extproc.money.budgets.watch import Alert

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
    "ReserveTools",
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

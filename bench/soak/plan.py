"""The sizes of a soak and its settings."""

from __future__ import annotations

from dataclasses import dataclass

from extproc.upstream.prices import NANO

WORDS = 8  # words of an answer
MAX_TOKENS = 50  # output limit asked for
CONSUMERS = 6  # the first consumer sends four times as many requests as the others
HEAVY = 4
RUNS, HOT = 60, 5  # labels; three of ten requests name one of the first
WINDOWS = {"tokens": 0, "usd": 0, "count": 3600, "rate": 60, "run": 0, "busy": 0}
"""The budgets. Every request falls under all of them; `busy`, a concurrency limit, is never charged."""
CHARGED = frozenset(WINDOWS) - {"busy"}
HOLDS = len(WINDOWS)
ROOM = 0.35  # share of all requests that one consumer may send


@dataclass(slots=True, frozen=True)
class Plan:
    """One size. Times are in seconds."""

    requests: int
    in_flight: int
    pace: float  # between the words of a stream
    calm: float  # share of the requests before processors are killed
    kills: int
    every: float  # between two kills
    lease: float = 5.0
    leaving: float = 0.1  # share of the clients that disconnect mid-stream
    twice: float = 0.3  # share of the exchanges that are settled once more

    @property
    def heavy(self) -> float:
        """The approximate number of requests of the first consumer."""
        return self.requests * HEAVY / (CONSUMERS - 1 + HEAVY)


FULL = Plan(12_000, 200, 0.25, 0.2, 6, 10.0)
SHORT = Plan(900, 60, 0.1, 0.35, 2, 2.5)


def limits(plan: Plan, room: float = ROOM) -> dict[str, int]:
    """The limit of each budget, in its unit; nano-USD for money."""
    return {
        "tokens": int(plan.heavy * 14),
        "usd": plan.requests * 65_000,
        "count": int(plan.requests * room),
        "rate": int(plan.requests * 0.22),
        "run": plan.requests * 5_000,
        "busy": int(plan.in_flight * 0.35),
    }


def settings(plan: Plan, ports: dict[str, int], counters: str, ledger: str, number: int, *, room: float = ROOM) -> str:
    """The filter YAML of processor `number`. `room` is the limit of `count`."""
    most = limits(plan, room)
    price = "price: {input: 3, output: 15}"  # a whole answer: about 30 + 120 micro-USD
    consumers = ", ".join(f"{{name: c{n}, team: t{n % 2}, keys: [{{env: SOAK_KEY_{n}}}]}}" for n in range(CONSUMERS))
    return f"""
listener: {{address: 127.0.0.1, port: {ports["listener"]}}}
status: {{address: 127.0.0.1, port: {ports[f"status{number}"]}}}
admin: {{address: 127.0.0.1, port: {ports[f"admin{number}"]}}}
providers:
  sandbox:
    kind: mock
    base_url: "http://127.0.0.1:{ports["mock"]}/v1"
    max_requests: 10000
    max_connections: 10000
    outlier_detection: {{consecutive_5xx: 100000}}
models:
  slow: {{provider: sandbox, model: "slow+words={WORDS}+pace={plan.pace * 1000:.0f}ms", {price}}}
  plain: {{provider: sandbox, model: "plain+words={WORDS}+delay={plan.pace * WORDS * 500:.0f}ms", {price}}}
consumers: [{consumers}]
teams: {{t0: {{}}, t1: {{}}}}
budgets:
  - {{name: tokens, per: [consumer], unit: tokens, limit: {most["tokens"]}, window: total}}
  - {{name: usd, per: [team], unit: usd, limit: {most["usd"] / NANO:.9f}, window: total}}
  - {{name: count, per: [consumer], unit: requests, limit: {most["count"]}, window: hour}}
  - {{name: rate, per: [consumer], unit: requests, limit: {most["rate"]}, window: minute}}
  - {{name: run, per: [label.run], unit: usd, limit: {most["run"] / NANO:.9f}, window: total}}
  - {{name: busy, per: [consumer], unit: concurrency, limit: {most["busy"]}}}
stores: {{counters: "{counters}", ledger: "{ledger}"}}
limits: {{lease: {plan.lease:.0f}s}}
telemetry: {{access_log: "off"}}
"""


def scopes() -> list[tuple[str, int]]:
    """Every count that a soak can touch, with its window."""
    found = [
        (f"{name}:consumer=c{number}", WINDOWS[name])
        for name in ("tokens", "count", "rate", "busy")
        for number in range(CONSUMERS)
    ]
    found += [(f"usd:team=t{number}", WINDOWS["usd"]) for number in range(2)]
    return found + [(f"run:label.run={number}", WINDOWS["run"]) for number in range(RUNS)]

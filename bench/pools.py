"""The choice of endpoints beside round robin, least request and consistent hashing, over model servers in virtual time.

    python -m bench.pools                                       8 endpoints, each workload at 80 % load
    python -m bench.pools --endpoints 4 8 16 --load 0.5 0.8     more tables
    python -m bench.pools --scorers prefix=6 queue=2            other weights of the scorers

The servers are those of `bench.vllm`; the choice is the `Pool` that serves real requests, with its queue, its reports
once a second and its index of prefixes, on the clock of the simulation. All policies get the same conversations. A
conversation's next turn begins when its answer has come and its user has read it, so a slow pool gets fewer requests at
once, not more. Load is a share of the requests per second that the pool serves when it is flooded: of the gateway's
choice, or with `--of round-robin` of that one.

TTFT counts from the client's request to the first token, waits in the gateway included. Hits are the tokens of prompts
that the servers found in their caches; `of one` is their share of the hits of one server whose cache never forgets.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.vllm import CHARACTERS, Engine, Work, hashes
from extproc.routing.pools import servers
from extproc.routing.pools.endpoint import Endpoint
from extproc.routing.pools.picker import Facts
from extproc.routing.pools.pool import Pool
from extproc.routing.pools.prefixes import chain
from extproc.routing.pools.queue import Ticket
from extproc.upstream.providers import ProviderSettings

_SCRAPE = 1.0
_ANY = random.Random(0)


@dataclass(slots=True)
class Turn:
    """One message of a conversation: characters that it adds, tokens of its answer, seconds until the next one."""

    added: int
    output: int
    pause: float


@dataclass(slots=True)
class Talk:
    """A conversation: its beginning, shared with others, and its turns."""

    system: str
    turns: Sequence[Turn]
    seed: int


def _text(characters: int, seed: object) -> str:
    """Text that another seed does not give."""
    return random.Random(repr(seed)).randbytes(characters // 2).hex()


def chats(draw: random.Random) -> Iterator[Talk]:
    """People at 40 applications, some far more popular, each with its system prompt of 500 to 4,000 tokens."""
    systems = [_text(CHARACTERS * draw.randint(500, 4000), f"app {number}") for number in range(40)]
    popular = [1 / (rank + 1) for rank in range(len(systems))]
    for seed in itertools.count():
        turns = [
            Turn(CHARACTERS * draw.randint(20, 300), draw.randint(80, 300), draw.expovariate(1 / 15))
            for _ in range(draw.randint(1, 8))
        ]
        yield Talk(draw.choices(systems, popular)[0], turns, seed)


def agents(draw: random.Random) -> Iterator[Talk]:
    """Agents of 6 kinds with 6,000 to 10,000 tokens of instructions and tools, and 5 to 25 steps."""
    systems = [_text(CHARACTERS * draw.randint(6000, 10_000), f"agent {number}") for number in range(6)]
    for seed in itertools.count():
        turns = [
            Turn(CHARACTERS * draw.randint(100, 1200), draw.randint(30, 150), draw.expovariate(1 / 2))
            for _ in range(draw.randint(5, 25))
        ]
        yield Talk(draw.choice(systems), turns, seed)


def mixed(draw: random.Random) -> Iterator[Talk]:
    """Nine chats for each agent."""
    talks = [chats(draw)] * 9 + [agents(draw)]
    for seed in itertools.count():
        talk = next(draw.choice(talks))
        yield Talk(talk.system, talk.turns, seed)


def unique(draw: random.Random) -> Iterator[Talk]:
    """Single requests that share nothing."""
    for seed in itertools.count():
        yield Talk("", [Turn(CHARACTERS * draw.randint(200, 3000), draw.randint(50, 400), 0.0)], seed)


WORKLOADS: Mapping[str, Callable[[random.Random], Iterator[Talk]]] = {
    "chats": chats,
    "agents": agents,
    "mixed": mixed,
    "unique": unique,
}


# --- policies


@dataclass(slots=True, eq=False)
class Request:
    """A turn on its way: its text and server blocks, the digest of its conversation's beginning."""

    talk: Talk
    turn: int
    text: str
    work: Work
    digest: int
    at: float
    server: int = -1
    first: float = -1.0


class RoundRobin:
    """Servers in turns."""

    def __init__(self, engines: Sequence[Engine], *_: object) -> None:
        self.engines = engines
        self.in_flight = [0] * len(engines)
        self._turn = itertools.cycle(range(len(engines)))

    def place(self, request: Request, go: Callable[[int], None]) -> None:
        """Call `go` with the server, now or later."""
        chosen = self.choose(request)
        self.in_flight[chosen] += 1
        go(chosen)

    def choose(self, _request: Request) -> int:
        return next(self._turn)

    def done(self, request: Request) -> None:
        self.in_flight[request.server] -= 1

    def scrape(self) -> None:
        """Read the servers' metrics."""


class LeastRequest(RoundRobin):
    """Envoy's LEAST_REQUEST: of two servers at random, the one with fewer requests."""

    def choose(self, _request: Request) -> int:
        one, two = _ANY.sample(range(len(self.engines)), 2)
        return one if self.in_flight[one] <= self.in_flight[two] else two


class Hashing(RoundRobin):
    """Rendezvous hashing of the conversation's beginning."""

    def choose(self, request: Request) -> int:
        lots = [hashlib.blake2b(b"%d %d" % (request.digest, each)).digest() for each in range(len(self.engines))]
        return lots.index(max(lots))


class Picked:
    """The gateway's pool."""

    def __init__(self, engines: Sequence[Engine], clock: Callable[[], float], weights: Mapping[str, float]) -> None:
        settings = ProviderSettings.model_validate(
            {"kind": "vllm", "base_url": "http://pods/v1", "pool": {"scorers": weights, "max_queue": 100_000}}
        )
        self.engines = engines
        self.pool = Pool("llama", settings, clock)
        self.pool.picker._draw = _ANY.randrange  # noqa: SLF001 - the same run twice gives the same figures
        addresses = [f"10.0.0.{number}:8000" for number in range(len(engines))]
        self.pool.update(dict.fromkeys(addresses, ""))
        self.endpoints: Sequence[Endpoint] = [*self.pool.endpoints.values()]

    def place(self, request: Request, go: Callable[[int], None]) -> None:
        if not self._try(request, go, woken=False):
            assert self.pool.queue.join(Ticket("", 0, lambda _: self._wake(request, go)))
            self.pool.serve()

    def _wake(self, request: Request, go: Callable[[int], None]) -> None:
        self.pool.took_turn()  # `serve` counts it after this call
        self._try(request, go, woken=True)

    def _try(self, request: Request, go: Callable[[int], None], *, woken: bool) -> bool:
        pool = self.pool
        facts = Facts(pool.clock(), chain([request.text], "llama"), request.digest)
        best = pool.choose(facts, 3)[0]
        if not woken and (best.full or len(pool.queue)):
            return False
        pool.begin(best.endpoint, facts)
        go(self.endpoints.index(best.endpoint))
        return True

    def done(self, request: Request) -> None:
        endpoint = self.endpoints[request.server]
        endpoint.answered(request.first - request.at)
        self.pool.end("", endpoint)

    def scrape(self) -> None:
        for endpoint, engine in zip(self.endpoints, self.engines, strict=True):
            self.pool.report(endpoint, servers.read(engine.metrics().encode(), "vllm"))


POLICIES = {"round robin": RoundRobin, "least request": LeastRequest, "hashing": Hashing, "gateway": Picked}


# --- the simulation


@dataclass
class Outcome:
    """Figures of one run."""

    ttft: list[float] = field(default_factory=list)  # seconds
    done: int = 0
    seconds: float = 0.0
    hits: int = 0
    queries: int = 0
    could: int = 0  # tokens that a server with an endless cache would have found
    busy: float = 0.0  # share of the servers' time

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.done / self.seconds

    @property
    def late(self) -> float:
        """The 99th percentile of the TTFT."""
        ranked = sorted(self.ttft) or [0.0]
        return ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]

    def row(self) -> str:
        p50, p99 = statistics.median(self.ttft or [0.0]), self.late
        hits, of_one = self.hits / (self.queries or 1), self.hits / self.could if self.could else float("nan")
        shares = f"{p50 * 1e3:9.0f} {p99 * 1e3:9.0f} {hits:8.1%} {of_one:8.1%}"
        return f"{shares} {self.rate:9.2f} {self.busy:7.0%} {self.done:8}"


class Simulation:
    """One policy over `count` servers. Conversations begin at random, `rate` a second, for `seconds`."""

    def __init__(self, policy: str, workload: str, count: int, weights: Mapping[str, float], seed: int = 1) -> None:
        self.now = 0.0
        self.engines = [Engine() for _ in range(count)]
        self.policy = POLICIES[policy](self.engines, lambda: self.now, weights)
        self._draw = random.Random(seed)
        self._talks = WORKLOADS[workload](random.Random(seed))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stepping = [False] * count
        self._requests: dict[Work, Request] = {}
        self._seen: set[int] = set()
        self.outcome = Outcome()
        self._warm = 0.0

    def run(self, rate: float, seconds: float) -> Outcome:
        """Run for `seconds` of its own clock; the first quarter warms the caches and is not counted."""
        self._warm, end = seconds / 4, seconds
        self._begin(rate)
        self._scrape()
        before: tuple[int, int, float] | None = None
        while self._events and self._events[0][0] <= end:
            at, _, event = heapq.heappop(self._events)
            if before is None and at >= self._warm:
                before = self._counters()
            self.now = at
            event()
        after, outcome = self._counters(), self.outcome
        before = before or (0, 0, 0.0)
        outcome.seconds = end - self._warm
        outcome.queries, outcome.hits = after[0] - before[0], after[1] - before[1]
        outcome.busy = (after[2] - before[2]) / outcome.seconds / len(self.engines)
        late = [self.now - each.at for each in self._requests.values() if each.first < 0 and each.at >= self._warm]
        outcome.ttft += late  # requests that still wait have waited so long
        return outcome

    def _counters(self) -> tuple[int, int, float]:
        found = [(engine.queries, engine.hits, engine.busy) for engine in self.engines]
        return sum(each[0] for each in found), sum(each[1] for each in found), sum(each[2] for each in found)

    def _later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def _begin(self, rate: float) -> None:
        talk = next(self._talks)
        self._ask(talk, 0, talk.system, [])
        self._later(self._draw.expovariate(rate), lambda: self._begin(rate))

    def _scrape(self) -> None:
        self.policy.scrape()
        self._later(_SCRAPE, self._scrape)

    def _ask(self, talk: Talk, number: int, before: str, known: Sequence[int]) -> None:
        turn = talk.turns[number]
        text = before + _text(turn.added, (talk.seed, number, "asks"))
        blocks = hashes(text, known)
        answer = _text(CHARACTERS * turn.output, (talk.seed, number, "answers"))
        work = Work(len(text) // CHARACTERS, turn.output, blocks, hashes(text + answer, blocks))
        digest = int.from_bytes(hashlib.blake2b(b"%d" % talk.seed, digest_size=8).digest())
        request = Request(talk, number, text, work, digest, self.now)
        self._requests[work] = request
        if self.now >= self._warm:
            most = (work.tokens - 1) // 16
            found = next(
                (n for n, block in enumerate(blocks[:most]) if block not in self._seen), min(most, len(blocks))
            )
            self.outcome.could += found * 16
        self._seen.update(work.blocks)
        self.policy.place(request, lambda server: self._send(request, server))

    def _send(self, request: Request, server: int) -> None:
        request.server = server
        self.engines[server].add(request.work)
        if not self._stepping[server]:
            self._step(server)

    def _step(self, server: int) -> None:
        step = self.engines[server].step()
        self._stepping[server] = step is not None
        if step is None:
            return

        def after() -> None:
            for work in step.first:
                request = self._requests[work]
                if request.first < 0:
                    request.first = self.now
                    if request.at >= self._warm:
                        self.outcome.ttft.append(self.now - request.at)
            for work in step.done:
                self._complete(self._requests.pop(work))
            self._step(server)

        self._later(step.seconds, after)

    def _complete(self, request: Request) -> None:
        self.outcome.done += self.now >= self._warm
        self.policy.done(request)
        talk, number = request.talk, request.turn
        self._seen.update(request.work.after)
        if number + 1 < len(talk.turns):
            answer = _text(CHARACTERS * talk.turns[number].output, (talk.seed, number, "answers"))
            text, blocks = request.text + answer, request.work.after
            self._later(talk.turns[number].pause, lambda: self._ask(talk, number + 1, text, blocks))


_TURNS = {"chats": 4.5, "agents": 15.0, "mixed": 5.55, "unique": 1.0}
"""Mean turns of a conversation."""


def capacity(policy: str, workload: str, count: int, weights: Mapping[str, float], seconds: float = 120) -> float:
    """Requests per second of a pool that has more to do than it can: the most of three floods."""
    best, rate = 0.0, 4.0 * count
    for _ in range(3):
        reached = Simulation(policy, workload, count, weights).run(rate / _TURNS[workload], seconds)
        best = max(best, reached.rate)
        if reached.rate < 0.85 * rate:
            break
        rate *= 2
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[8])
    parser.add_argument("--load", type=float, nargs="+", default=[0.8])
    parser.add_argument("--workloads", nargs="+", default=[*WORKLOADS], choices=[*WORKLOADS])
    parser.add_argument("--of", default="gateway", choices=["gateway", "round-robin"])
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--scorers", nargs="*", default=[], metavar="NAME=WEIGHT")
    options = parser.parse_args()
    weights = {name: float(weight) for name, _, weight in (each.partition("=") for each in options.scorers)}
    for count, workload in itertools.product(options.endpoints, options.workloads):
        most = capacity(options.of.replace("-", " "), workload, count, weights)
        for load in options.load:
            print(f"\n{workload}, {count} endpoints, {load:.0%} of {most:.1f} requests a second")
            heads = ("TTFT p50", "p99, ms", "hits", "of one", "requests/s", "busy", "requests")
            print(f"{'':15}" + "{:>9} {:>9} {:>8} {:>8} {:>9} {:>7} {:>8}".format(*heads))
            for policy in POLICIES:
                _ANY.seed(1)
                outcome = Simulation(policy, workload, count, weights).run(
                    load * most / _TURNS[workload], options.seconds
                )
                print(f"{policy:15}{outcome.row()}", flush=True)


if __name__ == "__main__":
    main()

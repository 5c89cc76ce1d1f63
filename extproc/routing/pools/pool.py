"""A provider's pool in one process: its endpoints, the choice among them, the requests that wait for room."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from extproc.routing.pools.endpoint import Endpoint, Full, Report
from extproc.routing.pools.picker import Choice, Facts, Picker
from extproc.routing.pools.prefixes import BLOCK, PrefixIndex
from extproc.routing.pools.queue import Queue
from extproc.upstream.providers import ProviderSettings
from extproc.upstream.providers._pool import PoolSettings
from extproc.words.dialect import CHARACTERS_PER_TOKEN
from extproc.words.exchange import FeatureKey
from extproc.words.tries import Try
from extproc.words.values import Pattern

_MOST_SESSIONS = 10_000
_MOST_UNDER_WAY = 20_000  # exchanges whose failed tries still move their count to the next endpoint
_TOKENS = BLOCK / CHARACTERS_PER_TOKEN  # of one block


class Pool:
    """The pool of the provider `name`. `clock` is monotonic, in seconds."""

    def __init__(self, name: str, provider: ProviderSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.clock = clock
        self.known = False  # True: its source has named its endpoints
        self.endpoints: dict[str, Endpoint] = {}
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._under_way: OrderedDict[str, Placed] = OrderedDict()
        self._granted = 0  # requests that were woken and have not chosen yet
        self.queue = Queue(0)
        self._index = PrefixIndex()
        self.apply(provider)

    def apply(self, provider: ProviderSettings) -> None:
        """Use these settings from the next request on. Endpoints and what is known of them stay."""
        pool = provider.pool
        assert pool is not None, "the provider has a pool"
        saturated = pool.saturated
        full = Full(saturated.waiting, saturated.kv_cache, saturated.requests or float("inf"))
        self.picker = Picker(pool.weights, full, self._index)
        self.settings: PoolSettings = pool
        self.metrics = pool.metrics_of(provider.kind)
        self._priorities = [(Pattern(pattern), priority) for pattern, priority in pool.priority.items()]
        self._index.ttl = pool.prefix_ttl
        self.queue.most = pool.max_queue

    # --- endpoints

    def update(self, found: Mapping[str, str]) -> tuple[Sequence[Endpoint], Sequence[Endpoint]]:
        """Take the addresses that its source names now, with the pods' names. Returns the endpoints that joined and
        those that left; an endpoint that left gets no new request.
        """
        self.known = True
        joined = [Endpoint(address, name) for address, name in found.items() if address not in self.endpoints]
        left = [self.endpoints.pop(address) for address in [*self.endpoints] if address not in found]
        for endpoint in left:
            endpoint.leaving = True
        self.endpoints |= {endpoint.address: endpoint for endpoint in joined}
        self.serve()
        return joined, left

    def report(self, endpoint: Endpoint, report: Report | None) -> None:
        """Take an endpoint's metrics; None: they could not be read."""
        if report is None:
            endpoint.silent(self.clock())
        else:
            endpoint.reports(report, self.clock())
        self.serve()

    def learn(self, try_: Try) -> None:
        """Take Envoy's report of a try. When it failed, the exchange counts at its next endpoint."""
        placed = self._under_way.get(try_.exchange_id)
        address = try_.endpoint or (placed.address(self.name, try_.attempt) if placed is not None else "")
        endpoint = self.endpoints.get(address)
        failed = try_.at_fault or try_.outcome in ("connect", "unhealthy")
        if endpoint is not None:
            if failed:
                endpoint.failed(self.clock(), connected=try_.outcome != "connect")
            elif try_.first_byte is not None:
                endpoint.answered()
        if failed and placed is not None:
            placed.move(self, try_.attempt)
        self.serve()

    # --- requests

    def priority(self, consumer: str, team: str) -> int:
        """Priority of a consumer's requests."""
        for matches, priority in self._priorities:
            if matches(consumer) or (team and matches(f"team/{team}")):
                return priority
        return 0

    def choose(self, facts: Facts, count: int) -> Sequence[Choice]:
        """See `Picker.choose`."""
        return self.picker.choose([*self.endpoints.values()], facts, count)

    def session(self, consumer: str, session: str) -> str:
        """Address of the endpoint that served a consumer's session last; empty without one."""
        return self._sessions.get((consumer, session), "") if session else ""

    def stick(self, consumer: str, session: str, address: str) -> None:
        """Note the endpoint that serves a session."""
        if session:
            self._sessions.pop((consumer, session), None)
            self._sessions[consumer, session] = address
            while len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)

    def begin(self, endpoint: Endpoint, facts: Facts) -> None:
        """Count a request at an endpoint, and expect its prompt in the endpoint's cache from now on."""
        blocks, at = facts.held.get(endpoint.address, (0, 0.0))
        endpoint.began(blocks * _TOKENS if at > endpoint.cold_since else 0.0)
        if facts.blocks:
            self._index.note(facts.blocks, endpoint.address, facts.now)

    def follow(self, id: str, placed: Placed) -> None:
        """Let failed tries of the exchange move its count."""
        self._under_way[id] = placed
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._under_way.popitem(last=False)

    def end(self, id: str, endpoint: Endpoint) -> None:
        """Count a request at an endpoint no longer."""
        self._under_way.pop(id, None)
        endpoint.ended()
        self.serve()

    # --- waiting

    @property
    def rooms(self) -> int:
        """Endpoints that have room."""
        now, full = self.clock(), self.picker.full
        return sum([each.ready(now) and not each.full(full) for each in self.endpoints.values()])

    def states(self) -> Mapping[str, int]:
        """Endpoints by state, for people. Safe to call from another thread."""
        now, full = self.clock(), self.picker.full
        found = {"ready": 0, "full": 0, "resting": 0}
        for each in [*self.endpoints.values()]:
            found["resting" if not each.ready(now) else "full" if each.full(full) else "ready"] += 1
        return found

    def serve(self) -> None:
        """Wake waiting requests, one for each endpoint with room."""
        if len(self.queue):
            for _ in range(self.rooms - self._granted):
                if not self.queue.serve():
                    break
                self._granted += 1

    def took_turn(self) -> None:
        """Note that a woken request chooses now, or has left."""
        self._granted -= 1


@dataclass(slots=True)
class Placed:
    """The endpoints of one exchange's tries, by provider, and the endpoint at which it counts."""

    id: str
    choices: dict[str, Sequence[Choice]] = field(default_factory=dict)
    waited: float = 0.0  # seconds in the queue
    served: str = ""  # address of the endpoint that answered, from Envoy
    tell: bool = False  # True: the client is told the endpoint
    _providers: Sequence[str] = ()  # of the tries, in order
    _current: tuple[Pool, Endpoint] | None = None

    def begin(self, pool: Pool, facts: Facts) -> None:
        """Count the exchange at the first endpoint of a pool."""
        if chosen := self.choices.get(pool.name):
            self._current = pool, chosen[0].endpoint
            pool.begin(chosen[0].endpoint, facts)
            pool.follow(self.id, self)

    def header(self, providers: Iterable[str]) -> str:
        """Value of `contract.ENDPOINTS`, for the providers of the tries in order: a second try at a pool gets its
        second endpoint.
        """
        self._providers = tuple(providers)
        return ",".join([self.address(name, number) for number, name in enumerate(self._providers, 1)])

    def address(self, provider: str, attempt: int) -> str:
        """Address of the endpoint of a try, counted from 1; empty where Envoy chooses."""
        before = self._providers[: attempt - 1].count(provider)
        chosen = self.choices.get(provider, ())
        return chosen[before % len(chosen)].endpoint.address if chosen else ""

    def move(self, pool: Pool, attempt: int) -> None:
        """Count at the endpoint of the next try, after that of `attempt` failed."""
        if self._current is None or attempt >= len(self._providers) or self._providers[attempt] != pool.name:
            return
        endpoint = pool.endpoints.get(self.address(pool.name, attempt + 1))
        if endpoint is not None and endpoint is not self._current[1]:
            self._current[1].ended()
            self._current = pool, endpoint
            endpoint.began()

    def free(self) -> Endpoint | None:
        """Count at no endpoint any more. Returns the endpoint at which it counted last, at the first call."""
        if self._current is None:
            return None
        (pool, endpoint), self._current = self._current, None
        pool.end(self.id, endpoint)
        return endpoint


PLACED: FeatureKey[Placed] = FeatureKey("placed")
"""Key of the endpoints of an exchange. Absent where no target has a pool."""

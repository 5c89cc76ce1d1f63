"""Random histories of every store against a simple model that keeps everything and adds it up again."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from extproc.stores import CORRECTED, LATE_SETTLE, Denied, Expired, Granted, Hold, Level, Parked
from tests.samples import examples

LIMITS = {("a", 60): 10, ("b", 60): 6, ("b", 3600): 12, ("c", 0): 9, ("c", -1): 25, ("slots", 0): 3}
LIMITS |= {("run:x=1", 0): 8, ("run:x=2", 0): 8, ("run", 0): 20, ("runs:x=1", 0): 8}
IDLE = 60.0  # seconds after which the counts of runs are forgotten
LEASES = (5.0, 20.0, 90.0)
BOARDS = ("one", "two")
AUTHORS = ("x", "y", "z")
MONTH_END = 1_701_388_800  # 2023-12-01: every history begins minutes before it


@dataclass
class Request:
    holds: list[Hold]
    windows: list[int]  # the index of the window of each hold
    deadline: float
    state: str = "reserved"  # forwarded, parked, released, charged, settled
    charges: list[int] = field(default_factory=list)  # corrections that the counts still accept
    charges_as_settled: tuple[int, ...] = ()
    forwarded: bool = False
    kept: bool = False
    late: bool = False  # forwarded after its lease had ended: to be reported once more
    due: float = 0.0  # of a parked one

    @property
    def live(self):
        return self.state in ("reserved", "forwarded", "parked")


class Model:
    def __init__(self):
        self.requests: dict[str, Request] = {}
        self.voided: set[str] = set()  # before their `reserve` arrived
        self.notes: dict[tuple[str, str], tuple[float, bytes]] = {}  # by board and author: expiry, note
        self.idle: dict[str, float] = {}  # by scope: earliest time it may be forgotten

    def touch(self, now, holds, least=0.0):
        for hold in holds:
            if not hold.window and hold.idle:
                self.idle[hold.scope] = max(self.idle.get(hold.scope, 0.0), now + max(hold.idle, least))
            elif not hold.window:
                self.idle.pop(hold.scope, None)

    def forget_idle(self, now):
        for scope, at in list(self.idle.items()):
            if at <= now and self.level(scope, 0, 0)[1] == 0:
                del self.idle[scope]
                for request in self.requests.values():
                    for index, hold in enumerate(request.holds):
                        if (hold.scope, hold.window) == (scope, 0) and not request.live:
                            assert request.state != "charged", "forgotten, and may still be corrected"
                            request.charges[index] = 0

    def fullest(self, now, prefix, window, limit):
        found = []
        for scope in {scope for scope, of in LIMITS if of == window and f"{scope}:".startswith(f"{prefix}:")}:
            level = self.current(now, scope, window)
            if level.settled + level.reserved:
                found.append((scope, level))
        return sorted(found, key=lambda pair: (-pair[1].settled - pair[1].reserved, pair[0]))[:limit]

    def number(self, now, window):
        if window == -1:
            return int(now >= MONTH_END)
        return int(now // window) if window else 0

    def ends(self, now, window):
        if window == -1:
            return (MONTH_END if now < MONTH_END else MONTH_END + 31 * 86400) - now
        return (int(now // window) + 1) * window - now if window else None

    def level(self, scope, window, number):
        settled = reserved = 0
        for request in self.requests.values():
            for index, (hold, at) in enumerate(zip(request.holds, request.windows, strict=True)):
                if (hold.scope, hold.window, at) == (scope, window, number):
                    if request.live:
                        reserved += hold.amount
                    else:
                        settled += request.charges[index]
        return settled, reserved

    def current(self, now, scope, window):
        return Level(*self.level(scope, window, self.number(now, window)), self.ends(now, window))

    def reserve(self, now, id, holds, lease):
        mine = {}
        for index, hold in enumerate(holds):
            level = self.current(now, hold.scope, hold.window)
            before = mine.get((hold.scope, hold.window), 0)
            room = hold.limit - level.settled - level.reserved - before
            if hold.amount > room:
                return Denied(index, max(room, 0), level.resets_in)
            mine[hold.scope, hold.window] = before + hold.amount
        self.requests[id] = Request(holds, [self.number(now, hold.window) for hold in holds], now + lease)
        self.touch(now, holds)
        return Granted(tuple(self.current(now, hold.scope, hold.window) for hold in holds))

    def extend(self, now, id, more):
        request = self.requests.get(id)
        if request is None or not request.live or request.state == "parked":
            return None

        def level(index):
            hold, number = request.holds[index], request.windows[index]
            ends = self.end(hold.window, number)
            return Level(*self.level(hold.scope, hold.window, number), None if ends is None else max(0.0, ends - now))

        mine = {}
        for index, hold in enumerate(more):
            found = level(index)
            before = mine.get((hold.scope, hold.window), 0)
            room = hold.limit - found.settled - found.reserved - before
            if hold.amount and hold.amount > room:
                return Denied(index, max(room, 0), found.resets_in)
            mine[hold.scope, hold.window] = before + hold.amount
        request.holds = [
            replace(new, amount=old.amount + new.amount) for old, new in zip(request.holds, more, strict=True)
        ]
        self.touch(now, more)
        return Granted(tuple(level(index) for index in range(len(more))))

    def end(self, window, number):
        if window == -1:
            return MONTH_END + 31 * 86400 * number
        return (number + 1) * window if window else None

    def forward(self, now, ids):
        for id in ids:
            request = self.requests.get(id)
            if request is not None and request.live and request.state != "parked":
                request.state, request.forwarded = "forwarded", True
            elif request is not None and request.state == "released":
                request.state, request.forwarded, request.late = "charged", True, True
                request.deadline = now
                request.charges = [0 if hold.slot else hold.amount for hold in request.holds]
                self.touch(now, request.holds, LATE_SETTLE)

    def renew(self, now, ids, lease):
        for id in ids:
            if id in self.requests and self.requests[id].state in ("reserved", "forwarded"):
                self.requests[id].deadline = now + lease

    def void(self, now, ids):
        for id in ids:
            request = self.requests.get(id)
            if request is None:
                self.voided.add(id)
            elif request.state == "reserved":
                request.state, request.charges = "void", [0] * len(request.holds)
                self.touch(now, request.holds)

    def park(self, now, id, lease, again):
        request = self.requests.get(id)
        if request is None or not request.live:
            return False
        self.touch(now, [hold for hold in request.holds if hold.slot])
        request.holds = [replace(hold, amount=0) if hold.slot else hold for hold in request.holds]
        request.state, request.forwarded, request.deadline, request.due = "parked", True, now + lease, now + again
        return True

    def parked(self, now, again):
        due = {id: one for id, one in self.requests.items() if one.state == "parked" and one.due <= now}
        for request in due.values():
            request.due = now + again
        holds = {id: zip(*[(hold.scope, hold.amount) for hold in one.holds], strict=True) for id, one in due.items()}
        return {id: Parked(id, *(tuple(found) or ((), ())), b"") for id, found in holds.items()}

    def settle(self, now, id, amounts, keep):
        request = self.requests.get(id)
        if request is None or request.state == "settled":
            return False
        if keep and request.state not in ("reserved", "forwarded"):
            request.deadline = now + CORRECTED
        request.kept = keep
        request.state = "settled"
        self.touch(now, request.holds)
        request.charges = [0 if hold.slot else amount for hold, amount in zip(request.holds, amounts, strict=True)]
        request.charges_as_settled = tuple(request.charges)
        return True

    def share(self, now, board, author, note, ttl):
        self.forget_notes(now)
        self.notes[board, author] = now + ttl, note
        return [kept for other in AUTHORS if other != author and (kept := self.notes.get((board, other), (0, b""))[1])]

    def forget_notes(self, now):
        self.notes = {key: (runs_out, note) for key, (runs_out, note) in self.notes.items() if runs_out > now}

    def expire(self, now):
        self.forget_notes(now)
        ended = []
        for id, request in self.requests.items():
            scopes = tuple(hold.scope for hold in request.holds)
            if request.late and request.state == "charged" and request.deadline <= now:
                request.late = False
                ended.append(Expired(id, True, scopes, tuple(request.charges)))
            elif request.live and request.deadline <= now:
                forwarded = request.forwarded
                request.state = "charged" if forwarded else "released"
                request.charges = [hold.amount if forwarded and not hold.slot else 0 for hold in request.holds]
                self.touch(now, request.holds, LATE_SETTLE)
                ended.append(Expired(id, forwarded, scopes, tuple(request.charges)))
            elif request.kept and request.deadline <= now:
                request.kept = False
                ended.append(Expired(id, request.forwarded, scopes, request.charges_as_settled, settled=True))
        self.forget_idle(now)
        return ended

    def recorded(self, ids):
        for id in ids:
            if id in self.requests:
                self.requests[id].kept = False


class History(RuleBasedStateMachine):
    name: str
    parent: Path
    open_store: Callable

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(dir=self.parent))
        self.now = self.latest = MONTH_END - 300.0
        self.model = Model()
        self.overdrawn = set()  # counts that used more than they reserved: their limit is not guaranteed any more
        # Workers that share a store must behave as one.
        count = 1 if self.name == "memory" else 2
        self.workers = [self.runner.run(self.open()) for _ in range(count)]
        self.turn = 0
        self.reported = []  # ids that were settled and never recorded

    async def open(self):
        return self.open_store(self.directory, lambda: self.now)

    def call(self, method, *args, **options):
        self.turn += 1
        return self.runner.run(getattr(self.workers[self.turn % len(self.workers)], method)(*args, **options))

    @initialize(offset=st.sampled_from([0.0, 0.25, 59.5, 280.0]))
    def start(self, offset):
        self.now += offset
        self.latest = self.now

    @rule(
        wanted=st.lists(st.tuples(st.sampled_from(sorted(LIMITS)), st.integers(0, 7)), max_size=4),
        lease=st.sampled_from(LEASES),
        lower=st.sampled_from([0, 0, 0, 3]),
        idle=st.sampled_from([IDLE, IDLE, IDLE, 0.0]),
    )
    def reserve(self, wanted, lease, lower, idle):
        holds = [
            Hold(
                scope,
                window,
                LIMITS[scope, window] - lower,
                amount,
                slot=scope == "slots",
                idle=idle * ("run" in scope),
            )
            for (scope, window), amount in wanted
        ]
        id = f"r{len(self.model.requests)}-{self.turn}"
        expected = self.model.reserve(self.now, id, holds, lease)
        assert self.call("reserve", id, holds, lease) == expected

    def some(self, data, states):
        ids = [id for id, request in self.model.requests.items() if request.state in states]
        return data.draw(st.sampled_from([*ids, "unknown"]))

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def forward(self, data):
        ids = data.draw(st.lists(st.sampled_from([*self.forwardable(), "unknown"]), max_size=3))
        for request in (self.model.requests[id] for id in ids if id != "unknown"):
            if request.state == "released":  # others may have its room by now, and it is charged nevertheless
                places = zip(request.holds, request.windows, strict=True)
                self.overdrawn.update((hold.scope, hold.window, number) for hold, number in places)
        self.call("forward", ids)
        self.model.forward(self.now, ids)

    def forwardable(self):
        """A process forwards nothing that it voids."""
        return [id for id, request in self.model.requests.items() if request.state != "void"]

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), lease=st.sampled_from(LEASES))
    def renew(self, data, lease):
        ids = data.draw(st.lists(st.sampled_from([*self.model.requests, "unknown"]), max_size=3))
        self.call("renew", ids, lease)
        self.model.renew(self.now, ids, lease)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def void(self, data):
        # A process settles nothing that it voids, and the store may have forgotten what was settled.
        known = [
            id for id, request in self.model.requests.items() if not request.forwarded and request.state != "settled"
        ]
        ids = data.draw(st.lists(st.sampled_from([*known, f"lost{self.turn}"]), max_size=3))
        self.call("void", ids)
        self.model.void(self.now, ids)

    @precondition(lambda self: self.model.voided)
    @rule(data=st.data(), amount=st.integers(0, 7))
    def reserve_after_its_void(self, data, amount):
        id = data.draw(st.sampled_from(sorted(self.model.voided)))
        try:
            outcome = self.call("reserve", id, [Hold("a", 60, 10, amount)], LEASES[0])
        except ValueError as error:
            assert id in str(error)  # noqa: PT017 - a store may find first that there is no room
        else:
            assert isinstance(outcome, Denied)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), lower=st.sampled_from([0, 0, 3]))
    def extend(self, data, lower):
        id = self.some(data, ("reserved", "forwarded"))
        holds = self.model.requests[id].holds if id in self.model.requests else []
        more = [replace(hold, limit=max(hold.limit - lower, 0), amount=data.draw(st.integers(0, 3))) for hold in holds]
        assert self.call("extend", id, more) == self.model.extend(self.now, id, more)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def extend_too_late(self, data):
        id = self.some(data, ("released", "charged", "settled", "void"))
        holds = self.model.requests[id].holds if id in self.model.requests else []
        assert self.call("extend", id, holds) is None

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), lease=st.sampled_from(LEASES), again=st.sampled_from([1.0, 30.0]))
    def park(self, data, lease, again):
        id = data.draw(st.sampled_from([*self.forwardable(), "unknown"]))
        expected = self.model.park(self.now, id, lease, again)
        assert self.call("park", id, b"", lease=lease, again=again) == expected

    @rule(again=st.sampled_from([1.0, 30.0]))
    def parked(self, again):
        given = self.call("parked", again=again, most=1000)
        assert {one.id: one for one in given} == self.model.parked(self.now, again)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), more=st.booleans(), keep=st.booleans())
    def settle(self, data, more, keep):
        id = self.some(data, ("reserved", "forwarded", "parked", "released", "charged"))
        request = self.model.requests.get(id)
        holds = request.holds if request else []
        held = [hold.amount for hold in holds]
        if request and request.state == "released":
            held = [0] * len(holds)
        amounts = [data.draw(st.integers(0, amount + (5 if more else 0))) for amount in held]
        for index, (hold, amount) in enumerate(zip(holds, amounts, strict=True)):
            if amount > held[index]:
                self.overdrawn.add((hold.scope, hold.window, request.windows[index]))
        assert self.call("settle", id, amounts, keep=keep) == self.model.settle(self.now, id, amounts, keep)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), amount=st.integers(0, 20), keep=st.booleans())
    def settle_again(self, data, amount, keep):
        id = self.some(data, ("settled",))
        holds = self.model.requests[id].holds if id in self.model.requests else []
        assert self.call("settle", id, [amount] * len(holds), keep=keep) is False

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def recorded(self, data):
        """Report any ids as recorded. It must not forget a reservation that is live or correctable."""
        ids = data.draw(st.lists(st.sampled_from([*self.model.requests, "unknown"]), max_size=4))
        self.call("recorded", ids)
        self.model.recorded(ids)

    @rule()
    def expire(self):
        expected = self.model.expire(self.now)
        ended = self.call("expire")
        assert sorted(ended, key=lambda expired: expired.id) == sorted(expected, key=lambda e: e.id)
        assert self.call("expire") == []
        self.reported += [expired.id for expired in ended if expired.settled]
        assert len(set(self.reported)) == len(self.reported)

    @rule(prefix=st.sampled_from(["run", "run:x=1", "b", "c", "ru"]), window=st.sampled_from([0, 60]))
    def fullest(self, prefix, window):
        for limit in (100, 1):
            expected = self.model.fullest(self.now, prefix, window, limit)
            assert list(self.call("fullest", prefix, window, limit)) == expected

    @rule(
        board=st.sampled_from(BOARDS),
        author=st.sampled_from(AUTHORS),
        note=st.binary(max_size=4),
        ttl=st.sampled_from(LEASES),
    )
    def share(self, board, author, note, ttl):
        expected = self.model.share(self.now, board, author, note, ttl)
        assert list(self.call("share", board, author, note, ttl)) == expected

    # Forty steps of a minute stay within LATE_SETTLE, after which a store may forget.
    @rule(seconds=st.sampled_from([0.5, 1.0, 7.0, 30.0, 61.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.latest = max(self.latest, self.now)

    @rule(seconds=st.sampled_from([1.0, 10.0, 45.0]))
    def clock_steps_back(self, seconds):
        """Step back by less than the shortest window. The stores keep only the last window that ended."""
        self.now = max(self.now - seconds, self.latest - 59)

    @invariant()
    def every_scope_reads_as_the_model_says(self):
        now = self.now
        levels = self.call("levels", sorted(LIMITS))
        for (scope, window), level in zip(sorted(LIMITS), levels, strict=True):
            assert level == self.model.current(now, scope, window)
            assert level.settled >= 0
            assert level.reserved >= 0
            if (scope, window, self.model.number(now, window)) not in self.overdrawn:
                assert level.settled + level.reserved <= LIMITS[scope, window]

    def teardown(self):
        try:
            self.now = self.latest + max(LEASES)
            self.expire()
            for level in self.call("levels", sorted(LIMITS)):
                assert level.reserved == 0
            assert not any(request.kept for request in self.model.requests.values())
            if self.name == "sqlite":
                rows = self.workers[0]._db.execute("SELECT total(reserved), min(settled) FROM counts").fetchone()
                assert rows[0] == 0
                assert (rows[1] or 0) >= 0
                assert self.workers[0]._db.execute("SELECT count(*) FROM notes").fetchone() == (0,)
        finally:
            for worker in self.workers:
                self.runner.run(worker.close())
            self.runner.close()
            shutil.rmtree(self.directory)


@pytest.mark.hypothesis
def test_random_histories_match_the_model(store, stores, tmp_path):
    machine = type(
        "History", (History,), {"name": store, "parent": tmp_path, "open_store": staticmethod(stores[store])}
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(200 if store == "memory" else 100),
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

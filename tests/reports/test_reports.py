"""Reports for operators, and their grants."""

import asyncio
import contextlib
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from extproc.money.accounting.forgotten import BOARD, Forgotten
from extproc.money.budgets import BudgetSettings, Grants, Leases, Reserve, ReserveTools
from extproc.money.ledger import LedgerError, Row, open_ledger
from extproc.operate.admin.api import admin_app
from extproc.operate.reports.reports import MOST_SCOPES, AdminReports, OwnMemory, Reporter
from extproc.routing.history import History
from extproc.stores import Hold, StoreError
from extproc.stores.memory import MemoryCounters
from extproc.words.errors import Refusal

NOW = 1_700_000_040.0
MONTH = {"unit": "usd", "limit": "500", "window": "month", "per": ["consumer", "label.run"], "on_exceed": "ask"}
BUDGETS = [
    BudgetSettings(name="month", **MONTH),
    BudgetSettings(name="rpm", unit="requests", limit=60, window="minute", mode="shadow"),
    BudgetSettings(name="forever", unit="tokens", limit=1000, window="total"),
    BudgetSettings(name="slots", unit="concurrency", limit=2),
    BudgetSettings(name="call", unit="tokens", limit=10, window="call"),
]
JSON = {"content-type": "application/json"}
SCOPE = "month:consumer=a:label.run=1"


class Store(MemoryCounters):
    down = False

    async def fullest(self, prefix, window, limit=100):
        self.check()
        return await super().fullest(prefix, window, limit)

    async def share(self, board, author, note, ttl):
        self.check()
        return await super().share(board, author, note, ttl)

    def check(self):
        if self.down:
            raise StoreError("redis://user:secret@host")


LEFT_OUT = {"kind": "tools", "name": "", "reason": "it is no definition with a name"}


def servers(*, definitions):
    """An MCP server with a tool, as `mcp.report` describes it."""
    tool = {
        "name": "add",
        "kind": "tools",
        "state": "changed",
        "reason": "",
        "app": False,
        "digest": "0" * 64,
        "pinned": None,
    }
    tool |= {"definition": {"name": "add"}} if definitions else {}
    return [{"name": "github", "error": "", "read_at": 1.5, "tools": [tool], "others": [], "left_out": [LEFT_OUT]}]


class World:
    """A processor's loop on a thread of its own, as the admin API sees it."""

    def __init__(self, clock):
        history = self.history = History(clock)
        history.cool("a/m", 12)
        self.clock, self.counters, self.ledger = clock, Store(clock), open_ledger("memory:")
        self.ledger.writer.start()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.grants = Grants(self.counters, clock)
        self.reporter = Reporter(self.counters, self.ledger, self.grants, clock)
        self.budgets, self.entries = BUDGETS, []
        deployments, budgets = history.deployments, lambda: self.budgets
        self.dropped = []
        self.everything = AdminReports(
            *(self.reporter, budgets, OwnMemory(lambda: list(self.entries), deployments, list, list), self.loop),
            tools=lambda texts: servers(definitions=texts),
            forgotten=Forgotten(self.counters, self.dropped.append),
        )
        self.http = TestClient(admin_app(self.everything, None), base_url="http://localhost")

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def hold(self, id, scope, window, amount, settle=None):
        assert self.run(self.counters.reserve(id, [Hold(scope, window, 10**12, amount)], 60))
        if settle is not None:
            assert self.run(self.counters.settle(id, [settle]))

    def grant(self, **fields):
        return self.http.post("/grants", json={"budget": "month", "scope": SCOPE, "amount": "1", **fields})

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.ledger.writer.stop()
        self.ledger.close()


@pytest.fixture(scope="module")
def shared(clocks):
    here = World(clocks())
    yield here
    here.close()


@pytest.fixture
def world(clocks):
    here = World(clocks())
    yield here
    here.close()


# --- budgets


def test_budgets_are_reported_with_their_counts(world):
    world.hold("1", SCOPE, -1, 2_000_000_000, settle=1_500_000_000)
    world.hold("2", SCOPE, -1, 200_000_000)
    world.hold("3", "forever", 0, 1000, settle=1000)
    found = {entry["name"]: entry for entry in world.http.get("/budgets").json()["data"]}
    assert list(found) == ["month", "rpm", "forever", "slots"], "a call counts nothing"
    month = found["month"]
    assert {name: month[name] for name in ("unit", "window", "limit", "mode", "resets_at")} == {
        "unit": "usd",
        "window": "month",
        "limit": "500",
        "mode": "enforce",
        "resets_at": "2023-12-01T00:00:00Z",
    }
    assert month["scopes"] == [
        {
            "scope": SCOPE,
            "fields": {"consumer": "a", "label.run": "1"},
            "settled": "1.5",
            "reserved": "0.2",
            "granted": "0",
            "remaining": "498.3",
            "used": 0.0034,
        }
    ]
    assert (found["forever"]["resets_at"], found["forever"]["scopes"][0]["remaining"]) == (None, "0")
    assert (found["rpm"]["mode"], found["rpm"]["scopes"], found["slots"]["window"]) == ("shadow", [], None)


def test_of_many_counts_the_fullest_are_reported(world):
    for number in range(MOST_SCOPES + 20):
        world.hold(f"{number}", f"month:consumer=c{number}:label.run=", -1, number + 1)
    scopes = world.http.get("/budgets/month").json()["data"][0]["scopes"]
    assert len(scopes) == MOST_SCOPES
    assert scopes[0]["fields"] == {"consumer": f"c{MOST_SCOPES + 19}", "label.run": ""}


# --- grants


def test_a_grant_raises_the_limit_until_it_is_revoked(world):
    world.hold("1", SCOPE, -1, 500_000_000_000, settle=500_000_000_000)
    given_ = world.grant(amount="12.5")
    assert given_.status_code == 201
    body = given_.json()
    assert body == {
        "id": body["id"],
        "budget": "month",
        "scope": SCOPE,
        "amount": "12.5",
        "expires_at": "2023-12-01T00:00:00Z",
    }
    assert world.http.get("/grants").json()["data"] == [body]
    [scope] = world.http.get("/budgets/month").json()["data"][0]["scopes"]
    assert (scope["granted"], scope["remaining"], scope["used"]) == ("12.5", "12.5", round(500 / 512.5, 4))
    assert world.http.delete(f"/grants/{body['id']}").status_code == 204
    assert world.http.delete(f"/grants/{body['id']}").status_code == 404
    assert world.http.get("/grants").json()["data"] == []
    assert world.http.get("/budgets/month").json()["data"][0]["scopes"][0]["remaining"] == "0"


def test_grants_of_one_moment_do_not_add_up_beyond_a_bound(world):
    """Forty processes that grant at once do not know of each other: the bound holds where the grants are used."""
    world.hold("1", SCOPE, -1, 1, settle=1)
    others = [Grants(world.counters, lambda: NOW) for _ in range(40)]
    for other in others:
        other.refresh = world.grants.refresh  # it reads the board before the others have written
        world.run(other.add("month", SCOPE, 500 * 10**9, "usd", None))
    world.run(world.grants.refresh())
    [scope] = world.http.get("/budgets/month").json()["data"][0]["scopes"]
    assert scope["granted"] == "5000", "ten times the limit, as max_granted says"


def test_a_grant_beyond_the_most_is_refused(world):
    assert [world.grant(amount="500").status_code for _ in range(11)] == [201] * 10 + [400]


@pytest.mark.parametrize("now", [{**MONTH, "unit": "tokens"}, None])
def test_a_grant_does_not_apply_to_a_budget_of_another_unit(world, now):
    """Five USD are five thousand million nano-USD, which must not become so many tokens."""
    world.hold("1", SCOPE, -1, 1)
    given = world.grant(amount="5").json()
    world.budgets = [] if now is None else [BudgetSettings(name="month", **now)]
    assert world.http.get("/grants").json()["data"] == []
    assert world.grants.room(SCOPE, "tokens") == 0
    if now is not None:
        [scope] = world.http.get("/budgets/month").json()["data"][0]["scopes"]
        assert (scope["granted"], scope["remaining"]) == ("0", "499")
    assert world.http.delete(f"/grants/{given['id']}").status_code == 204


def test_a_grant_ends_with_its_window_or_earlier(world):
    for seconds, ends in ((60, NOW + 60), (366 * 86400, 1_701_388_800)):
        assert world.grant(expires_in=seconds).status_code == 201
        assert max(grant.expires for grant in world.grants.all()) == ends
    world.clock.now = 1_701_388_800 - 1
    assert world.grants.room(SCOPE, "usd") == 10**9
    world.clock.now += 1
    assert world.grants.room(SCOPE, "usd") == 0, "at once, although nobody has read the board since"


@pytest.mark.parametrize(
    "fields",
    [
        {"budget": "nope"},
        {"budget": "call", "scope": "call"},
        {"budget": "slots", "scope": "slots"},
        {"scope": "month"},
        {"scope": "rpm"},
        {"scope": "month:consumer=a"},
        {"scope": "month:label.run=1:consumer=a"},
        {"scope": "month:consumer=a:label.run=1:x=2"},
        {"scope": "month:consumer=a:consumer=b:label.run=1"},
        {"scope": "month:consumer=%61:label.run=1"},
        {"scope": "month:consumer=a%2fb:label.run=1"},
        {"scope": "month:consumer=*:label.run=1"},
        {"scope": "month:consumer=a:label.run=1:"},
        {"scope": "month:consumer=a:label.run=1\n"},
        {"scope": ""},
        {"scope": "m" * 3000},
        {"scope": ["month"]},
        *(
            {"amount": amount}
            for amount in ("0", "-1", "0.0000000001", "1e3", "501", "NaN", "Infinity", "", " 1", "01")
        ),
        *({"amount": amount} for amount in (1, None, True, "9" * 400, "１", "500.000000001")),
        *({"expires_in": seconds} for seconds in (0, -1, "60", 1e300, 367 * 86400)),
        {"id": "mine"},
    ],
)
def test_a_grant_without_a_meaning_is_refused(shared, fields):
    answer = shared.grant(**fields)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "code"}
    assert shared.http.get("/grants").json()["data"] == []


@pytest.mark.parametrize(
    "scope", [SCOPE, "month:consumer=*:label.run=*", "month:consumer=a:label.run=*", "month:consumer=a/b:label.run="]
)
def test_every_count_that_a_request_can_have_can_get_a_grant(shared, scope):
    answer = shared.grant(scope=scope)
    assert answer.status_code == 201
    assert shared.http.delete(f"/grants/{answer.json()['id']}").status_code == 204


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"[" * 10_000, b"\xff", b'{"budget": "month"}', b"{}" + b" " * 70_000]
)
def test_an_invalid_body_is_refused(shared, body):
    assert shared.http.post("/grants", content=body, headers=JSON).status_code in (400, 413)


@given(
    st.dictionaries(
        st.sampled_from(["budget", "scope", "amount", "expires_in"]),
        st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.sampled_from(["month", SCOPE, "1"])),
    )
)
def test_no_body_causes_an_internal_error(shared, body):
    answer = shared.http.post("/grants", content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code in (201, 400)
    if answer.status_code == 201:
        shared.http.delete(f"/grants/{answer.json()['id']}")


async def test_a_grant_lets_requests_of_one_count_pass(clocks, exchange):
    clock = clocks()
    counters = MemoryCounters(clock)
    grants = Grants(counters, clock)
    settings = [BudgetSettings(name="b", unit="requests", limit=1, window="day", per=["consumer"], on_exceed="ask")]
    reserve = Reserve(
        settings, counters, Leases(counters), 16, lambda *_: None, tools=ReserveTools(grants=grants), now=clock
    )

    async def ask(id):
        sent = exchange()
        sent.id = id
        with contextlib.suppress(Refusal):
            await reserve(sent)
            return 200
        return 402

    assert [await ask("1"), await ask("2")] == [200, 402]
    grant = await grants.add("b", "b:consumer=alice", 1, "requests", None)
    assert [await ask("3"), await ask("4")] == [200, 402]
    await grants.revoke(grant.id)
    assert await ask("5") == 402


# --- failures


def test_a_store_that_is_down_is_reported(world):
    world.counters.down = True
    for answer in (world.http.get("/budgets"), world.grant(), world.http.delete("/grants/x")):
        assert answer.status_code == 503
        assert "secret" not in answer.text
    assert world.http.get("/grants").status_code == 200, "what is known is told"


def test_other_processes_are_told_of_a_forgotten_consumer_before_the_ledger_forgets_it(world):
    world.ledger.writer.add(Row(id="1", time=NOW, consumer="a"))
    assert world.ledger.writer.stop() == 0
    world.counters.down = True
    assert world.http.post("/ledger/forget", json={"consumer": "a"}).status_code == 503
    world.counters.down = False
    assert world.http.post("/ledger/forget", json={"consumer": "a"}).json()["rows"] == 1
    [*_, which] = world.dropped
    assert (which({"consumer": "a"}), which({"consumer": "b"}), which({})) == (True, False, False)
    assert len(world.run(world.counters.share(BOARD, "", b"", 1.0))) == 1


def test_stores_that_cannot_be_written_are_named(world, monkeypatch):
    assert world.http.get("/stores").json() == {name: {"problem": "", "remark": ""} for name in ("counters", "ledger")}

    async def examine():
        raise StoreError("ReadOnlyError")

    def fail():
        raise LedgerError("the ledger does not answer (ReadOnlySqlTransaction 25006)")

    monkeypatch.setattr(world.counters, "examine", examine)
    monkeypatch.setattr(world.ledger, "examine", fail)
    found = world.http.get("/stores").json()
    assert found["counters"] == {"problem": "ReadOnlyError", "remark": ""}
    assert "25006" in found["ledger"]["problem"]


def test_a_busy_loop_is_reported(world, monkeypatch):
    monkeypatch.setattr("extproc.operate.reports.reports._PATIENCE", 0.05)
    go = threading.Event()
    world.loop.call_soon_threadsafe(go.wait, 5)
    answer = world.http.get("/budgets")
    refused = world.grant()
    go.set()
    world.run(asyncio.sleep(0.01))
    assert (refused.status_code, world.grants.all()) == (503, []), "what was not granted in time is not granted later"
    assert (answer.status_code, "too busy" in answer.text) == (503, True)


def test_a_ledger_that_is_down_is_reported(world, monkeypatch):
    def away(*_args):
        raise LedgerError("the ledger does not answer (OperationalError)")

    for name in ("usage", "exchanges", "exchange"):
        monkeypatch.setattr(type(world.ledger), name, away)
    for path in ("/usage", "/exchanges", "/exchanges/x"):
        assert world.http.get(path).status_code == 503


# --- usage and exchanges


def test_usage_and_exchanges_come_from_the_ledger(world):
    rows = [("1", "a", 5), ("2", "b", 7), ("3", "a", 11)]
    for id, consumer, tokens in rows:
        world.ledger.writer.add(
            Row(id=id, time=NOW, consumer=consumer, input_tokens=tokens, status=200, operation="chat")
        )
    world.ledger.writer.stop()
    report = world.http.get("/usage?group_by=consumer&resolution=day").json()
    assert {group["group"]["consumer"]: group["input_tokens"] for group in report["data"]} == {"a": 16, "b": 7}
    assert report["total"]["requests"] == 3
    assert [entry["id"] for entry in world.http.get("/exchanges?consumer=a").json()["data"]] == ["3", "1"]
    assert world.http.get("/exchanges/2").json()["consumer"] == "b"
    assert world.http.get("/exchanges/4").status_code == 404
    assert world.http.get("/usage?resolution=week").status_code == 400


def test_exchanges_in_memory_and_in_the_ledger_are_merged_in_order(world):
    def remember(id, began, status=200, error="", outcome="ok"):
        said = {"time": began + 2, "duration_ms": 2000.0, "status": status, "error": error, "outcome": outcome}
        world.entries.append({"id": id, "request_id": f"r-{id}", **said})

    for id, began in (("before", NOW - 50), ("both", NOW - 30), ("elsewhere", NOW - 10)):
        world.ledger.writer.add(Row(id=id, time=began, status=200, operation="chat"))
    world.ledger.writer.stop()
    remember("both", NOW - 30)
    remember("no-key", NOW - 20, 401, "invalid_key", "refused")
    remember("here", NOW)

    assert world.http.get("/exchanges/both").json()["operation"] == "chat"  # the ledger knows more
    assert world.http.get("/exchanges/r-here").json()["id"] == "here"

    def ids(query=""):
        return [entry["id"] for entry in world.http.get(f"/exchanges{query}").json()["data"]]

    assert ids() == ["here", "elsewhere", "no-key", "both", "before"]
    assert ids("?limit=2") == ["here", "elsewhere"]
    assert ids("?outcome=refused") == ids("?status=401") == ["no-key"]
    # A page may end with an exchange that has no row, or at one that only the ledger has.
    assert ids("?before=no-key&limit=1") == ["both"]
    assert ids("?before=elsewhere") == ["no-key", "both", "before"]
    assert ids("?before=elsewhere&status=401") == ["no-key"]
    assert ids("?before=before") == ids("?before=unknown") == []
    assert [world.http.get(f"/exchanges/{id}").json()["id"] for id in ("r-here", "before")] == ["here", "before"]


def test_notes_on_deployments_are_shown(world):
    [(begin, end)] = world.http.get("/providers").json()["data"]["a/m"].pop("cooled")
    assert (end - begin, begin) == (12.0, world.clock())
    assert world.http.get("/providers").json()["data"]["a/m"]["cooling_down_s"] == 12.0


def test_an_unknown_budget_is_not_found(world):
    assert world.http.get("/budgets/rpm").json()["data"][0]["name"] == "rpm"
    for name in ("call", "nothing"):
        assert world.http.get(f"/budgets/{name}").status_code == 404

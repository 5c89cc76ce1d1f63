"""Calls of tools that wait for a person: an approval is for the exact call that is sent, and is used once."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace

import pytest

from extproc.access import questions
from extproc.access.auth.access import ToolGrants
from extproc.access.questions import DecidedError, Questions, State
from extproc.stores.memory import MemoryCounters
from extproc.tools.mcp.approvals import AwaitApproval, UseApproval
from extproc.tools.mcp.call import CALL, MODERN, Call
from extproc.tools.mcp.catalogue import Catalogue
from extproc.tools.mcp.policy import Policy, ToolPolicy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import JSONRPC, body_of, refused_result
from extproc.tools.mcp.servers import McpServer
from extproc.tools.mcp.settings import MCPSettings, ToolPolicySettings
from extproc.tools.taint import Taint
from extproc.wire.framing import rpc
from extproc.words.dialect import Ask
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead
from extproc.words.values import Patterns
from tests.exchanges import new_exchange
from tests.mcp.test_pins import TOOL, digest, entry
from tests.stores.conftest import STORES

POLICIES = (
    "always",
    {"unless": {"/amount": {"maximum": 10}}},
    {"unless": {"/amount": {"maximum": 20}}, "tainted": True},
)
NEVER = "never"


def definition(version=0):
    return {**TOOL, "name": "pay", "description": f"Pays, version {version}"}


class Replica:
    """A process: its settings, its view of the servers, and the stages of approvals."""

    def __init__(self, counters, clock, *, approve="always", wait=600, **approvals):
        self.counted, self.asked, self.clock = [], [], clock
        self.approvals = {"wait": f"{wait}s", "expires": "60s", **approvals}
        self.questions = Questions(counters, self.asked.append, clock, look=0.0)
        self.taint = Taint(counters, now=clock)
        self.servers = SimpleNamespace(by_name={"bank": McpServer("bank", None)}, generation=0)
        self.define(0)
        self.reload(approve)

    def define(self, version):
        """The server offers another definition of the tool."""
        self.version, fields = version, entry(definition(version), "bank")
        kinds = {"tools": {"pay": fields}, "prompts": {}, "resources": {}, "templates": {}}
        self.servers.by_name["bank"].learn(Catalogue(True, capabilities={"tools": {}}, entries=kinds), 500)
        self.servers.generation += 1

    def reload(self, approve, **tool):
        self.approve = approve
        self.settings = mcp = MCPSettings.model_validate(
            {
                "servers": {"bank": {"url": "http://a.test/mcp"}},
                "profiles": {"dev": {"servers": {"bank": {}}}},
                "tools": {"bank/pay": {"approve": approve, **tool}},
                "approvals": self.approvals,
            }
        )
        policy = Policy(mcp)
        profiles, count = (
            Profiles(mcp, self.servers, policy, self.taint),
            lambda _server, what: self.counted.append(what),
        )
        judge = ToolPolicy(policy, self.taint)
        use = UseApproval(mcp, profiles, self.questions, in_force=lambda: self.settings, judge=judge, count=count)
        self.stages = (judge, AwaitApproval(mcp, profiles, self.questions, count), use)

    def call(self, amount=100, run="7", consumer="ada", **params):
        params = {"name": "bank__pay", "arguments": {"amount": amount}, **params}
        body = rpc.request("tools/call", 1, params)
        call = Call("dev", self.settings.profiles["dev"], version="2025-06-18")
        call.message, call.name, call.server, call.tool = rpc.read(body, 64, 10_000), "bank__pay", "bank", "pay"
        call.entry = self.servers.by_name["bank"].catalogue.entries["tools"]["pay"]
        call.policy = self.settings.policy("bank", "pay")
        exchange = new_exchange("x", RequestHead("POST", "/mcp/dev", {}))
        exchange.features[CALL], exchange.request.dialect, exchange.request.operation = (
            call,
            JSONRPC(call),
            "tools/call",
        )
        exchange.consumer = Consumer(consumer, tools=ToolGrants([Patterns(["*"])]))
        exchange.money.labels = {"run": run} if run else {}
        exchange.request.body, exchange.request.json = body, dict(call.message.tree)
        exchange.request.ask = Ask(call.name, free=True)
        return exchange

    async def send(self, exchange):
        """The way of a call up to its server. Raises Refusal."""
        judge, wait, use = self.stages
        judge(exchange)
        await wait(exchange)
        await asyncio.sleep(0)  # ReserveCall
        await use(exchange)

    async def refused(self, exchange=None):
        with pytest.raises(Refusal) as found:
            await self.send(self.call() if exchange is None else exchange)
        return found.value

    async def open(self):
        async with asyncio.timeout(20):
            while True:
                for question, state in await self.questions.all():
                    if state is State.OPEN:
                        return question
                await asyncio.sleep(0)

    async def decide(self, approve=True, reason=""):
        return await self.questions.decide((await self.open()).id, approve=approve, by="eve", reason=reason)


@pytest.fixture
def replicas(clocks):
    """Call it: two processes over one store."""
    clock = clocks()
    store = MemoryCounters(clock)
    return lambda **more: (Replica(store, clock, **more), Replica(store, clock, **more))


async def test_a_call_waits_for_a_person_at_any_replica_and_goes_once(replicas):
    here, there = replicas()
    sent = here.call()
    waiting = asyncio.create_task(here.send(sent))
    question = await there.open()
    assert (question.consumer, question.labels, question.model) == ("ada", {"run": "7"}, "bank__pay")
    assert (question.call.server, question.call.tool, question.call.arguments) == ("bank", "pay", '{"amount":100}')
    assert question.call.definition == digest(definition())
    assert not waiting.done()
    await there.decide(reason="fine")
    await waiting
    logged = sent.features[CALL].log_fields
    sent.end(whole=True)
    assert (logged(sent)["approval"], logged(sent)["decided_by"]) == (question.id, "eve")
    for replica in (here, there):  # a replay finds no approval, and asks anew
        again = asyncio.create_task(replica.send(replica.call()))
        assert (await replica.open()).id != question.id
        again.cancel()
    assert here.counted == ["asked", "approved", "asked"]


async def test_without_a_wait_the_same_call_finds_its_question(replicas):
    here, there = replicas(wait=0)
    refusal = await here.refused()
    said = refused_result(here.call().features[CALL], refusal)
    meta = said["_meta"]["llm-extproc/refusal"]
    assert (meta["code"], meta["retry_after"], said["isError"]) == ("approval_required", 10, True)
    assert "same arguments" in said["content"][0]["text"]
    assert (await there.refused()).headers["x-ai-approval"] == meta["approval"], "one question for one call"
    for other in (here.call(101), here.call(run="8"), here.call(consumer="bob"), here.call(inputResponses={"a": 1})):
        assert (await here.refused(other)).headers["x-ai-approval"] != meta["approval"]
    header = here.call()
    header.request.head.headers["mcp-param-amount"] = "5"
    assert (await here.refused(header)).headers["x-ai-approval"] != meta["approval"]
    await there.questions.decide(meta["approval"], approve=True, by="eve", reason="")
    await here.send(here.call(_meta={"progressToken": 5}))
    assert (await here.refused()).headers["x-ai-approval"] != meta["approval"], "it was used"
    assert here.counted[:2] == ["asked", "asked"]
    assert there.counted == ["pending"]


async def test_a_denial_has_a_reason_that_the_model_reads(replicas):
    here, there = replicas()
    waiting = asyncio.create_task(here.refused(sent := here.call()))
    await there.decide(approve=False, reason="ask finance first")
    for refusal in (await waiting, await there.refused()):
        assert refusal.kind.code == "approval_denied"
        assert refusal.message.endswith(": ask finance first.")
    approval = sent.features[CALL].approval
    assert (approval.id, approval.by) == (refusal.headers["x-ai-approval"], "eve"), "the log and the trail name both"


@pytest.mark.parametrize("change", ["definition", "policy", "kill switch", "sensitive", "taint", "expiry", "used"])
async def test_what_changes_before_the_call_leaves_is_refused(replicas, change):
    here, there = replicas(approve={"unless": {"/amount": {"maximum": 1}}})
    sent = here.call()
    waiting = asyncio.create_task(here.refused(sent))
    question = await here.open()
    if change == "definition":
        here.define(1)
    elif change == "policy":
        here.reload("always")
    elif change in ("kill switch", "sensitive"):
        here.reload("always", **{"disabled" if change == "kill switch" else "sensitive": True})
    elif change == "taint":
        await here.taint.mark(sent, "web/read")
    await there.decide()
    if change == "expiry":
        here.clock.now += 61
    elif change == "used":
        assert await there.questions.use(question)
    refusal = await waiting
    assert refusal.kind.code == "approval_required"
    assert "changed" in refusal.message or change in ("expiry", "used")


async def test_which_calls_wait(replicas):
    here, _ = replicas(approve={"unless": {"/amount": {"maximum": 10}}, "tainted": True}, wait=0)
    await here.send(here.call(10))
    for amount in (11, "5", None, [1, 11]):
        assert "argument '/amount' must be at most 10" in (await here.refused(here.call(amount))).message
    await here.taint.mark(here.call(), "web/read")
    assert "untrusted content" in (await here.refused(here.call(10))).message
    assert ToolPolicySettings().approval_reason({}, tainted=True) == ""


@pytest.mark.parametrize(
    ("answer", "goes"),
    [
        ({"action": "accept", "content": {"approve": True}}, True),
        ({"action": "accept", "content": {"approve": False}}, False),
        ({"action": "accept", "content": {"approve": "true"}}, False),
        ({"action": "decline"}, False),
        ({"action": "cancel"}, None),
        ("accept", None),
    ],
)
async def test_the_user_is_asked_in_the_client_that_can(replicas, answer, goes):
    def call(replica, amount=100, **params):
        exchange = replica.call(amount, **params)
        exchange.features[CALL].version, exchange.features[CALL].capabilities = MODERN, {"elicitation": {}}
        return exchange

    here, there = replicas(elicit=True)
    refusal = await here.refused(first := call(here))
    asked = json.loads(body_of(first.features[CALL], refusal))["result"]
    assert (asked["resultType"], '{"amount":100}' in asked["inputRequests"]["approval"]["params"]["message"]) == (
        "input_required",
        True,
    )
    given = {"inputResponses": {"approval": answer}, "requestState": asked["requestState"]}
    other = await there.refused(call(there, 101, **given))
    assert other.result["requestState"] != asked["requestState"], "an answer is for the question that was asked"
    again = call(there, **given)
    if goes:
        await there.send(again)
        assert json.loads(again.request.body)["params"].keys() == {"name", "arguments"}
        assert again.features[CALL].approval.by == "user"
    else:
        assert (await there.refused(again)).kind.code == ("approval_required" if goes is None else "approval_denied")
    off, _ = replicas(wait=0)
    assert "user" not in (await off.refused(call(off, **given))).message, "only where the settings say so"


async def test_questions_have_limits(replicas, monkeypatch):
    here, _ = replicas(wait=0, max_arguments="256B")
    refusal = await here.refused(here.call("x" * 256))
    assert (refusal.kind.code, "256B" in refusal.message) == ("approval_denied", True)
    assert here.asked == []
    monkeypatch.setattr(questions, "MOST_OF_ONE", 2)
    codes = [(await here.refused(here.call(number))).headers.keys() for number in range(3)]
    assert [bool(each) for each in codes] == [True, True, False]


# --- histories

_asking = ContextVar("asking")  # the policy under which a question is asked


class Slow:
    """A store whose every call takes turns with other tasks."""

    def __init__(self, store, chance):
        self._store, self._chance = store, chance

    def __getattr__(self, name):
        async def called(*given, **named):
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
            found = await getattr(self._store, name)(*given, **named)
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
            return found

        return called


class History:
    """Calls, answers of operators, changes, time and kills at two replicas, in any order. `given` are the approvals,
    by what they were given for, each with the time of its end; `trying` those that an operator gives just now.
    """

    def __init__(self, chance, clock, stores):
        self.chance, self.clock, self.wrong, self.sent = chance, clock, [], 0
        self.given, self.trying, self.used = {}, Counter(), set()
        self.replicas = [Replica(Slow(store, chance), clock, wait=chance.choice((0, 600))) for store in stores]
        self.policies = {}
        for replica in self.replicas:
            replica.questions.ask = partial(self.ask, replica.questions.ask)
        self.calls, self.others = [], []

    async def ask(self, real, draft, *given):
        self.policies[draft.id] = _asking.get()
        return await real(draft, *given)

    async def call(self, replica):
        sent = replica.call(self.chance.choice((5, 15, 25)), self.chance.choice(("1", "2")), self.chance.choice("ab"))
        _asking.set(json.dumps(replica.approve))
        with contextlib.suppress(Refusal):
            await replica.send(sent)
            self.leave(replica, sent)

    def leave(self, replica, sent):
        """Judge a call that leaves, by what is in force here and now."""
        call = sent.features[CALL]
        call_arguments = call.message.params["arguments"]
        self.sent += 1
        if not call.approval:  # it needed none when its configuration was in force
            if call.policy.approval_reason(call_arguments, tainted=bool(sent.findings.tainted)):
                self.wrong.append("without an approval")
            return
        facts = (sent.consumer.name, sent.money.labels["run"], json.dumps(call_arguments), replica.version)
        key = (*facts, json.dumps(replica.approve), call.approval.id)
        ends = self.given.get(key, float("inf") if self.trying[key] else 0.0)  # it may be used before `decide` returns
        if ends <= self.clock.now or call.approval.id in self.used:
            self.wrong.append(("not approved", facts, ends, self.clock.now))
        self.used.add(call.approval.id)

    async def decide(self, replica):
        known = [question for question, state in await replica.questions.all() if state is State.OPEN]
        if not known:
            return
        shown = self.chance.choice(known)
        approve, called = self.chance.random() < 0.7, shown.call
        [version] = [number for number in range(3) if digest(definition(number)) == called.definition]
        facts = (shown.consumer, called.run, json.dumps(json.loads(called.arguments)), version)
        key = (*facts, self.policies[shown.id], shown.id)
        self.trying[key] += approve
        with contextlib.suppress(DecidedError):
            found = await replica.questions.decide(shown.id, approve=approve, by="eve", reason="")
            if found is not None and approve:
                self.given[key] = found.expires
        self.trying[key] -= approve

    async def act(self):
        replica, what = self.chance.choice(self.replicas), self.chance.random()
        if what < 0.4:
            self.calls.append(asyncio.create_task(self.call(replica)))
        elif what < 0.7:
            self.others.append(asyncio.create_task(self.decide(replica)))
        elif what < 0.75:
            replica.define(self.chance.randrange(3))
        elif what < 0.8:
            replica.reload(self.chance.choice(POLICIES))
        elif what < 0.82:
            await replica.taint.mark(
                replica.call(run=self.chance.choice("12"), consumer=self.chance.choice("ab")), "w/r"
            )
        elif what < 0.86:
            self.clock.now += self.chance.choice((1, 30, 61))
        elif what < 0.9 and self.calls:
            self.chance.choice(self.calls).cancel()  # its process is killed
        for _ in range(self.chance.randrange(12)):
            await asyncio.sleep(0)

    async def run(self, steps):
        for _ in range(steps):
            await self.act()
        for _ in range(60):
            await asyncio.sleep(0)
        for task in self.calls:
            task.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)
        failed = await asyncio.gather(*self.others, return_exceptions=True)
        crashed = [task.exception() for task in self.calls if not task.cancelled()]
        assert [error for error in (*crashed, *failed) if error is not None] == []
        assert self.wrong == []
        return self.sent


async def _history(seed, clock, store, folder=None, steps=40):
    first = STORES[store](folder, clock)
    second = first if store == "memory" else STORES[store](folder, clock)
    try:
        return await History(random.Random(seed), clock, (first, second)).run(steps)
    finally:
        for each in {first, second}:
            await each.close()


@pytest.mark.parametrize(
    ("store", "count"),
    [("memory", 150), ("sqlite", 10), ("redis", 10), pytest.param("memory", 100_000, marks=pytest.mark.exhaustive)],
)
def test_no_call_leaves_without_an_approval_of_its_own(store, count, tmp_path, clocks):
    async def all_of_them():
        sent = 0
        for seed in range(count):
            sent += await _history(seed, clocks(), store, tmp_path / str(seed) if store == "redis" else _folder(seed))
        return sent

    def _folder(seed):
        folder = tmp_path / str(seed)
        if store == "sqlite":
            folder.mkdir()
        return folder

    sent = asyncio.run(all_of_them())
    assert store != "memory" or sent > count / 2, "the histories have to send calls"

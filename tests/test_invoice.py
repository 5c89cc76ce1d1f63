"""The ledger agrees with the invoice: a provider that bills in its own way, over mixed requests through the whole core.

The double has prices and arithmetic of its own. Processes are killed before their request leaves, and while they read
the usage of batches and background runs. The store loses calls and answers of settling. An answer in whose middle a
process dies is charged what was held, see `tests/accounting`; it is no part of this comparison.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from random import Random

import pytest

from extproc.money.accounting.poller import Poller, Situation
from extproc.money.budgets import compile_budget
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from tests.accounting.test_invariants import Queue, Table
from tests.samples import exhaustive
from tests.stores.wire import Died
from tests.talk import answers, asks, event, sends, streams, talk

TODAY = 1_795_500_000.0  # 2026-11-24
YAML = """
providers:
  openai: {kind: openai, api_key: env:PATH}
  claude: {kind: anthropic, api_key: env:PATH}
models:
  gpt: {provider: openai, model: gpt-4.1}
  mini: {provider: openai, model: gpt-4.1-mini}
  haiku: {provider: claude, model: claude-haiku-4-5}
  sonnet: {provider: claude, model: claude-sonnet-4-5}
consumers:
  - {name: one, keys: [{name: one, env: INVOICE_ONE}]}
  - {name: two, keys: [{name: two, env: INVOICE_TWO}]}
auth: {required: true}
budgets: [{name: bill, unit: usd, limit: 10000000, window: total, per: [key, model]}]
"""
LIST = {
    "gpt-4.1": {"input": "2", "cached": "0.5", "output": "8"},
    "gpt-4.1 priority": {"input": "3.5", "cached": "0.875", "output": "14"},
    "gpt-4.1 batch": {"input": "1", "cached": "0.25", "output": "4"},
    "gpt-4.1-mini batch": {"input": "0.2", "cached": "0.05", "output": "0.8"},
    "gpt-4.1-mini": {"input": "0.4", "cached": "0.1", "output": "1.6"},
    "gpt-4.1-mini priority": {"input": "0.7", "cached": "0.175", "output": "2.8"},
    "gpt-image-1": {"input": "5", "image": "40"},
    "claude-haiku-4-5": {"input": "1", "cached": "0.1", "5m": "1.25", "1h": "2", "output": "5"},
    "claude-haiku-4-5 batch": {"input": "0.5", "cached": "0.05", "5m": "0.625", "1h": "1", "output": "2.5"},
    "claude-sonnet-4-5 batch": {"input": "1.5", "cached": "0.15", "5m": "1.875", "1h": "3", "output": "7.5"},
    "claude-opus-4-5": {"input": "5", "cached": "0.5", "5m": "6.25", "1h": "10", "output": "25"},
    "claude-sonnet-4-5": {"input": "3", "cached": "0.3", "5m": "3.75", "1h": "6", "output": "15"},
    "claude-sonnet-4-5 long": {"input": "6", "cached": "0.6", "5m": "7.5", "1h": "12", "output": "22.5"},
}
"""USD per million tokens. Sources: https://platform.openai.com/docs/pricing,
https://platform.claude.com/docs/en/about-claude/pricing
"""
CALLS = {"search": "0.01", "file_search": "0.0025", "container": "0.03"}
PROMPT = "Say it again. " * 400


class Provider:
    """Answers requests and writes its invoice, in USD by key and model: each position is rounded by itself. It keeps
    batches and background runs until they end, and processes die while they read them.
    """

    def __init__(self, chance, clock):
        self.chance, self.clock, self.invoice = chance, clock, Counter()
        self.kept, self.deadly = {}, True  # by path: when it ends, the answer before and after

    def bill(self, account, model, calls=None, **tokens):
        rates = {kind: Decimal(rate) / 1_000_000 for kind, rate in LIST[model].items()}
        positions = [count * rates[kind] for kind, count in tokens.items()]
        positions += [count * Decimal(CALLS[kind]) for kind, count in (calls or {}).items()]
        self.invoice[account] += sum(position.quantize(Decimal("1e-8")) for position in positions)

    def keep(self, path, begun, ended):
        self.kept[path] = self.clock() + self.chance.choice([0, 5, 200]), begun, ended
        return begun

    def run(self, account, model, body):
        """A background run."""
        said = self.response(account, model, tools=bool(body.get("tools")), tier=False) | {"id": self.id("resp")}
        begun = said | {"status": "in_progress", "usage": None, "output": [], "model": model}
        return self.keep(f"/v1/responses/{said['id']}", begun, said)

    def id(self, kind):
        return f"{kind}_{len(self.kept)}"

    def messages(self, account, model, count):
        """A batch of messages. Some fail, some expire."""
        id, lines = self.id("msgbatch"), []
        for _ in range(count):
            result = {"type": self.chance.choice(["errored", "expired", "succeeded", "succeeded"])}
            if result["type"] == "succeeded":
                result["message"] = self.message(account, model, searching=False, advised=False, batch=True)
            lines.append({"result": result})
        begun = {"id": id, "type": "message_batch", "processing_status": "in_progress"}
        answered = sum(line["result"]["type"] == "succeeded" for line in lines)
        self.kept[f"/v1/messages/batches/{id}/results"] = 0, None, lines
        ended = begun | {"processing_status": "ended", "request_counts": {"succeeded": answered}}
        return self.keep(f"/v1/messages/batches/{id}", begun, ended)

    def batch(self, account, model, count, file):
        """A batch of OpenAI's. Some fail; some batches tell no usage."""
        id, output, sums, lines = self.id("batch"), self.id("file"), Counter(), []
        for _ in range(count):
            if self.chance.random() < 0.2:
                lines.append({"response": None, "error": {"code": "batch_expired"}})
                continue
            given, written = self.chance.randrange(600, 1500), self.chance.randrange(50, 400)
            self.bill(account, f"{model} batch", input=given, output=written)
            usage = {"prompt_tokens": given, "completion_tokens": written}
            sums.update(input_tokens=given, output_tokens=written, total_tokens=given + written, answered=1)
            body = {"object": "chat.completion", "model": model, "usage": usage}
            lines.append({"response": {"status_code": 200, "body": body}})
        begun = {"id": id, "object": "batch", "status": "validating", "input_file_id": file}
        self.kept[f"/v1/files/{output}/content"] = 0, None, lines
        ended = begun | {"status": "completed", "output_file_id": output}
        ended |= {"request_counts": {"completed": sums.pop("answered", 0)}}
        ended |= {"usage": dict(sums)} if self.chance.random() < 0.5 else {}
        return self.keep(f"/v1/batches/{id}", begun, ended)

    async def get(self, _name, path, *, sink=None, most=0):
        """See `Asking.get`."""
        ends, begun, ended = self.kept[path]
        if sink is None:
            return 200, json.dumps(ended if ends <= self.clock() else begun).encode()
        for line in ended:
            if self.deadly and self.chance.random() < 0.03:
                raise Died
            sink(json.dumps(line).encode() + b"\n")
        assert most
        return 200, b""

    def message(self, account, model, *, searching, advised, batch=False):
        chance = self.chance
        given, cached, short, hour = (chance.randrange(200, 900) for _ in range(4))
        if searching and chance.random() < 0.5:  # the pages that it found
            given += 210_000
        written, searches = chance.randrange(50, 400), chance.randrange(4) if searching else 0
        name = f"{model} long" if given > 200_000 and "sonnet" in model else model
        name += " batch" if batch else ""
        self.bill(
            account,
            name,
            {"search": searches},
            **{"input": given, "cached": cached, "5m": short, "1h": hour, "output": written},
        )
        usage = {
            "input_tokens": given,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": short + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour},
            "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 1},
            "output_tokens": written,
        }
        if advised:
            read, said = chance.randrange(500, 4000), chance.randrange(100, 2000)
            self.bill(account, "claude-opus-4-5", input=read, output=said)
            advice = {
                "type": "advisor_message",
                "model": "claude-opus-4-5",
                "input_tokens": read,
                "output_tokens": said,
            }
            usage["iterations"] = [{"type": "message"}, advice]
        text = [{"type": "text", "text": "Said."}]
        return {"id": "m", "type": "message", "role": "assistant", "model": model, "content": text} | {
            "stop_reason": "end_turn",
            "usage": usage,
        }

    def response(self, account, model, *, tools, tier):
        chance = self.chance
        model = "gpt-4.1" if chance.random() < 0.2 else model  # a reroute
        given, written = chance.randrange(600, 1500), chance.randrange(50, 400)
        cached = chance.randrange(given // 2)
        said = {"id": "r", "object": "response", "status": "completed", "model": model, "output": []}
        said["usage"] = {"input_tokens": given, "output_tokens": written, "total_tokens": given + written}
        said["usage"]["input_tokens_details"] = {"cached_tokens": cached}
        applied = "priority" if tier and chance.random() < 0.7 else "default"
        said["service_tier"] = applied
        searches, files, box = (chance.randrange(3) if tools else 0 for _ in range(3))
        said["output"] += [{"type": "web_search_call", "action": {"type": "search"}}] * searches
        said["output"] += [{"type": "web_search_call", "action": {"type": "open_page"}}] * searches
        said["output"] += [{"type": "file_search_call"}] * files
        said["output"] += [{"type": "code_interpreter_call", "container_id": "c"}] * box
        calls = {"search": searches, "file_search": files, "container": bool(box)}
        name = f"{model} priority" if applied == "priority" else model
        self.bill(account, name, calls, input=given - cached, cached=cached, output=written)
        if tools and chance.random() < 0.5:
            read, drawn = chance.randrange(20, 200), chance.randrange(200, 5000)
            self.bill(account, "gpt-image-1", input=read, image=drawn)
            said["tools"] = [{"type": "image_generation", "model": "gpt-image-1"}]
            details = {"image_tokens": drawn, "text_tokens": 0}
            image = {"input_tokens": read, "output_tokens": drawn, "output_tokens_details": details}
            said["tool_usage"] = {"image_gen": image, "web_search": {"num_requests": searches}}
        return said


class Losing:
    """A store of which calls and answers of settling are lost."""

    def __init__(self, store, chance):
        self._store, self._chance = store, chance

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def settle(self, *args, **options):
        what = self._chance.random()
        if what < 0.05:
            raise StoreError("call lost")
        found = await self._store.settle(*args, **options)
        if what < 0.1:
            raise StoreError("answer lost")
        return found


def request(chance, provider, account, model):
    """Path, body and the provider's answer."""
    tools = chance.random() < 0.3
    if model in ("haiku", "sonnet"):
        body = {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": PROMPT}]}
        advised = tools and chance.random() < 0.5
        if tools:
            body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
        if advised:
            body["tools"] += [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-5"}]
        name = f"claude-{model}-4-5"
        return "/v1/messages", body, lambda: provider.message(account, name, searching=tools, advised=advised)
    tier = chance.random() < 0.3
    body = {"model": model, "max_output_tokens": 500, "input": PROMPT, "store": False}
    body |= {"tools": [{"type": "web_search"}, {"type": "image_generation"}]} if tools else {}
    body |= {"service_tier": "priority"} if tier else {}
    name = {"gpt": "gpt-4.1", "mini": "gpt-4.1-mini"}[model]
    return "/v1/responses", body, lambda: provider.response(account, name, tools=tools, tier=tier)


def whole(answer, *, streamed):
    """Envoy's messages of an answer."""
    if not streamed:
        return answers(), streams(answer, end=True)
    if answer.get("object") == "response":
        events = [{"type": "response.completed", "response": answer}]
    else:
        begun = answer | {"usage": answer["usage"] | {"output_tokens": 1}}
        stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": answer["usage"]}
        events = [{"type": "message_start", "message": begun}, stop]
    return answers(kind="text/event-stream"), streams(b"".join(map(event, events)), end=True)


class Process:
    """A gateway with its queue for the ledger and its poller."""

    def __init__(self, world, counters, clock, table, provider):
        self.queue, self.work = Queue(table), []
        self.gateway = world(YAML, counters, clock, ledger=self.queue)
        self.gateway.leases._wind = lambda _seconds: None  # no lease is renewed: a process that died cannot
        settings = self.gateway.pipeline.settings
        self.budgets = {each.name: compile_budget(each) for each in settings.budgets}
        situation = Situation(self.gateway.pipeline.catalog, self.budgets, provider, 1 << 30)

        def spawn(work, *_, **__):
            self.work.append(work)

        self.poller = Poller(counters, self.gateway.books, lambda: situation, spawn, now=clock)

    async def turn(self):
        """The work of each second. Raises Died."""
        await self.settle_owed()
        with suppress(StoreError):
            await self.poller.turn()
        try:
            while self.work:
                await self.work.pop()
        finally:
            for left in self.work:
                left.close()
        await self.settle_owed()

    async def settle_owed(self):
        """Bring settling to an end and write the rows, as the books do in the background."""
        for _ in range(200):
            with suppress(StoreError):
                await self.gateway.books.turn(self.budgets, {})
            if not self.queue.rows and not self.gateway.books._owed:
                return
            self.queue.flush()


async def create_late(chance, provider, gateway, key, account):
    """Have a batch or a background run made."""
    model, count = account[1], chance.randrange(1, 7)
    name = {"gpt": "gpt-4.1", "mini": "gpt-4.1-mini"}.get(model, f"claude-{model}-4-5")
    asked = {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": PROMPT}]}

    async def say(path, body, answer, **headers):
        said = asks(path, authorization=f"Bearer {key}", **headers), sends(body), answers()
        return json.loads((await talk(gateway.stream(), *said, streams(answer, end=True)))[-1].body)

    if model in ("haiku", "sonnet"):
        body = {"requests": [{"custom_id": str(each), "params": asked} for each in range(count)]}
        await say("/v1/messages/batches", body, provider.messages(account, name, count))
    elif chance.random() < 0.5:
        body = {"model": model, "max_output_tokens": 500, "input": PROMPT, "background": True}
        body |= {"tools": [{"type": "web_search"}, {"type": "image_generation"}]} if chance.random() < 0.3 else {}
        await say("/v1/responses", body, provider.run(account, name, body))
    else:
        line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": asked})
        head = '--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        head += '--x\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        form = "".join([head, f"{line}\n" * count, "\r\n--x--\r\n"]).encode()
        raw = {"id": f"file-{len(provider.kept)}", "object": "file"}
        kept = await say("/v1/files", form, raw, content_type="multipart/form-data; boundary=x")
        body = {"input_file_id": kept["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        await say("/v1/batches", body, provider.batch(account, name, count, raw["id"]))


async def turn_each(processes, renewed):
    """A turn of each process. One that dies is replaced. Returns the number of those that died."""
    died = 0
    for at, process in enumerate(processes):
        try:
            await process.turn()
        except Died:
            processes[at], died = renewed(), died + 1
    return died


@pytest.mark.parametrize("requests", [400, pytest.param(50_000, marks=exhaustive)])
async def test_the_ledger_is_the_invoice(world, clocks, monkeypatch, requests):
    keys = {"one": "sk-gw-one", "two": "sk-gw-two"}
    for name, key in keys.items():
        monkeypatch.setenv(f"INVOICE_{name.upper()}", key)
    chance, clock = Random(28), clocks(TODAY)
    provider, store, table = Provider(chance, clock), MemoryCounters(clock), Table()
    counters, killed, died = Losing(store, chance), 0, 0

    def renewed():
        return Process(world, counters, clock, table, provider)

    processes = [renewed(), renewed()]
    for number in range(requests):
        if number % 16 == 0:
            clock.now += 2.0
            died += await turn_each(processes, renewed)
        process = chance.choice(processes)
        key, model = chance.choice(list(keys)), chance.choice(["gpt", "mini", "haiku", "sonnet"])
        if chance.random() < 0.15:
            await create_late(chance, provider, process.gateway, keys[key], (key, model))
            continue
        path, body, answer = request(chance, provider, (key, model), model)
        said = asks(path, authorization=f"Bearer {keys[key]}", x_request_id=f"r-{number}")
        stream = process.gateway.stream()
        if killed < requests // 50 and chance.random() < 0.03:
            await said(stream)
            await sends(body)(stream)
            await process.settle_owed()
            processes[processes.index(process)] = renewed()
            killed += 1
            continue
        streamed = chance.random() < 0.5
        body |= {"stream": True} if streamed else {}
        await talk(stream, said, sends(body), *whole(answer(), streamed=streamed))
    provider.deadly = False
    for _ in range(40):  # the leases of the killed processes end, and so do the batches
        for process in processes:
            await process.settle_owed()
        clock.now += 301.0
        await turn_each(processes, renewed)
    assert killed >= requests // 100
    assert died
    booked = table.costs()
    assert booked.keys() == provider.invoice.keys()
    for (key, model), billed in provider.invoice.items():
        [level] = await store.levels([(f"bill:key={key}%23{key}:model={model}", 0)])
        assert level.reserved == 0
        for found in (booked[key, model], Decimal(level.settled) / 10**9):
            assert abs(found - billed) <= billed / 10_000, (key, model, found, billed)

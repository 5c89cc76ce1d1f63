"""The ledger agrees with the invoice: a provider that bills in its own way, over mixed requests through the whole core.

The double has prices and arithmetic of its own. Processes are killed before their request leaves, and the store loses
calls and answers of settling. A process that dies in the middle of an answer is charged what was held, see
`tests/accounting`; it is no part of this comparison.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from random import Random

import pytest

from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from tests.samples import exhaustive
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
    "gpt-4.1-mini": {"input": "0.4", "cached": "0.1", "output": "1.6"},
    "gpt-4.1-mini priority": {"input": "0.7", "cached": "0.175", "output": "2.8"},
    "gpt-image-1": {"input": "5", "image": "40"},
    "claude-haiku-4-5": {"input": "1", "cached": "0.1", "5m": "1.25", "1h": "2", "output": "5"},
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
    """Answers requests and writes its invoice, in USD by key and model: each position is rounded by itself."""

    def __init__(self, chance):
        self.chance, self.invoice = chance, Counter()

    def bill(self, account, model, calls=None, **tokens):
        rates = {kind: Decimal(rate) / 1_000_000 for kind, rate in LIST[model].items()}
        positions = [count * rates[kind] for kind, count in tokens.items()]
        positions += [count * Decimal(CALLS[kind]) for kind, count in (calls or {}).items()]
        self.invoice[account] += sum(position.quantize(Decimal("1e-8")) for position in positions)

    def message(self, account, model, *, searching, advised):
        chance = self.chance
        given, cached, short, hour = (chance.randrange(200, 900) for _ in range(4))
        if searching and chance.random() < 0.5:  # the pages that it found
            given += 210_000
        written, searches = chance.randrange(50, 400), chance.randrange(4) if searching else 0
        name = f"{model} long" if given > 200_000 and "sonnet" in model else model
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


@pytest.mark.parametrize("requests", [400, pytest.param(50_000, marks=exhaustive)])
async def test_the_ledger_is_the_invoice(world, clocks, monkeypatch, requests):
    keys = {"one": "sk-gw-one", "two": "sk-gw-two"}
    for name, key in keys.items():
        monkeypatch.setenv(f"INVOICE_{name.upper()}", key)
    chance, clock = Random(28), clocks(TODAY)
    provider, store = Provider(chance), MemoryCounters(clock)
    counters, gateways, killed = Losing(store, chance), [], 0
    gateways += [world(YAML, counters, clock), world(YAML, counters, clock)]
    booked = Counter()
    for number in range(requests):
        gateway = chance.choice(gateways)
        key, model = chance.choice(list(keys)), chance.choice(["gpt", "mini", "haiku", "sonnet"])
        path, body, answer = request(chance, provider, (key, model), model)
        said = asks(path, authorization=f"Bearer {keys[key]}", x_request_id=f"r-{number}")
        stream = gateway.stream()
        if killed < requests // 50 and chance.random() < 0.03:
            await said(stream)
            await sends(body)(stream)
            gateways[gateways.index(gateway)] = world(YAML, counters, clock)
            killed += 1
            for entry in gateway.log:
                booked[key_of(entry)] += Decimal(str(entry["cost_usd"]))
            await settle_owed(gateway)
            continue
        streamed = chance.random() < 0.5
        body |= {"stream": True} if streamed else {}
        await talk(stream, said, sends(body), *whole(answer(), streamed=streamed))
    for gateway in gateways:
        await settle_owed(gateway)
        for entry in gateway.log:
            booked[key_of(entry)] += Decimal(str(entry["cost_usd"]))
    clock.now += 120.0  # the leases of the killed processes end
    await settle_owed(gateways[0])
    assert killed >= requests // 100
    assert booked.keys() == provider.invoice.keys()
    for (key, model), billed in provider.invoice.items():
        [level] = await store.levels([(f"bill:key={key}%23{key}:model={model}", 0)])
        assert level.reserved == 0
        for found in (booked[key, model], Decimal(level.settled) / 10**9):
            assert abs(found - billed) <= billed / 10_000, (key, model, found, billed)


def key_of(entry):
    assert entry["usage_source"] == "provider", json.dumps(entry)
    return entry["consumer"], entry["model"]


async def settle_owed(gateway):
    """Let a process bring its settling to an end, as its books do in the background."""
    for _ in range(200):
        with suppress(StoreError):
            await gateway.books.turn({}, {})

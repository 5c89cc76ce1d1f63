"""The behaviour and the cost of virtual models: `python -m bench.failover`. Three mock providers, one gateway, a few
minutes.

Budgets and metrics are on, as always. Cool-downs and ejections are off in the parts with fixed shares of faults,
because they would reduce the number of failing tries.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import statistics
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from bench import load
from bench.__main__ import row
from bench.harness import KEY, Bench, bench
from extproc.exchange import pipeline
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import open_counters
from extproc.words.exchange import ClientRequest, Exchange, RequestHead

MOCKS = ("one", "two", "three")
FAULTS = {"ok": "", "503": "+status=503", "reset": "+reset", "429": "+status=429", "timeout": "+hang"}
SHARE = 0.3  # share of the tries at the first and at the second target that fail
IN_FLIGHT = 50
WEIGHTS = {"one": 70, "two": 25, "three": 5}
PATH = "/v1/chat/completions"


def settings(total: int) -> str:
    """The filter YAML for `bench()`: a budget of exactly `total` requests for models named `mix-…`."""
    calm = "outlier_detection: {consecutive_5xx: 100000}, cool_down: {default: 0s, longest: 0s}"
    room = "max_requests: 10000, max_connections: 10000"
    mixes = [(first, second) for first in FAULTS for second in FAULTS]
    lines = [
        *(f"{door}: {{address: 127.0.0.1, port: <{port}>}}"
          for door, port in (("listener", "listener"), ("status", "status"), ("admin", "admin"))),
        "providers:",
        *(f'  {name}: {{kind: mock, base_url: "http://127.0.0.1:<{name}>/v1", {room}, {calm}}}' for name in MOCKS),
        "models:",
        *(f"  mix-{name}-{fault}: {{provider: {name}, model: m{suffix}}}"
          for name in MOCKS for fault, suffix in FAULTS.items()),
        *(f'  "{name}/*": {{provider: {name}}}' for name in MOCKS),
        "virtual_models:",
        *(f"  mix-{first}-{second}: {{targets: [{{model: mix-one-{first}}}, {{model: mix-two-{second}}}, "
          "{model: mix-three-ok}], retry: {per_try_timeout: 1s}}" for first, second in mixes),
        "  same: {targets: [{model: one/m}, {model: two/m}]}",
        "  renamed: {targets: [{model: one/m}, {model: two/n}]}",
        "  split: {strategy: weighted, targets: ["
        + ", ".join(f"{{model: {name}/split, weight: {weight}}}" for name, weight in WEIGHTS.items()) + "]}",
        "  fastest: {strategy: latency, targets: [{model: one/fastest}, {model: two/fastest}]}",
        "consumers: [{name: bench, keys: [{env: BENCH_KEY}]}]",
        f"budgets: [{{name: exact, match: {{model: 'mix-*'}}, unit: requests, limit: {total}, window: total}}]",
        'stores: {counters: "<counters>"}',
        'telemetry: {access_log: "off"}',
    ]  # fmt: skip
    text = "\n".join(lines).replace("{", "{{").replace("}", "}}")
    return text.replace("<", "{").replace(">", "}")


# --- the mocks


def fault(what: Bench, name: str, faults: str) -> None:
    body = json.dumps({"fault": faults}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{what.mocks[name]}/control", body, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def asked(what: Bench, name: str) -> int:
    url = f"http://127.0.0.1:{what.mocks[name]}/requests?count"
    with urllib.request.urlopen(url, timeout=10) as answer:
        count: int = json.load(answer)["count"]
        return count


# --- a: faults


def faults(what: Bench, total: int) -> None:
    """Every request is answered and charged once, while a third of the tries at the first two of three targets fail."""
    rng = random.Random(1)
    failing = [name for name in FAULTS if name != "ok"]

    def outcome() -> str:
        return rng.choice(failing) if rng.random() < SHARE else "ok"

    mixes = [(outcome(), outcome()) for _ in range(total)]
    messages = {mix: load.request("mix-{}-{}".format(*mix)) for mix in set(mixes)}
    needed = sum(1 if first == "ok" else 2 if second == "ok" else 3 for first, second in mixes)
    charged = r"gen_ai_client_inference_operation_input_tokens_count\{"
    tries = r"extproc_tries_total\{model=\"mix-.*outcome=\"%s\""
    before = what.counted(charged)
    outcomes = ("ok", "5xx", "reset", "429", "timeout")
    start = time.perf_counter()
    result = asyncio.run(load.run(what.gateway, [messages[mix] for mix in mixes], total=total, concurrency=IN_FLIGHT))
    took = time.perf_counter() - start
    time.sleep(1)  # until the last access logs have arrived
    row(f"Faults in {SHARE:.0%} of tries at two of three targets", "requests", "answered", "needed tries", "seconds")
    row(f"  {IN_FLIGHT} in flight", total, f"{(total - len(result.errors)) / total:.2%}", needed, f"{took:.0f}")
    row("  tries by outcome", *outcomes)
    row("", *(what.counted(tries % name) for name in outcomes))
    more = asyncio.run(load.run(what.gateway, load.request("mix-ok-ok"), total=1, concurrency=1)).errors
    row("  charged", "by tokens", "by budget", "one more")
    row("", what.counted(charged) - before, total if more == ["402"] else "not all", *(more or ["200"]))
    for error, count in Counter(result.errors).items():
        row("  error", error, count)


# --- b: the time a failover adds


def p50(port: int, model: str, requests: int, wanted: str | None = None) -> float:
    result = asyncio.run(load.run(port, load.request(model), total=requests, concurrency=1))
    if set(result.errors) != ({wanted} if wanted else set()):
        raise SystemExit(f"{model}: {Counter(result.errors)}")
    return statistics.median(result.latencies) * 1000


def cost(what: Bench, requests: int, rounds: int = 5) -> None:
    row("Failover, one client, p50 in ms", "failing try", "second alone", "failover", "added")
    fault(what, "one", "status=503")
    for name, second in (("same", "two/m"), ("renamed", "two/n")):
        found = []
        for _ in range(rounds):
            failing = p50(what.mocks["one"], "m", requests, "503")
            alone, both = p50(what.gateway, second, requests), p50(what.gateway, name, requests)
            found.append((both - alone - failing, failing, alone, both))
        added, *parts = sorted(found)[rounds // 2]
        label = "the same name at both" if name == "same" else "another name at the second"
        row(f"  {label}", *(f"{part:.2f}" for part in parts), f"{added:.2f}")
    fault(what, "one", "words=3")


# --- c: shares


def split_decided(decide: Decide, total: int) -> dict[str, int]:
    return Counter(decide("split")[0].provider for _ in range(total))


def split_sent(what: Bench, total: int) -> dict[str, int]:
    before = {name: asked(what, name) for name in MOCKS}
    result = asyncio.run(load.run(what.gateway, load.request("split"), total=total, concurrency=IN_FLIGHT))
    if result.errors:
        raise SystemExit(f"split: {Counter(result.errors)}")
    return {name: asked(what, name) - before[name] for name in MOCKS}


def split(how: str, found: dict[str, int], total: int) -> None:
    row(f"Weights {'/'.join(map(str, WEIGHTS.values()))}, {total} requests", *MOCKS, "off, points")
    shares = {name: found.get(name, 0) / total * 100 for name in MOCKS}
    off = max(abs(shares[name] - weight) for name, weight in WEIGHTS.items())
    row(f"  {how}", *(f"{share:.2f} %" for share in shares.values()), f"{off:.2f}")


# --- d: latency


class Client:
    """One connection that returns the provider of each answer."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._body = json.dumps({"model": "fastest", "messages": [{"role": "user", "content": "Hello"}]})

    def __call__(self) -> str:
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        self._connection.request("POST", PATH, self._body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.getheader("x-ai-provider", "")


def until(ask: Client, wanted: str, most: int = 2000) -> tuple[object, str]:
    """Requests, and seconds, until nine of ten go to `wanted`. The others explore."""
    start, times, last = time.perf_counter(), [], deque[str](maxlen=10)
    for number in range(1, most):
        times.append(time.perf_counter() - start)
        last.append(ask())
        if number >= 10 and last.count(wanted) >= 9:
            first = number - 10
            return first, f"{times[first]:.2f}"
    return f"> {most}", "-"


def latency(what: Bench) -> None:
    ask = Client(what.gateway)
    row("Latency routing, one client", "requests", "seconds")
    fault(what, "one", "delay=50ms")
    row("  the faster is found (50 ms against none)", *until(ask, "two"))
    fault(what, "two", "delay=200ms")
    row("  it slows down to 200 ms and is left", *until(ask, "one"))
    fault(what, "two", "words=3")
    fault(what, "one", "words=3")


# --- e: the time of a decision

Decide = Callable[[str], Sequence[Any]]
_STAGES = ("Route", "Authorize", "Select", "Forward")
_CHAIN = """
providers: {one: {kind: mock}, two: {kind: mock}, three: {kind: mock}, four: {kind: mock}}
models:
  one/m: {provider: one, price: {input: 4, output: 8}}
  two/m: {provider: two, price: {input: 3, output: 6}}
  three/m: {provider: three, price: {input: 2, output: 4}}
  four/m: {provider: four, price: {input: 1, output: 2}}
virtual_models:
  same: {targets: &four [{model: one/m}, {model: two/m}, {model: three/m}, {model: four/m}]}
  changing:
    targets:
      - {model: one/m, override: {temperature: 0.2}, remove: [seed]}
      - {model: two/m, default: {top_p: 0.9}}
      - {model: three/m}
      - {model: four/m, override: {max_tokens: 100}}
  weighted: {strategy: weighted, targets: *four}
  sticky: {strategy: weighted, sticky: {by: consumer}, targets: *four}
  latency: {strategy: latency, targets: *four}
  cost: {strategy: cost, targets: *four}
  complexity: {strategy: complexity, targets: *four}
  inner: {strategy: weighted, targets: [{model: three/m}, {model: four/m}]}
  nested: {targets: [{model: one/m}, {model: two/m}, {model: inner}]}
  split: {strategy: weighted, targets: [{model: one/m, weight: 70}, {model: two/m, weight: 25},
                                        {model: three/m, weight: 5}]}
consumers: [{name: bench, keys: [{env: BENCH_KEY}]}]
telemetry: {access_log: "off"}
"""
CHAINS = ("same", "changing", "weighted", "sticky", "latency", "cost", "complexity", "nested")


def decider() -> Decide:
    """Runs the deciding stages for one request again and again."""
    os.environ["BENCH_KEY"] = KEY
    loaded = config.parse(_CHAIN)
    build = pipeline.build(loaded, Services(open_counters("memory:"), Telemetry(loaded)))
    stages = [stage for stage, *_ in build.on_request._stages if type(stage).__name__ in _STAGES]  # noqa: SLF001
    for name in ("one", "two", "three", "four"):
        build.services.history.learn(f"{name}/{name}/m", "ok", size=500, first_byte=0.1)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "word " * 20}], "temperature": 1, "seed": 5}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    exchange = Exchange("0" * 32, ClientRequest(RequestHead("POST", PATH, headers)))
    asyncio.run(build.on_headers(exchange))
    exchange.request.body = json.dumps({"model": "same", **body}).encode()
    asyncio.run(build.on_request(exchange))

    def decide(model: str) -> Sequence[Any]:
        exchange.request.ask.model = model
        exchange.route.skipped.clear()
        exchange.request.edits.clear()
        for stage in stages:
            stage(exchange)
        return exchange.route.targets

    return decide


def decisions(decide: Decide, count: int) -> None:
    row("Route, Authorize, Select, Forward; chain of four", "CPU, µs")
    for name in CHAINS:
        times = []
        for _ in range(20):  # the least disturbed of many rounds
            start = time.process_time()
            for _ in range(count // 20):
                decide(name)
            times.append((time.process_time() - start) / (count // 20))
        row(f"  {name}", f"{min(times) * 1e6:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--full", action="store_true", help="the split through Envoy too")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    decide = decider()
    decisions(decide, 20_000 // scale)
    split("decided", split_decided(decide, 20_000), 20_000)
    total = 10_000 // scale
    with bench(settings=settings(total), mocks=MOCKS) as what:
        for name in ("same", "renamed", "split"):
            asyncio.run(load.run(what.gateway, load.request(name), total=100, concurrency=4))  # warm up
        cost(what, 500 // scale)
        latency(what)
        if options.full:
            split("sent", split_sent(what, 20_000 // scale), 20_000 // scale)
        faults(what, total)


if __name__ == "__main__":
    main()

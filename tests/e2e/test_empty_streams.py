"""Streams of nothing, of tiny events, and compressed far below their size, through a real Envoy."""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from bench.patterns import BAR, Cost, pace, patterns
from bench.patterns import measured as costs_of
from tests.e2e import noise
from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, measured, run_gateway
from tests.e2e.scripted import Scripted, endless, head
from tests.e2e.test_large_bodies import memory
from tests.samples import some

pytestmark = pytest.mark.alone  # it measures time and memory

YAML = """
providers:
  noisy: {kind: mock, base_url: "%s/v1"}
  other: {kind: anthropic, base_url: "%s/v1"}
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
models: {noisy: {provider: noisy}, translated: {provider: other}, stub: {provider: sandbox}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets: [{name: t, unit: tokens, limit: 1000000000, window: day}]
stores: {counters: "memory:", ledger: "memory:"}
limits: {stream_empty: %s}
"""
LOUD = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
%smodels:
  stub: {provider: sandbox}
%sconsumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets: [{name: t, unit: tokens, limit: 1000000000, window: day}]
stores: {counters: "memory:", ledger: "memory:"}
limits: {stream_empty: 1GiB}
"""
STREAMS = {
    "blank lines": b"\n",
    "comments": b": ping\n\n",
    "no key": b"data: {}\n\n",
    "tiny events": b'data: {"a":1}\n\n',
    "tiny events of content": b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
    "tiny events that vary": b"".join(
        b'data: {"id":"%d","choices":[{"index":%d,"delta":{"content":"a"}}]}\n\n' % (number, number % 2)
        for number in range(1_000)
    ),
}
ROUNDS, REQUESTS = 2, 250  # few streams that last: the moment in which one begins is not what is measured
SLOW = 0.02  # seconds
BESIDE = 2
"""The 99th percentile of others beside such a stream, in multiples of theirs without it."""


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.exhaustive)])
def test_no_pattern_of_bytes_without_a_key_costs_more_than_the_bar(count: int) -> None:
    """`python -m bench.patterns` prints the table. Blank lines took 1,604 ms a MiB, comments 625."""
    without = [one for one in patterns(60) if not keyed(one)]
    assert len(without) > 1_000
    assert above_the_bar(costs_of(some(without, count), 1 << 16), 1 << 16) == []


@pytest.mark.parametrize("count", [15, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_the_smallest_events_cost_no_more_than_the_bar_either(count: int) -> None:
    """Events of one letter took 85 ms a MiB for their reader, 110 for a translation and 900 under guardrails. A whole
    MiB of each: the first slices teach the framing the events.
    """
    smallest = [one for one in patterns(0) if keyed(one)]
    assert above_the_bar(costs_of(some(smallest, count), 1 << 20), 1 << 20) == []


def keyed(pattern: tuple[bytes, str]) -> bool:
    """True for a pattern whose events have a key."""
    return Cost(*pattern, 0, 0.0, 0.0, 0.0, 0.0).keyed


def above_the_bar(costs: Iterable[Cost], size: int) -> list[str]:
    """The costs above the bar. A slower or busier machine gets a higher one: it grows with the time of a fixed work."""
    found = []
    for slow in [cost for cost in costs if cost.worst > BAR]:
        before = pace()
        [cost] = costs_of([(slow.pattern, slow.kind)], size)
        now = max(1.0, before, pace())
        if cost.worst > BAR * now:
            found.append(f"{cost} at pace {now:.1f}")
    return found


def reading(gateway: Gateway, model: str, sizes: list[int]) -> AbstractContextManager[None]:
    """A client that reads a stream while the block runs. Adds the bytes that it has read."""
    at = urlsplit(gateway.url)
    body = json.dumps(chat_body(model, stream=True)).encode()
    asked = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    assert at.hostname is not None
    assert at.port is not None
    return noise.reading(at.hostname, at.port, asked + body, sizes)


def latencies(gateway: Gateway) -> list[float]:
    """Seconds of small requests, one after the other."""
    found = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        assert gateway.chat().status_code == 200
        found.append(time.perf_counter() - begun)
    return found


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with providers that send each of `STREAMS` without end, in the order of `STREAMS`."""
    with ExitStack() as stack:
        patterns = [pattern * max(1, 65_536 // len(pattern)) for pattern in STREAMS.values()]
        urls = [stack.enter_context(noise.sending(pattern)) for pattern in patterns]
        kinds = {"noisy": '{kind: mock, base_url: "%s/v1"}', "translated": '{kind: anthropic, base_url: "%s/v1"}'}
        named = {f"{model}-{at}": kind % url for at, url in enumerate(urls) for model, kind in kinds.items()}
        providers = "".join(f"  {name}: {kind}\n" for name, kind in named.items())
        models = "".join(f"  {name}: {{provider: {name}}}\n" for name in named)
        yaml = LOUD % (providers, models)
        folder = tmp_path_factory.mktemp("loud")
        gateway = stack.enter_context(contextmanager(run_gateway)(folder, yaml, ("sandbox",), {}))
        with reading(gateway, "noisy-0", []):
            latencies(gateway)  # the first requests open connections, and the first count of text loads the tokenizer
        yield gateway


@pytest.mark.parametrize("model", ["noisy", "translated"])
@pytest.mark.parametrize("at", range(len(STREAMS)), ids=STREAMS)
def test_others_are_served_while_a_provider_sends_nothing_as_fast_as_it_can(loud: Gateway, at: int, model: str) -> None:
    """Others got 2 answers in 10 s."""
    before, then = _percentiles(loud, f"{model}-{at}", [])
    assert then < BESIDE * before


def _percentiles(gateway: Gateway, model: str, sizes: list[int]) -> tuple[float, float]:
    """The 99th percentiles of small requests without and with the stream beside them, in seconds."""
    eventually(lambda: max(latencies(gateway)) < SLOW)

    def percentiles() -> tuple[float, float]:
        quiet: list[float] = []
        beside: list[float] = []
        for _ in range(ROUNDS):
            quiet += latencies(gateway)
            with reading(gateway, model, sizes):
                beside += latencies(gateway)
        before, then = (statistics.quantiles(each, n=100)[98] for each in (quiet, beside))
        told = f"p99 {before * 1e3:.1f} ms, beside the stream {then * 1e3:.1f} ms"
        print(f"{model}: {told}; {sum(sizes) >> 10} KiB of it")  # noqa: T201 - shown with -s
        return before, then

    return measured(percentiles, lambda found: found[1] < BESIDE * found[0])


def test_a_stream_that_carries_nothing_ends(start: Callable[..., Gateway], provider: Scripted) -> None:
    provider.script = endless(head("text/event-stream"), b": ping\n\n" * 8_000)
    gateway = start(YAML % (provider.url, provider.url, "1MiB"))
    for model in ("noisy", "translated"):
        with gateway.stream(model) as answer:
            lines = [line for line in answer.iter_lines() if line.startswith("data:")]
        error = json.loads(lines[-1].removeprefix("data: "))["error"]
        assert "without content" in error["message"]
        assert gateway.last(lambda entry, model=model: entry["model"] == model)["error"], "the record tells it"
    assert provider.sent < 32 << 20, "two streams end after 1 MiB each; the kernel's buffers hold up to 10 MiB of each"


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_a_compressed_answer_takes_the_memory_of_what_is_in_use(
    start: Callable[..., Gateway], provider: Scripted, kind: str
) -> None:
    """504 kB became 98 MB in the processor, also for a client that did not read."""
    text = b'data: {"choices":[{"delta":{"content":"%d ' + b"word " * 80 + b'"}}]}\n\n'
    body = b"".join(text % number for number in range((96 << 20) // len(text)))
    packed = gzip.compress(body if kind == "text/event-stream" else b"[%s]" % body, 9)
    assert 100 < len(body) / len(packed) < 200, "a higher ratio is refused"
    provider.answer(head(kind, more=[("content-encoding", "gzip"), ("content-length", str(len(packed)))]) + packed)
    gateway = start(YAML % (provider.url, provider.url, "1GiB"))
    assert gateway.chat().status_code == 200
    processes = gateway.envoy.pid, gateway.process.pid
    before = [memory(pid) for pid in processes]
    with gateway.stream("noisy") as answer:
        read = 0
        for data in answer.iter_raw():
            read += len(data)
            if read > 8 << 20:
                break
    grown = [memory(pid) - then for pid, then in zip(processes, before, strict=True)]
    print(f"{len(packed) >> 10} KiB to {len(body) >> 20} MiB: MB of Envoy and the processor {grown}")  # noqa: T201 - shown with -s
    assert grown[1] < (30 if kind == "text/event-stream" else 50), "a plain answer is held up to buffered_response"

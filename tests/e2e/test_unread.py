"""Streamed answers that pass unread (`usage.mode: log`), against the same answers read from the body.

Two gateways ask one provider, which says whatever a test wants. What both record of an exchange must be the same, but
where Envoy cannot know it: then the one that reads nothing charges no less.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, eventually, measured, run_gateway
from tests.e2e.raw import connect, message
from tests.e2e.scripted import Script, Scripted, head, plain
from tests.unread.streams import event, stream
from tests.unread.test_windows import by_event, pieces

OF_URL = "outlier_detection: {consecutive_5xx: 10000}"
YAML = f"""
providers:
  openai: {{kind: openai, base_url: "URL/v1", {OF_URL}}}
  anthropic: {{kind: anthropic, base_url: "URL/v1", {OF_URL}}}
  broken: {{kind: openai, base_url: "http://127.0.0.1:9/v1", {OF_URL}}}
models:
  oai: {{provider: openai}}
  claude: {{provider: anthropic, model: claude-sonnet-4-5}}
  broken: {{provider: broken}}
virtual_models:
  chain: {{targets: [{{model: broken}}, {{model: oai}}]}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: capped, keys: [{{env: CAPPED_KEY}}]}}
  - {{name: usual, keys: [{{env: USUAL_KEY}}]}}
budgets:
  - {{name: requests, unit: requests, limit: 1000000, window: day}}
  - {{name: tokens, match: {{consumer: capped}}, unit: tokens, limit: 900000000, window: hour}}
  - {{name: usual, match: {{consumer: usual}}, unit: tokens, limit: 900000000, window: hour, reserve: expected}}
limits: {{output_tokens: 2000}}
stores: {{counters: "memory:"}}
usage: {{MODE}}
"""
KEYS = {"CAPPED_KEY": "sk-gw-capped", "USUAL_KEY": "sk-gw-usual"}
PATHS = {
    "openai_chat": ("/v1/chat/completions", {"model": "oai", "messages": [{"role": "user", "content": "Hello there"}]}),
    "openai_completions": ("/v1/completions", {"model": "oai", "prompt": "Hello there"}),
    # Otherwise the gateway reads the answer to keep its turn of the conversation.
    "openai_responses": ("/v1/responses", {"model": "oai", "input": "Hello there", "store": False}),
    "anthropic_messages": (
        "/v1/messages",
        {"model": "claude", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 5000},
    ),
}
ASKED = {"stream_options": {"include_usage": True}}
FIELDS = (
    *("status", "error", "outcome", "complete", "attempts", "provider", "provider_model", "response_model"),
    *("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cache_write_tokens", "usage_source"),
    *("cost_usd", "finish_reasons", "stream"),
)
each_api = pytest.mark.parametrize("api", PATHS)

Two = tuple[Gateway, Gateway]


def yaml(provider: Scripted, mode: str) -> str:
    return YAML.replace("URL", provider.url).replace("MODE", mode)


@pytest.fixture(scope="module")
def two(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A gateway that reads answers, and one that need not."""
    body = run_gateway(tmp_path_factory.mktemp("body"), yaml(provider, "mode: body"), (), KEYS)
    log = run_gateway(
        tmp_path_factory.mktemp("log"),
        yaml(provider, "mode: log, trust_output_limits: true, log_interval: 1s"),
        (),
        KEYS,
    )
    yield next(body), next(log)
    for running in (body, log):
        next(running, None)


def body_of(api: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    path, body = PATHS[api]
    asked = ASKED if api in ("openai_chat", "openai_completions") else {}
    return path, {**body, "stream": True, **asked, **fields}


def ask(gateway: Gateway, api: str, key: str = KEY, **fields: Any) -> httpx.Response:
    path, body = body_of(api, **fields)
    return gateway.post(path, {name: value for name, value in body.items() if value is not None}, key=key)


def unread(gateway: Gateway, outcome: str = "told") -> float:
    return gateway.metric("extproc_unread_total", outcome=outcome)


def record(gateway: Gateway, answer: httpx.Response) -> dict[str, Any]:
    entry = gateway.exchange_of(answer)
    return {name: entry.get(name) for name in FIELDS}


def answering(*parts: bytes, chunked: bool = False, more: Sequence[tuple[str, str]] = (), pace: float = 0.0) -> Script:
    def script() -> Iterator[bytes]:
        framing = [("transfer-encoding", "chunked")] if chunked else []
        yield head("text/event-stream", more=[*framing, *more])
        for part in parts:
            if pace:
                time.sleep(pace)
            yield b"%x\r\n%b\r\n" % (len(part), part) if chunked else part

    return script


def same(two: Two, api: str, *, passes: bool = True, **fields: Any) -> dict[str, Any]:
    """The record of an answer, once both gateways gave it byte for byte and recorded it alike."""
    body, log = two
    before = unread(log)
    answers = [ask(gateway, api, **fields) for gateway in two]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].content == answers[1].content
    headers = [{name for name in answer.headers if name != "content-length"} for answer in answers]
    assert headers[0] == headers[1]
    records = [record(gateway, answer) for gateway, answer in zip(two, answers, strict=True)]
    if records[0]["usage_source"] == "estimated":  # the input is counted within a time limit
        assert min(found.pop("input_tokens") for found in records) > 0
    assert records[0] == records[1]
    assert unread(log) - before == passes
    assert unread(body) == 0
    return records[1]


# --- whole answers


@each_api
@pytest.mark.parametrize(
    ("words", "cut"), [(3, "bytes"), (3, "whole"), (40, "events"), (3000, "events"), (3000, "odd")]
)
def test_an_answer_is_recorded_as_if_it_were_read(api: str, words: int, cut: str, two: Two, provider: Scripted) -> None:
    data = stream(api, words, tool=words == 3)
    parts = {"whole": lambda: [data], "events": lambda: by_event(data), "bytes": lambda: pieces(data, 1)}
    provider.script = answering(*parts.get(cut, lambda: pieces(data, 997))())
    if api == "openai_responses" and words == 3000:  # its final event holds the whole answer: the reason is not kept
        answer = ask(two[1], api)
        assert record(two[1], answer)["usage_source"] == "provider"
        assert record(two[1], answer)["output_tokens"] == 77
        return
    entry = same(two, api)
    assert (entry["usage_source"], entry["input_tokens"], entry["output_tokens"]) == ("provider", 300, 77)


@each_api
@pytest.mark.parametrize("line", [b"\r\n", b"\r"])
def test_other_ends_of_lines(api: str, line: bytes, two: Two, provider: Scripted) -> None:
    provider.script = answering(*pieces(stream(api, 30).replace(b"\n", line), 333))
    assert same(two, api)["usage_source"] == "provider"


@each_api
def test_data_over_several_lines(api: str, two: Two, provider: Scripted) -> None:
    provider.script = answering(*pieces(stream(api, 30).replace(b',"', b',\ndata: "'), 333))
    assert same(two, api)["usage_source"] == "provider"


@each_api
def test_without_usage_the_text_is_counted(api: str, two: Two, provider: Scripted) -> None:
    provider.script = answering(stream(api, 20, usage=False))
    assert same(two, api)["usage_source"] == "estimated"


def test_usage_that_comes_early(two: Two, provider: Scripted) -> None:
    usage = event({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    word = event({"model": "m", "choices": [{"index": 0, "delta": {"content": " word"}}]})
    provider.script = answering(*[word] * 300, usage, *[word] * 300)
    assert same(two, "openai_chat")["usage_source"] == "estimated"  # of text that came later it said nothing


def test_what_is_no_json(two: Two, provider: Scripted) -> None:
    provider.script = answering(b"data: oops\n\n" * 20)
    assert same(two, "openai_chat")["usage_source"] == "estimated"


def test_an_error_in_the_middle(two: Two, provider: Scripted) -> None:
    provider.script = answering(
        *by_event(stream("openai_chat", 5))[:4], event({"error": {"message": "x", "type": "server_error"}})
    )
    assert same(two, "openai_chat")["error"] == "provider_error"


def test_an_answer_without_a_body(two: Two, provider: Scripted) -> None:
    provider.script = answering()
    assert same(two, "openai_chat")["usage_source"] == "estimated"


def test_the_target_that_served_after_a_failover(two: Two, provider: Scripted) -> None:
    provider.script = answering(*by_event(stream("openai_chat", 20)))
    assert same(two, "openai_chat", model="chain")["attempts"] == 2


# --- answers that are read all the same


def test_plain_answers_are_read(two: Two, provider: Scripted) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    provider.script = lambda: [plain({"model": "m", "choices": [choice], "usage": usage})]
    assert same(two, "openai_chat", passes=False, stream=False, stream_options=None)["output_tokens"] == 4
    assert same(two, "openai_chat", passes=False)["output_tokens"] == 4  # asked to stream, and did not


@pytest.mark.parametrize("status", [400, 429, 503])
def test_errors_are_read(status: int, two: Two, provider: Scripted) -> None:
    provider.script = lambda: [plain({"error": {"message": "x"}}, status=status)]
    assert same(two, "openai_chat", passes=False)["status"] == status


def test_compressed_answers_are_read(two: Two, provider: Scripted) -> None:
    data = gzip.compress(stream("openai_chat", 20))
    provider.script = answering(data, more=[("content-encoding", "gzip")])
    assert same(two, "openai_chat", passes=False)["usage_source"] == "provider"


def test_answers_whose_usage_the_client_did_not_ask_for_are_read(two: Two, provider: Scripted) -> None:
    provider.script = answering(stream("openai_chat", 20))
    assert same(two, "openai_chat", passes=False, stream_options=None)["usage_source"] == "provider"


def test_translated_answers_are_read(two: Two, provider: Scripted) -> None:
    provider.script = answering(stream("anthropic_messages", 20))
    assert same(two, "openai_chat", passes=False, model="claude")["usage_source"] == "provider"


def test_a_provider_cannot_say_that_its_answer_is_followed(two: Two, provider: Scripted) -> None:
    data = gzip.compress(stream("openai_chat", 20))
    provider.script = answering(data, more=[("content-encoding", "gzip"), ("x-extproc-watched", "1")])
    assert same(two, "openai_chat", passes=False)["usage_source"] == "provider"


def test_budgets_that_hold_the_worst_let_answers_pass_where_limits_are_trusted(two: Two, provider: Scripted) -> None:
    provider.script = answering(stream("openai_chat", 20))
    assert same(two, "openai_chat", key="sk-gw-capped")["usage_source"] == "provider"


def test_budgets_that_hold_less_than_the_worst_have_answers_read(two: Two, provider: Scripted) -> None:
    """By now it is known how much the model usually writes."""
    provider.script = answering(stream("openai_chat", 20))
    for _ in range(40):
        ask(two[1], "openai_chat", key="sk-gw-usual")
    before = unread(two[1])
    answer = ask(two[1], "openai_chat", key="sk-gw-usual")
    assert record(two[1], answer)["usage_source"] == "provider"
    assert unread(two[1]) == before


# --- answers that break off


def leave(gateway: Gateway, api: str, events: int) -> dict[str, Any]:
    """Read so many events of an answer and leave. The record of the exchange."""
    path, body = body_of(api)
    data = json.dumps(body).encode()
    headers = [("host", "x"), ("authorization", f"Bearer {KEY}"), ("content-type", "application/json")]
    known = {entry["id"] for entry in gateway.exchanges()}
    with connect(gateway.url) as connection:
        connection.sendall(message(target=path, headers=[*headers, ("content-length", str(len(data)))], body=data))
        got = b""
        while got.partition(b"\r\n\r\n")[2].count(b"\n\n") < events and (more := connection.recv(65536)):
            got += more
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return gateway.last(lambda entry: entry["id"] not in known)


def no_less(read: dict[str, Any], passed: dict[str, Any]) -> None:
    """Both were charged about the same, and never less for passing unread."""
    for field in ("status", "error", "outcome", "complete", "usage_source", "provider", "attempts"):
        assert read[field] == passed[field], field
    if passed["usage_source"] == "provider":
        assert passed["input_tokens"] == read["input_tokens"]
    # Two in a hundred: the tokens of a text are judged by the part of it that was kept.
    assert passed["output_tokens"] >= 0.98 * read["output_tokens"]


@each_api
@pytest.mark.parametrize("events", [2, 60])
def test_a_client_that_leaves_is_charged_no_less(api: str, events: int, two: Two, provider: Scripted) -> None:
    parts = by_event(stream(api, 200))

    def script() -> Iterator[bytes]:
        yield head("text/event-stream")
        yield from parts[:events]
        time.sleep(0.3)
        for part in parts[events:]:
            time.sleep(0.01)
            yield part

    provider.script = script
    read, passed = (leave(gateway, api, events) for gateway in two)
    no_less(read, passed)
    assert passed["output_tokens"] <= 2 * read["output_tokens"] + 150
    assert passed["usage_source"] == "estimated"


@each_api
@pytest.mark.parametrize("events", [1, 60, -1])
def test_a_provider_that_breaks_off(api: str, events: int, two: Two, provider: Scripted) -> None:
    """In the middle of an answer of chunks, which has no end then; or behind the last event."""
    parts = by_event(stream(api, 200))

    def script() -> Iterator[bytes]:
        yield from answering(*parts[: events if events > 0 else len(parts)], chunked=True, pace=0.002)()
        time.sleep(0.2 if events < 0 else 0)  # Envoy drops pieces that it reads together with the break

    provider.script = script
    records = []
    for gateway in two:
        known = {entry["id"] for entry in gateway.exchanges()}
        with suppress(httpx.RemoteProtocolError):
            ask(gateway, api)
        records.append(gateway.last(lambda entry, known=known: entry["id"] not in known))  # type: ignore[misc]
    no_less(*records)
    if events < 0:
        assert (records[1]["input_tokens"], records[1]["output_tokens"]) == (300, 77)


# --- time


@pytest.mark.alone  # it measures time
def test_times_are_envoys(two: Two, provider: Scripted) -> None:
    parts = by_event(stream("anthropic_messages", 10))
    provider.script = answering(*parts, pace=0.05)

    text = 50 * (len(parts) - 4)  # milliseconds; it begins in the third event

    def ask_both() -> list[tuple[float, float]]:
        entries = [gateway.exchange_of(ask(gateway, "anthropic_messages")) for gateway in two]
        return [(entry["first_token_ms"], entry["duration_ms"]) for entry in entries]

    def hold(times: list[tuple[float, float]]) -> bool:
        (read_first, read), (passed_first, passed) = times
        alike = abs(passed_first - read_first) <= 60 and abs(passed - read) <= 200
        return alike and all(0 < first <= whole - text for first, whole in times)

    times = measured(ask_both, hold)
    assert hold(times), times
    assert two[1].metric("gen_ai_server_time_to_first_token_seconds_count") > 0


# --- Envoy's word


SMALL = """
providers:
  openai: {kind: openai, base_url: "URL/v1"}
models:
  oai: {provider: openai}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
budgets:
  - {name: tokens, unit: tokens, limit: 900000, window: hour}
  - {name: at-once, unit: concurrency, limit: 3}
limits: {output_tokens: 2000, lease: 1s}
stores: {counters: "memory:"}
usage: {mode: log, trust_output_limits: true, log_interval: 1s}
"""


@contextmanager
def streaming(gateway: Gateway, **fields: Any) -> Iterator[httpx.Response]:
    path, body = body_of("openai_chat", **fields)
    headers = {"authorization": f"Bearer {KEY}"}
    with gateway.http.stream("POST", gateway.url + path, json=body, headers=headers) as answer:
        yield answer


def test_an_answer_that_goes_on_is_not_settled_and_keeps_its_lease(
    start: Callable[..., Gateway], provider: Scripted
) -> None:
    parts = by_event(stream("openai_chat", 36))
    provider.script = answering(*parts, pace=0.25)  # longer than three reports, and than several leases
    gateway = start(SMALL.replace("URL", provider.url), ())
    with streaming(gateway) as answer:
        pieces = answer.iter_raw()
        began, size = time.monotonic(), 0
        while time.monotonic() - began < 4:
            size += len(next(pieces))
        assert gateway.exchanges() == []
        assert gateway.metric("extproc_exchanges_in_flight") == 1
        size += sum(map(len, pieces))
    assert size == sum(map(len, parts))
    entry = gateway.last()
    assert (entry["usage_source"], entry["output_tokens"], entry["complete"]) == ("provider", 77, True)
    assert unread(gateway) == 1
    assert gateway.metric("extproc_leases_expired_total") == 0
    assert gateway.metric("extproc_exchanges_in_flight") == 0


def test_an_answer_of_which_envoy_says_no_more_costs_what_was_held(
    start: Callable[..., Gateway], provider: Scripted
) -> None:
    provider.script = answering(*by_event(stream("openai_chat", 20)), pace=0.5)
    gateway = start(SMALL.replace("URL", provider.url), ())
    assert gateway.envoy is not None
    with suppress(httpx.HTTPError), streaming(gateway) as answer:
        for _ in answer.iter_raw():
            gateway.envoy.kill()
    entry = gateway.last()
    assert (entry["output_tokens"], entry["usage_source"], entry["error"]) == (2000, "estimated", "incomplete")
    assert unread(gateway, "untold") == 1
    eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == 0)


MANY = """
providers:
  openai: {kind: openai, base_url: "URL/v1", outlier_detection: {consecutive_5xx: 10000}}
models:
  oai: {provider: openai}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
budgets:
  - {name: tokens, unit: tokens, limit: 900000000, window: total}
  - {name: at-once, unit: concurrency, limit: 1000}
stores: {counters: "memory:", ledger: "sqlite:ledger.db"}
usage: {mode: log, trust_output_limits: true, log_interval: 1s}
"""


def test_many_at_once_and_some_that_leave_are_each_settled_once(
    start: Callable[..., Gateway], provider: Scripted
) -> None:
    """Most entries come before or with the answer's headers: the answers are short."""
    whole = stream("openai_chat", 20)
    turn = itertools.count()

    def script() -> Iterator[bytes]:
        yield head("text/event-stream")
        if next(turn) % 3:
            yield whole
            return
        for part in by_event(whole):
            yield part
            time.sleep(0.02)

    provider.script = script
    gateway = start(MANY.replace("URL", provider.url), ())
    path, body = body_of("openai_chat", max_tokens=500)
    headers = {"authorization": f"Bearer {KEY}"}

    async def one(http: httpx.AsyncClient, number: int) -> int:
        if number % 4:
            answer = await http.post(gateway.url + path, json=body)
            assert answer.content == whole
            return answer.status_code
        async with http.stream("POST", gateway.url + path, json=body) as answer:
            async for _ in answer.aiter_raw():
                break
        return answer.status_code

    async def all_of_them() -> list[int]:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(timeout=60, headers=headers, trust_env=False, limits=limits) as http:
            return await asyncio.gather(*(one(http, number) for number in range(240)))

    assert asyncio.run(all_of_them()) == [200] * 240
    eventually(lambda: len(gateway.exchanges()) == 240)
    entries = gateway.exchanges()
    assert (unread(gateway), unread(gateway, "untold")) == (240, 0)
    assert {entry["usage_source"] for entry in entries} <= {"provider", "estimated"}
    assert all((entry["output_tokens"] == 77) is (entry["usage_source"] == "provider") for entry in entries)
    assert sum(entry["complete"] for entry in entries) >= 180
    assert gateway.metric("extproc_exchanges_in_flight") == 0
    tokens, *_ = gateway.http.get(gateway.admin + "/budgets").json()["data"]
    charged = sum(entry["input_tokens"] + entry["output_tokens"] for entry in entries)
    assert (tokens["scopes"][0]["settled"], tokens["scopes"][0]["reserved"]) == (f"{charged}", "0")

    def rows() -> int:
        return int(gateway.http.get(gateway.admin + "/usage").json()["total"]["requests"])

    assert eventually(lambda: rows() >= 240)  # a thread writes them
    assert rows() == 240


DURABLE = """
providers:
  openai: {kind: openai, base_url: "URL/v1"}
models:
  oai: {provider: openai}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
budgets:
  - {name: tokens, unit: tokens, limit: 900000, window: total}
limits: {lease: 1s}
stores: {counters: "sqlite:counters.db", ledger: "sqlite:ledger.db"}
usage: {mode: log, trust_output_limits: true, log_interval: 1s}
"""


def test_a_processor_that_dies_leaves_the_answer_alone_and_its_lease_charges_it(
    start: Callable[..., Gateway], provider: Scripted
) -> None:
    parts = by_event(stream("openai_chat", 20))
    provider.script = answering(*parts, pace=0.1)
    gateway = start(DURABLE.replace("URL", provider.url), ())
    with streaming(gateway, max_tokens=700) as answer:
        pieces = answer.iter_raw()
        got = [next(pieces)]
        gateway.process.kill()
        gateway.process.wait()
        got += pieces
    assert b"".join(got) == b"".join(parts)
    again = subprocess.Popen(gateway.process.args, cwd=gateway.file.parent, env={**os.environ, "EXTPROC_DEMO_KEY": KEY})
    try:
        rows = eventually(lambda: _rows(gateway.file.parent / "ledger.db"))
    finally:
        again.kill()
        again.wait()
    [(source, charges)] = rows
    assert source == "expired"
    assert json.loads(charges)["tokens"] >= 700  # what was held


def _rows(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as ledger, suppress(sqlite3.OperationalError):
        return ledger.execute("select usage_source, charges from exchanges").fetchall()
    return []

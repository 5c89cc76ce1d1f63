"""Hostile clients and mistakes of operators in budgets, labels and the ledger, through a real Envoy."""

from __future__ import annotations

import csv
import io
import json
import random
import resource
import socket
import sqlite3
import string
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import raw
from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, run_gateway
from tests.e2e.scripted import Scripted, head, plain, stream
from tests.e2e.test_abuse_answers import DONE, USED, chunk, completion, play

NAMES = ("mallory", "alice", "bob", "rich")
YAML = """
providers:
  openai: {kind: openai, base_url: "URL/v1", outlier_detection: {consecutive_5xx: 10000}}
  sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
models:
  oai: {provider: openai, price: {input: 1, output: 2}}
  stub: {provider: sandbox, price: {input: 1, output: 2}}
  "any/*": {provider: sandbox}
attribution: {metrics: [agent]}
consumers:
  - {name: demo, team: red, keys: [{env: EXTPROC_DEMO_KEY}], labels: {project: fixed, none: ""}}
  - {name: mallory, keys: [{env: KEY_mallory}]}
  - {name: alice, team: red, keys: [{env: KEY_alice}]}
  - {name: bob, keys: [{env: KEY_bob}]}
  - {name: rich, keys: [{env: KEY_rich}]}
teams: {red: {}}
budgets:
  - {name: runs, match: {consumer: "*l*"}, per: [consumer, label.run], unit: requests, limit: 4, window: day,
     max_scopes: 6}
  - {name: three, match: {consumer: demo}, per: [label.a, label.b, label.c], unit: requests, limit: 100000, window: day}
  - {name: own, per: [consumer], unit: requests, limit: 100000, window: day}
  - {name: tokens, match: {consumer: demo}, unit: tokens, limit: 900000000, window: day}
limits: {request_body: 1MiB}
stores: {counters: "memory:", ledger: "sqlite:ledger.db"}
"""


@pytest.fixture(scope="module")
def running(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = {f"KEY_{name}": key(name) for name in NAMES}
    yaml = YAML.replace("URL", provider.url)
    yield from run_gateway(tmp_path_factory.mktemp("abuse"), yaml, ("sandbox",), keys)


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.reset()
    return running


def key(name: str) -> str:
    return f"sk-gw-{name}"


def rows(gateway: Gateway) -> int:
    with closing(sqlite3.connect(gateway.file.parent / "ledger.db")) as ledger:
        return int(ledger.execute("SELECT count(*) FROM exchanges").fetchone()[0])


def all_rows(gateway: Gateway) -> int:
    """The same, with those of every request so far."""
    ours = ("extproc_exchanges_in_flight", "extproc_ledger_queued")
    eventually(lambda: [gateway.metric(name) for name in ours] == [0, 0])
    return rows(gateway)


def charges(gateway: Gateway, id: str) -> dict[str, int]:
    """The charges of an exchange in the ledger."""
    with closing(sqlite3.connect(gateway.file.parent / "ledger.db")) as ledger:
        found = ledger.execute("SELECT charges FROM exchanges WHERE id = ?", (id,)).fetchone()
    return json.loads(found[0]) if found else {}


def scopes(gateway: Gateway, name: str) -> dict[str, dict[str, Any]]:
    [found] = gateway.http.get(f"{gateway.admin}/budgets/{name}").json()["data"]
    return {entry["scope"]: entry for entry in found["scopes"]}


# --- labels


LABELS: dict[str, bytes] = {
    "unicode": "Zoë \N{GRINNING FACE} 日本".encode(),
    "wide": "\N{GRINNING FACE}".encode() * 400,
    "no utf-8": b"\xff\xfe\x80",
    "percent": b"%2A%00%",
    "apart": b"x:label.b=y:consumer=alice",
    "any": b"*",
    "of another": b"own:consumer=alice",
    "long": b"x" * 8000,
    "sql": b"'; DROP TABLE exchanges; --",
    "path": b'$."a"[*]',
    "formula": b'=HYPERLINK("http://x")',
    "html": b"<img src=x onerror=alert(1)>",
    "escape": b"a\x1b[31mb",
    "tab": b"a\tb",
}


@pytest.mark.parametrize("name", LABELS)
def test_a_hostile_label_value_changes_only_the_label(name: str, gateway: Gateway) -> None:
    before = scopes(gateway, "own")
    value = LABELS[name]
    headers = [(f"x-ai-{label}".encode(), value) for label in ("a", "b", "c")]
    base = [(b"host", b"x"), (b"authorization", f"Bearer {KEY}".encode()), (b"connection", b"close")]
    body = json.dumps(chat_body("stub")).encode()
    size = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    answer = raw.send(gateway.url, raw.message(headers=[*base, *size, *headers], body=body))
    if name == "escape":  # not a valid HTTP header
        assert answer is None or answer.status == 400
        return
    assert answer is not None
    assert answer.status == 200, answer.body
    entry = gateway.last(lambda entry: entry["request_id"] == answer.headers["x-request-id"])
    assert (entry["consumer"], entry["team"]) == ("demo", "red")
    kept = entry["labels"]["a"]
    assert len(kept.encode()) <= 256
    assert value.decode(errors="replace").startswith(kept)
    after = scopes(gateway, "own")
    changed = {scope for scope in after if after[scope] != before.get(scope)}
    assert changed == {"own:consumer=demo"}
    assert any(entry["fields"]["label.a"] == kept for entry in scopes(gateway, "three").values())
    assert "alert(1)" not in json.dumps(gateway.seen("sandbox")), "labels do not leave"
    eventually(lambda: "own:consumer=demo" in charges(gateway, entry["id"]))


def test_a_label_named_like_a_fact_does_not_replace_it(gateway: Gateway) -> None:
    forged = {"consumer": "alice", "team": "blue", "key": "alice#0", "model": "x", "provider": "x", "cost": "0"}
    headers = {f"x-ai-{name}": value for name, value in forged.items()}
    headers |= {"x-ai-project": "mine", "x-ai-none": "mine", "x-ai-": "x", "X-AI-Agent": "y"}
    entry = gateway.exchange_of(gateway.chat("stub", headers=headers))
    assert (entry["consumer"], entry["team"], entry["provider"]) == ("demo", "red", "sandbox")
    assert entry["labels"] == forged | {"project": "fixed", "agent": "y"}
    assert "own:consumer=alice" not in scopes(gateway, "own")
    assert gateway.chat("stub", headers={"x-ai_agent": "z"}).status_code == 400


@pytest.mark.parametrize("count", [40, 1000])
def test_labels_are_limited_in_number(count: int, gateway: Gateway) -> None:
    before = all_rows(gateway)
    answer = gateway.chat("stub", headers={f"x-ai-l{number}": "v" for number in range(count)})
    if count == 40:
        assert len(gateway.exchange_of(answer)["labels"]) == 32 + 1  # and the label that the settings fix
    else:
        assert (answer.status_code, all_rows(gateway)) == (431, before)


def test_a_label_sent_twice_is_one_label(gateway: Gateway) -> None:
    headers = [("x-ai-run", "1"), ("x-ai-run", "2"), ("authorization", f"Bearer {KEY}")]
    answer = httpx.post(gateway.base_url + "/chat/completions", json=chat_body("stub"), headers=headers)
    assert gateway.exchange_of(answer)["labels"]["run"] == "1,2"


def test_a_consumer_that_invents_labels_spends_only_its_own_budget(gateway: Gateway) -> None:
    def ask(who: str, run: str) -> int:
        return gateway.chat("stub", key=key(who), headers={"x-ai-run": run}).status_code

    assert ask("alice", "before") == 200
    spent = Counter(ask("mallory", f"r{number}") for number in range(30))
    assert spent == {200: 5 + 4, 402: 21}, "five counts of its own, and one for all the others"
    assert [ask("alice", "before") for _ in range(4)] == [200, 200, 200, 402]
    assert [ask("alice", "after") for _ in range(5)] == [200] * 4 + [402]
    assert len(scopes(gateway, "runs")) == 6 + 2


def test_invented_models_and_labels_add_few_series(gateway: Gateway) -> None:
    def ask(number: int) -> int:
        return gateway.chat(f"any/{number}", headers={"x-ai-agent": f"a{number}"}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(250))) == {200}
    seen = {
        dict(labels).get("gen_ai_request_model")
        for name, labels in gateway.metrics()
        if name == "gen_ai_server_request_duration_seconds_count"
    }
    assert len(seen) <= 200 + 3
    assert "other" in seen


# --- credentials


BAD_KEYS: dict[str, list[tuple[str, bytes]]] = {
    "none": [],
    "as a token": [("authorization", b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZW1vIn0.")],
    "a key as a token": [("authorization", f"Bearer {KEY}.{KEY}.{KEY}".encode())],
    "two in one": [("authorization", f"Bearer {KEY},Bearer {KEY}".encode())],
    "two headers": [("authorization", f"Bearer {KEY}".encode()), ("authorization", f"Bearer {KEY}".encode())],
    "two that differ": [("authorization", f"Bearer {KEY}".encode()), ("x-api-key", key("alice").encode())],
    "long": [("authorization", b"Bearer " + b"k" * 20_000)],
    "longer": [("authorization", b"Bearer " + b"k" * 65_536)],
    "basic": [("authorization", b"Basic " + KEY.encode())],
    "bytes": [("authorization", f"Bearer {KEY}".encode() + b"\xff")],
    "sql": [("authorization", b"Bearer ' OR 1=1 --")],
    "its hash": [("x-api-key", b"hmac-sha256:" + b"0" * 64)],
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_request_without_a_valid_key_adds_no_row(name: str, gateway: Gateway) -> None:
    before = all_rows(gateway)
    with httpx.Client(verify=False, trust_env=False) as http:
        answers = [
            http.post(gateway.base_url + "/chat/completions", json=chat_body("stub"), headers=BAD_KEYS[name])
            for _ in range(30)
        ]
    assert {answer.status_code for answer in answers} == {431 if name == "longer" else 401}
    assert gateway.calls() == 0
    assert all_rows(gateway) == before


def test_a_repeated_request_is_charged_again(gateway: Gateway, provider: Scripted) -> None:
    """The same body and the same client request id: each exchange is charged."""
    play(provider, plain(completion()))
    before = int(scopes(gateway, "own").get("own:consumer=rich", {"settled": "0"})["settled"])
    headers = {"x-request-id": "11111111-1111-4111-8111-111111111111", "idempotency-key": "1"}
    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(gateway.chat, "oai", key=key("rich"), headers=headers) for _ in range(300)]
    assert {answer.result().status_code for answer in work} == {200}
    assert eventually(lambda: int(scopes(gateway, "own")["own:consumer=rich"]["settled"]) == before + 300)

    def total() -> Any:
        found = gateway.http.get(f"{gateway.admin}/usage?consumer=rich").json()["total"]
        return found if found["requests"] == 300 else None

    found = eventually(total)
    assert (found["input_tokens"], found["output_tokens"]) == (900, 1200)
    assert float(found["cost_usd"]) == pytest.approx(300 * (3 + 4 * 2) / 1e6)


# --- fields that affect the cost of a request


ODD = ["-1", "0", '"5"', "1e308", "1e400", "9223372036854775808", "true", "1.5", "[]", "{}", '""']


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n"])
def test_an_invalid_number_is_refused_and_free(field: str, gateway: Gateway) -> None:
    before = scopes(gateway, "tokens").get("tokens", {"settled": "0"})["settled"]
    for value in [*ODD, "1000000000000"]:
        text = json.dumps(chat_body("stub", **{field: 0})).replace(f'"{field}": 0', f'"{field}": {value}')
        answer = gateway.post(
            "/v1/chat/completions", content=text, headers={"content-type": "application/json"}, timeout=30
        )
        assert answer.status_code == 400, (value, answer.text)
        assert "input_tokens" not in gateway.exchange_of(answer)
    assert gateway.calls() == 0
    after = scopes(gateway, "tokens").get("tokens", {"settled": "0", "reserved": "0"})
    assert (after["settled"], after["reserved"]) == (before, "0")


@pytest.mark.parametrize(
    "options",
    [
        {"include_usage": False},
        {"include_usage": None},
        {},
        None,
        {"include_usage": False, "include_obfuscation": False},
        {"include_usage": "no"},
        {"include_usage": 0},
    ],
    ids=json.dumps,
)
def test_a_client_cannot_ask_for_a_stream_without_a_count(options: Any, gateway: Gateway, provider: Scripted) -> None:
    play(provider, stream(chunk(), DONE, USED))
    answer = gateway.chat("oai", stream=True, stream_options=options)
    assert answer.status_code == 200, answer.text
    assert provider.seen[0]["stream_options"]["include_usage"] is True
    assert gateway.exchange_of(answer)["usage_source"] == "provider"
    assert "prompt_tokens" not in answer.text


@pytest.mark.parametrize("options", ["x", [], 1], ids=json.dumps)
def test_stream_options_of_a_wrong_type_are_refused(options: Any, gateway: Gateway) -> None:
    assert gateway.chat("stub", stream=True, stream_options=options).status_code == 400
    assert gateway.calls() == 0


# --- clients that disconnect


def dense(size: int) -> str:
    """Text with far fewer than four letters per token."""
    return "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=size))


def leave(gateway: Gateway, text: str, when: Callable[[bytes], bool], **fields: Any) -> dict[str, Any]:
    """The record of a stream whose client disconnected as soon as `when` was true of the bytes received."""
    mark = f"leaves-{random.random()}"
    body = json.dumps(chat_body("oai", text, stream=True, **fields)).encode()
    headers = [
        *(("host", "x"), ("authorization", f"Bearer {KEY}"), ("content-type", "application/json")),
        *(("content-length", str(len(body))), ("x-ai-mark", mark)),
    ]
    with raw.connect(gateway.url) as connection:
        connection.sendall(raw.message(headers=headers, body=body))
        connection.settimeout(0.05)
        came, deadline = b"", time.monotonic() + 10
        while not when(came):
            assert time.monotonic() < deadline
            with suppress(TimeoutError):
                came += connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
    return gateway.last(lambda entry: entry.get("labels", {}).get("mark") == mark)


def slowly(*parts: bytes, pause: float = 0.3) -> Callable[[], Iterator[bytes]]:
    def script() -> Iterator[bytes]:
        for part in parts:
            yield part
            time.sleep(pause)

    return script


WORDS = stream(*[chunk("word ") for _ in range(40)], end=b"")
BEATS = [b": beat\n\n"] * 30


@pytest.mark.parametrize("text", ["prose", "dense"])
@pytest.mark.parametrize("when", ["before the head", "after the head", "in the middle", "before the count"])
def test_a_client_that_disconnects_mid_stream_is_charged_at_least_nine_tenths(
    when: str, text: str, gateway: Gateway, provider: Scripted
) -> None:
    """The estimate counts a token for a word of prose, or for two and a half letters of other text."""
    said, true = ("word " * 2000, 2000) if text == "prose" else (dense(6000), 2400)
    empty = head("text/event-stream")
    finish = stream(DONE, end=b"").removeprefix(empty)
    scripts = {
        "before the head": slowly(b"", *[b""] * 8, WORDS, *BEATS),
        "after the head": slowly(empty, *BEATS),
        "in the middle": slowly(WORDS, *BEATS),
        "before the count": slowly(WORDS + finish, *BEATS),
    }
    conditions: dict[str, Callable[[bytes], bool]] = {
        "before the head": lambda _came: bool(provider.seen),
        "after the head": lambda came: b"\r\n\r\n" in came,
        "in the middle": lambda came: came.count(b"word ") >= 40,
        "before the count": lambda came: b'"stop"' in came,
    }
    play(provider, scripts[when])
    entry = leave(gateway, said, conditions[when], max_tokens=500)
    written = {"before the head": 500, "after the head": 0}.get(when, 40)
    assert entry["usage_source"] == "estimated"
    assert entry["input_tokens"] >= 0.9 * true
    assert entry["output_tokens"] >= 0.9 * written
    assert entry["input_tokens"] <= len(said) + 1000


def test_a_client_that_disconnects_after_the_count_is_charged_the_count(gateway: Gateway, provider: Scripted) -> None:
    play(provider, slowly(stream(chunk(), DONE, USED, end=b""), *BEATS))
    entry = leave(gateway, "Hello", lambda came: b'"stop"' in came)
    assert (entry["input_tokens"], entry["output_tokens"], entry["usage_source"]) == (3, 4, "provider")


# --- providers that exceed the output limit


def test_output_far_beyond_its_limit_costs_what_was_held(gateway: Gateway, provider: Scripted) -> None:
    """A provider that ignores the limit of a request charges its consumer no more than was reserved."""
    play(provider, stream(chunk("word " * 10_000), end=b""))
    answer = gateway.chat("oai", stream=True, max_tokens=1)
    entry = gateway.exchange_of(answer)
    assert entry["usage_source"] == "estimated"
    # An event extends the reservation once at most, and its end may do so again.
    assert 1 <= entry["output_tokens"] <= 1 + 2 * 256


# --- operators


QUERIES = [
    "?group_by=label.'%3B%20DROP%20TABLE%20exchanges%3B--",
    "?group_by=label.%22%5D%29%2C%27x%27%29%3B--&label.%22=%22",
    "?group_by=label.$.a[*]&label.$=*",
    "?group_by=label.%F0%9F%98%80&label.%F0%9F%98%80=%F0%9F%98%80",
    "?group_by=" + ",".join(f"label.l{number}" for number in range(9)),
    "?group_by=consumer&group_by=consumer",
    "?group_by=consumer,consumer",
    "?" + "&".join("consumer=x" for _ in range(250)),
    "?" + "consumer=x&" * 600,
    "?consumer=" + "x" * 7000,
    "?consumer=" + "x" * 9000,
    "?consumer=%00",
    "?start=9999-12-31&end=0001-01-01",
    "?start=2026-13-45",
    "?start=-1&end=1e99",
    "?start=2026-01-01T00:00:00%2B99:99",
    "?resolution=second",
    "?status=1e3&limit=-1",
    "?limit=9999999999999999999",
    "?before='%20OR%201=1",
    "?format=xml",
    "?format=csv&format=json",
    "?outcome=%27",
    "?%ff=%fe",
    "?=&=&",
    "?label.=x",
]


@pytest.mark.parametrize("path", ["/usage", "/exchanges", "/budgets", "/grants", "/exchanges/x"])
def test_every_query_of_an_operator_gets_an_answer_or_a_reason(path: str, gateway: Gateway) -> None:
    assert gateway.chat().status_code < 500
    eventually(lambda: rows(gateway) > 0)
    for query in QUERIES:
        answer = gateway.http.get(gateway.admin + path + query)
        assert answer.status_code in (200, 400, 404, 414), (query, answer.status_code, answer.text)
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "code"}
    assert rows(gateway) > 0


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/usage", {"host": "evil.example"}, 421),
        ("GET", "/usage", {"host": "localhost.evil.example"}, 421),
        ("GET", "/usage", {"host": "127.0.0.1@evil.example"}, 421),
        ("GET", "/usage", {"host": ""}, 421),
        ("POST", "/grants", {"origin": "http://evil.example"}, 403),
        ("POST", "/grants", {"origin": "null"}, 403),
        ("POST", "/grants", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", "/grants", {"content-type": "text/plain"}, 415),
        ("DELETE", "/grants/x", {"origin": "http://evil.example"}, 403),
        ("PUT", "/grants", {}, 405),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, 404),
        ("GET", "//usage", {}, 404),
    ],
)
def test_foreign_hosts_origins_and_methods_are_refused_by_the_admin_port(
    method: str, path: str, headers: dict[str, str], status: int, gateway: Gateway
) -> None:
    grant = {"budget": "own", "scope": "own:consumer=demo", "amount": "1"}
    content = {"content": json.dumps(grant)} if method == "POST" else {}
    headers = {"content-type": "application/json", **headers}
    assert gateway.http.request(method, gateway.admin + path, headers=headers, **content).status_code == status
    assert gateway.http.get(gateway.admin + "/grants").json()["data"] == []


def test_text_of_clients_is_harmless_in_csv_and_terminal_output(gateway: Gateway) -> None:
    evil = ["=1+1", "+1", "-1", "@x", "\u202egnp", "a\u009b31mb", "<script>", '"\u2028x', "\u200b=1"]
    for value in evil:
        assert gateway.chat("stub", key=key("bob"), headers={"x-ai-run": value.encode()}).status_code in (200, 402)
    eventually(lambda: "script" in gateway.http.get(f"{gateway.admin}/usage?group_by=label.run&consumer=bob").text)
    text = gateway.http.get(f"{gateway.admin}/usage?group_by=label.run&consumer=bob&format=csv").text
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    command = [sys.executable, "-m", "extproc", "usage", "--url", gateway.admin, "--group-by", "label.run"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert shown.returncode == 0, shown.stderr
    assert all(letter.isprintable() or letter == "\n" for letter in shown.stdout)
    assert "<script>" in shown.stdout


def test_slow_and_many_clients_of_the_admin_port_do_not_slow_the_gateway(gateway: Gateway) -> None:
    where = httpx.URL(gateway.admin)
    assert where.port
    idle = [socket.create_connection((where.host, where.port)) for _ in range(100)]
    try:
        for number, connection in enumerate(idle):
            connection.sendall(b"POST /grants HTTP/1.1\r\nhost: localhost\r\n"[: number % 60])
        started = time.monotonic()
        assert {gateway.chat("stub").status_code for _ in range(20)} == {200}
        assert time.monotonic() - started < 5
    finally:
        for connection in idle:
            connection.close()
    eventually(lambda: gateway.http.get(gateway.admin + "/budgets").status_code == 200)


# --- changes under load


def test_settings_that_change_under_load_keep_counters_and_ledger_in_agreement(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Limits, names and windows change, one budget is removed. Each request is charged on the counts it began with."""
    yaml = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 1, output: 2}}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets: [FIRST]
stores: {counters: "memory:", ledger: "sqlite:ledger.db"}
"""
    first = "{name: a, unit: usd, limit: 100, window: month}"
    versions = [
        "{name: a, unit: usd, limit: 0, window: month}",
        "{name: b, per: [consumer], unit: requests, limit: 100000, window: day}, " + first,
        "{name: b, per: [consumer, label.run], unit: requests, limit: 100000, window: hour}",
        "{name: a, unit: tokens, limit: 1, window: month}",  # refused: nano-USD are no tokens
        "",
        first,
    ]
    gateway = start(yaml.replace("FIRST", first))
    grant = {"budget": "a", "scope": "a", "amount": "5"}
    assert gateway.http.post(gateway.admin + "/grants", json=grant).status_code == 201
    over = threading.Event()
    statuses: Counter[int] = Counter()

    def load() -> None:
        with httpx.Client(
            verify=False, trust_env=False, timeout=30, headers={"authorization": f"Bearer {KEY}"}
        ) as http:
            while not over.is_set():
                answer = http.post(gateway.base_url + "/chat/completions", json=chat_body("stub", max_tokens=5))
                statuses[answer.status_code] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    known, shown = gateway.file.read_text(), []
    for version in versions:
        before = gateway.metric("extproc_reloads_total")
        gateway.file.write_text(known.replace(first, version))
        eventually(lambda before=before: gateway.metric("extproc_reloads_total") > before)
        shown.append(len(gateway.http.get(gateway.admin + "/grants").json()["data"]))
    over.set()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 402}
    assert statuses[200] > 100
    assert gateway.metric("extproc_reloads_total", outcome="refused") == 1
    assert gateway.metric("extproc_internal_errors_total") == 0
    assert shown == [1, 1, 0, 0, 0, 1], "a grant is shown while its budget is there"
    eventually(lambda: rows(gateway) == sum(statuses.values()))
    [count] = scopes(gateway, "a").values()
    with closing(sqlite3.connect(gateway.file.parent / "ledger.db")) as ledger:
        query = "SELECT sum(each.value) FROM exchanges, json_each(charges) AS each WHERE each.key = 'a'"
        assert float(count["settled"]) == pytest.approx(ledger.execute(query).fetchone()[0] / 1e9)
    assert count["reserved"] == "0"


# --- a damaged ledger


def test_a_deleted_ledger_is_created_again(start: Callable[..., Gateway]) -> None:
    gateway = start(SMALL)
    assert gateway.chat("stub").status_code == 200
    eventually(lambda: rows(gateway) == 1)
    for file in gateway.file.parent.glob("ledger.db*"):
        file.unlink()
    assert gateway.chat("stub").status_code == 200
    eventually(lambda: gateway.http.get(gateway.admin + "/usage").json()["total"]["requests"] == 1)
    assert rows(gateway) == 1
    eventually(lambda: "the ledger's file was removed or replaced" in gateway.log.read_text())


def test_a_full_disk_stops_no_request(start: Callable[..., Gateway]) -> None:
    """No file of the processor can grow: neither its ledger nor its log."""
    gateway = start(SMALL)
    assert gateway.chat("stub").status_code == 200
    eventually(lambda: rows(gateway) == 1)
    serving = gateway.process.pid
    unlimited = resource.prlimit(serving, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        assert {gateway.chat("stub").status_code for _ in range(30)} == {200}
        eventually(lambda: gateway.metric("extproc_ledger_failures_total") >= 1)
        eventually(lambda: gateway.metric("extproc_ledger_queued") == 30)
        assert {gateway.chat("stub").status_code for _ in range(10)} == {200}
        assert gateway.http.get(gateway.admin + "/usage").json()["total"]["requests"] == 1
        assert gateway.metric("extproc_internal_errors_total") == 0
    finally:
        resource.prlimit(serving, resource.RLIMIT_FSIZE, unlimited)
    eventually(lambda: rows(gateway) == 41)
    assert gateway.metric("extproc_ledger_queued") == 0


SMALL = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 1, output: 2}}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets: [{name: all, unit: requests, limit: 1000, window: day}]
stores: {counters: "memory:", ledger: "sqlite:ledger.db"}
"""


def test_the_abuse_above_left_no_internal_error(running: Gateway) -> None:
    eventually(lambda: running.metric("extproc_exchanges_in_flight") == 0)
    assert running.metric("extproc_internal_errors_total") == 0
    assert running.metric("extproc_ledger_rows_total", outcome="refused") == 0

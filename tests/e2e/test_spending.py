"""Spending end to end: usage reports of consumers, grants of operators, streams that a budget ends, and recovery after
a kill.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import openai
import pytest

from extproc.money.ledger import open_ledger
from extproc.money.ledger.query import Query
from tests.e2e.conftest import Gateway, eventually, run_gateway

Start = Callable[..., Gateway]

HEAD = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
models:
  stub: {provider: sandbox, price: {input: 100, output: 200}}
  cheap: {provider: sandbox, price: {input: 1, output: 2}}
  dear: {provider: sandbox, price: {input: 100000, output: 200000}}
  free: {provider: sandbox, price: {input: 0, output: 0}}
"""
BUDGETS = """
budgets:
  - {name: month, match: {team: everybody}, per: [consumer], unit: usd, limit: 500, window: month}
  - {name: two, match: {consumer: slots}, unit: concurrency, limit: 2}
  - {name: small, match: {consumer: down}, unit: usd, limit: 0.02, window: day,
     on_exceed: downgrade, downgrade_to: cheap}
  - {name: asked, match: {consumer: approval}, per: [consumer], unit: requests, limit: 1, window: day,
     on_exceed: ask}
  - {name: cut, match: {consumer: cut}, unit: tokens, limit: 1500, window: hour, reserve: expected}
  - {name: rpm, match: {consumer: rates}, per: [consumer], unit: requests, limit: 3, window: hour}
  - {name: tpm, match: {consumer: rates}, unit: tokens, limit: 90000, window: hour}
  - {name: run, match: {consumer: strict}, per: [label.run], unit: requests, limit: 9, window: day, missing: refuse}
  - {name: told, match: {consumer: told}, unit: requests, limit: 4, window: day, alert_at: [0.5],
     alert_webhook: "WEBHOOK"}
"""
WHO = "reader other slots down approval cut rates strict told"


def key(name: str) -> str:
    return f"sk-gw-{name}"


def consumers(names: str) -> tuple[str, dict[str, str]]:
    entries = "".join(f"  - {{name: {name}, team: everybody, keys: [{{env: KEY_{name}}}]}}\n" for name in names.split())
    return f"teams: {{everybody: {{}}}}\nconsumers:\n{entries}", {f"KEY_{name}": key(name) for name in names.split()}


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[str, list[Any]]]:
    """A webhook: its address, and the bodies posted to it."""
    found: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, heard: tuple[str, list[Any]]) -> Iterator[Gateway]:
    who, env = consumers(WHO)
    yaml = (
        HEAD
        + who
        + BUDGETS.replace("WEBHOOK", heard[0])
        + 'stores: {counters: "memory:", ledger: "sqlite:ledger.db"}\n'
    )
    yield from run_gateway(tmp_path_factory.mktemp("spending"), yaml, ("sandbox",), env)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def get(gateway: Gateway, path: str, who: str, **more: Any) -> httpx.Response:
    return gateway.http.get(gateway.base_url + path, headers={"authorization": f"Bearer {key(who)}"}, **more)


def ask(gateway: Gateway, who: str, **fields: Any) -> httpx.Response:
    return gateway.chat("stub", key=key(who), max_tokens=fields.pop("max_tokens", 20), **fields)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def scopes(gateway: Gateway, name: str) -> dict[str, dict[str, Any]]:
    [found] = gateway.http.get(f"{gateway.admin}/budgets/{name}").json()["data"]
    return {entry["scope"]: entry for entry in found["scopes"]}


# --- reports of consumers


def test_a_consumer_reads_its_own_usage_and_budgets_with_its_own_key(gateway: Gateway):
    answers = [ask(gateway, "reader"), ask(gateway, "reader"), ask(gateway, "other")]
    used = [sum(answer.json()["usage"][part] for part in ("prompt_tokens", "completion_tokens")) for answer in answers]

    def report() -> Any:
        found = get(gateway, "/usage?group_by=consumer,model&consumer=other&team=x", "reader").json()
        return found if found["total"]["requests"] == 2 else None

    found = eventually(report)
    assert {entry["group"]["consumer"] for entry in found["data"]} == {"reader"}
    assert found["total"]["input_tokens"] + found["total"]["output_tokens"] == used[0] + used[1]
    budgets = get(gateway, "/budgets", "reader").json()["data"]
    assert [entry["name"] for entry in budgets] == ["month"]
    assert [entry["scope"] for entry in budgets[0]["scopes"]] == ["month:consumer=reader"]
    assert Decimal(budgets[0]["scopes"][0]["settled"]) == Decimal(found["total"]["cost_usd"]) > 0
    http = httpx.Client(verify=False, trust_env=False)
    with openai.OpenAI(api_key=key("reader"), base_url=gateway.base_url, max_retries=0, http_client=http) as client:
        assert client.get("/usage?group_by=model", cast_to=httpx.Response).json()["total"]["requests"] == 2
        assert client.get("/budgets", cast_to=httpx.Response).json()["data"][0]["limit"] == "500"


def test_a_request_in_flight_is_listed_with_what_it_holds(gateway: Gateway):
    gateway.fault("sandbox", "pace=200ms+words=20")
    with gateway.stream(key=key("reader")) as answer:
        next(answer.iter_lines())
        [one] = gateway.http.get(gateway.admin + "/in-flight").json()["data"]
        [hold] = [hold for hold in one["holds"] if hold["budget"] == "month"]
        assert (one["state"], one["request_id"]) == ("answering", answer.headers["x-request-id"])
        assert (hold["unit"], hold["scope"]) == ("usd", "month:consumer=reader")
        assert hold["amount"] == scopes(gateway, "month")[hold["scope"]]["reserved"] != "0"
    gateway.reset()
    eventually(lambda: gateway.http.get(gateway.admin + "/in-flight").json()["data"] == [])


@pytest.mark.parametrize("path", ["/usage", "/budgets"])
def test_usage_is_not_shown_without_a_key_or_by_another_method(gateway: Gateway, path: str):
    assert code(gateway.http.get(gateway.base_url + path)) == (401, "missing_key")
    assert code(gateway.post("/v1" + path, {}, key=key("reader"))) == (405, "method_not_allowed")
    assert get(gateway, path + "?resolution=week", "reader").status_code == (400 if path == "/usage" else 200)
    assert gateway.calls() == 0


# --- other actions of budgets


def test_a_concurrency_limit_of_two_frees_a_slot_when_one_ends(gateway: Gateway):
    gateway.fault("sandbox", "words=200+pace=50ms")
    with gateway.stream(key=key("slots")) as first, gateway.stream(key=key("slots")) as second:
        assert (first.status_code, second.status_code) == (200, 200)
        refused = ask(gateway, "slots")
        assert code(refused) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "1"
        assert scopes(gateway, "two")["two"]["reserved"] == "2"
    gateway.reset()
    assert eventually(lambda: ask(gateway, "slots").status_code == 200)
    eventually(lambda: scopes(gateway, "two") == {})


def test_a_request_beyond_the_budget_is_downgraded_to_a_cheaper_model(gateway: Gateway):
    answer = ask(gateway, "down", max_tokens=30)
    assert (answer.headers["x-ai-model"], answer.headers.get("x-ai-downgraded")) == ("stub", None)
    answer = ask(gateway, "down", max_tokens=200)
    assert answer.status_code == 200
    assert (answer.headers["x-ai-model"], answer.headers["x-ai-downgraded"]) == ("cheap", "small")
    assert gateway.exchange_of(answer)["provider"] == "sandbox"


def test_a_grant_of_an_operator_can_be_taken_back(gateway: Gateway):
    assert ask(gateway, "approval").status_code == 200
    refused = ask(gateway, "approval")
    assert code(refused) == (402, "approval_required")
    assert refused.headers["x-ai-approval"] in refused.json()["error"]["message"]
    grant = {"budget": "asked", "scope": "asked:consumer=approval", "amount": "1"}
    given = gateway.http.post(f"{gateway.admin}/grants", json=grant)
    assert given.status_code == 201
    assert ask(gateway, "approval").status_code == 200
    assert code(ask(gateway, "approval")) == (402, "approval_required")
    given = gateway.http.post(f"{gateway.admin}/grants", json=grant)
    assert scopes(gateway, "asked")["asked:consumer=approval"]["remaining"] == "1"
    assert gateway.http.delete(f"{gateway.admin}/grants/{given.json()['id']}").status_code == 204
    assert code(ask(gateway, "approval")) == (402, "approval_required")


def test_a_stream_ends_when_its_budget_does_and_stops_the_provider(gateway: Gateway):
    for _ in range(30):
        assert ask(gateway, "cut").status_code == 200  # the expected output is small
    gateway.fault("sandbox", "words=60000+pace=1ms")  # more than a minute
    ended = gateway.metric("extproc_tries_total", outcome="client_left")
    started = time.monotonic()
    with gateway.stream(key=key("cut"), max_tokens=60_000) as answer:
        events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    *parts, last = events
    assert (answer.status_code, json.loads(last)["error"]["code"]) == (200, "rate_limited")
    assert len(parts) > 100
    assert all(json.loads(part)["choices"] for part in parts), "what came before is delivered"
    eventually(lambda: gateway.metric("extproc_tries_total", outcome="client_left") > ended)
    assert time.monotonic() - started < 50, "the provider's answer is ended too"
    entry = gateway.exchange_of(answer)
    assert (entry["error"], entry["complete"]) == ("rate_limited", False)
    [level] = scopes(gateway, "cut").values()
    with ledger_of(gateway.file.parent) as ledger:
        row = eventually(lambda: ledger.exchange(entry["id"]))
        assert (row["error"], row["denied_by"], row["complete"]) == ("rate_limited", "cut", False)
        assert (level["reserved"], level["settled"]) == ("0", str(ledger.charges_by_scope("cut")["cut"]))


def test_answers_state_the_remainder_of_rates(gateway: Gateway):
    answer = ask(gateway, "rates")
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert answer.headers["x-ratelimit-remaining-requests"] == "2"
    assert answer.headers["x-ratelimit-limit-tokens"] == "90000"
    assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 90000
    assert answer.headers["x-ratelimit-reset-requests"].removesuffix("s").isdecimal()


def test_a_missing_label_that_a_budget_requires_is_refused(gateway: Gateway):
    assert code(ask(gateway, "strict")) == (400, "invalid_request")
    assert ask(gateway, "strict", headers={"x-ai-run": "7"}).status_code == 200
    assert gateway.calls() == 1


def test_input_given_by_reference_has_no_bound(gateway: Gateway):
    content = [{"type": "text", "text": "What is it?"}, {"type": "file", "file": {"file_id": "file-1"}}]
    body = {"model": "stub", "messages": [{"role": "user", "content": content}], "max_tokens": 9}
    answer = gateway.post("/v1/chat/completions", body, key=key("rates"))
    assert code(answer) == (400, "unbounded_input")
    assert gateway.calls() == 0


def test_a_webhook_is_called_once(gateway: Gateway, heard: tuple[str, list[Any]]):
    for _ in range(4):
        ask(gateway, "told")
    eventually(lambda: heard[1])
    time.sleep(1)
    [body] = heard[1]
    assert (body["event"], body["budget"], body["threshold"], body["limit"]) == ("budget_alert", "told", 0.5, "4")
    assert gateway.metric("extproc_budget_alerts_total", outcome="told") == 1


# --- a day of use

ACCOUNTS = """
budgets:
  - {name: team-month, match: {team: everybody}, per: [team], unit: usd, limit: 500, window: month}
  - {name: per-run, match: {consumer: agent}, per: [label.run], unit: usd, limit: 1, window: total}
  - {name: per-key, match: {consumer: key}, per: [key], unit: requests, limit: 60, window: hour}
"""


class Sampler:
    """Polls `GET /budgets` and keeps the highest settled and reserved amounts of each count."""

    def __init__(self, gateway: Gateway) -> None:
        self.most: dict[str, Decimal] = {}
        self.samples = 0
        self._gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(verify=False, trust_env=False, timeout=30) as http:
            while not self._over.wait(0.01):
                for budget in http.get(f"{self._gateway.admin}/budgets").json()["data"]:
                    for entry in budget["scopes"]:
                        used = Decimal(entry["settled"]) + Decimal(entry["reserved"])
                        self.most[entry["scope"]] = max(used, self.most.get(entry["scope"], Decimal()))
                self.samples += 1


def test_a_run_a_key_and_a_team_stay_within_their_budgets_with_fifty_concurrent_requests(start: Start, tmp_path: Path):
    who, env = consumers("agent key spender")
    stores = f"stores: {{counters: 'sqlite:{tmp_path}/counters.db', ledger: 'sqlite:{tmp_path}/ledger.db'}}\n"
    gateway = start(HEAD + who + ACCOUNTS + stores, env=env)
    gateway.fault("sandbox", "delay=50ms")

    def send(number: int) -> httpx.Response:
        if number % 5 == 3:
            return gateway.chat("free", key=key("key"), max_tokens=5)  # a team without a cent left does not refuse it
        if number % 5 == 4:  # reserves about 70 USD, and costs one
            return gateway.chat("dear", key=key("spender"), max_tokens=300)
        return ask(gateway, "agent", max_tokens=500, headers={"x-ai-run": f"r{number % 5}"})

    with Sampler(gateway) as sampler, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(400)))
    names = ("agent", "agent", "agent", "key", "spender")
    found = Counter((names[number % 5], answer.status_code) for number, answer in enumerate(answers))
    assert {status for _, status in found} == {200, 402, 429}, [
        a.text for a in answers if a.status_code not in (200, 402, 429)
    ]
    assert (found["key", 200], found["key", 429]) == (60, 20), f"a key with 60 requests an hour has 60: {found}"
    assert found["agent", 402] > 0
    assert found["agent", 200] > 3 * 9, "what was held and not used is there for others"
    assert found["spender", 402] > 0
    assert found["spender", 200] > 7
    assert sampler.samples > 5
    runs = {f"per-run:label.run=r{run}" for run in range(3)}
    assert runs <= sampler.most.keys()
    assert all(most <= 1 for scope, most in sampler.most.items() if scope.startswith("per-run"))
    assert 400 < sampler.most["team-month:team=everybody"] <= 500
    served = sum(number for (_, status), number in found.items() if status == 200)
    assert gateway.calls() == served
    agree(gateway, tmp_path, served)
    eventually(lambda: gateway.http.get(gateway.admin + "/usage").json()["total"]["requests"] == 400)
    by_team = gateway.http.get(gateway.admin + "/usage?group_by=team,consumer").json()
    assert Decimal(by_team["total"]["cost_usd"]) == Decimal(
        scopes(gateway, "team-month")["team-month:team=everybody"]["settled"]
    )
    before = by_team["total"]

    assert gateway.stop() == 0
    again = start(HEAD + who + ACCOUNTS + stores, env=env)
    assert again.http.get(again.admin + "/usage").json()["total"] == before, "a restart forgets nothing"
    agree(again, tmp_path, served)


def agree(gateway: Gateway, folder: Path, served: int) -> None:
    """Once no request is under way, counters and ledger agree to the unit."""

    def idle() -> bool:
        data = gateway.http.get(f"{gateway.admin}/budgets").json()["data"]
        return not any(Decimal(entry["reserved"]) for budget in data for entry in budget["scopes"])

    eventually(idle)
    with ledger_of(folder) as ledger:
        eventually(lambda: sum(ledger.charges_by_scope("team-month").values()) == spent(gateway))
        for budget in gateway.http.get(f"{gateway.admin}/budgets").json()["data"]:
            unit = 10**9 if budget["unit"] == "usd" else 1
            counted = {entry["scope"]: int(Decimal(entry["settled"]) * unit) for entry in budget["scopes"]}
            written = {scope: value for scope, value in ledger.charges_by_scope(budget["name"]).items() if value}
            if budget["window"] != "hour":
                assert counted == written
        total = ledger.usage(
            Query.parse([("usage_source", "provider"), ("usage_source", "expired")], datetime.now(UTC))
        )
        assert total.json()["total"]["requests"] == served


def spent(gateway: Gateway) -> int:
    return sum(int(Decimal(entry["settled"]) * 10**9) for entry in scopes(gateway, "team-month").values())


@contextmanager
def ledger_of(folder: Path) -> Iterator[Any]:
    ledger = open_ledger(f"sqlite:{folder}/ledger.db")
    yield ledger
    ledger.close()


def test_requests_in_flight_at_a_kill_are_charged_and_recorded(start: Start, tmp_path: Path):
    who, env = consumers("agent key")
    stores = f"stores: {{counters: 'sqlite:{tmp_path}/counters.db', ledger: 'sqlite:{tmp_path}/ledger.db'}}\n"
    yaml = HEAD + who + ACCOUNTS + stores + "limits: {lease: 2s}\n"
    gateway = start(yaml, env=env)
    for _ in range(5):
        assert ask(gateway, "agent", headers={"x-ai-run": "1"}).status_code == 200
    eventually(lambda: rows_in(tmp_path, "provider") == 5)
    gateway.fault("sandbox", "words=500+pace=50ms")
    opened = threading.Barrier(7)

    def stream(number: int) -> None:
        with gateway.stream(key=key("agent"), max_tokens=600) as answer:
            assert answer.status_code == 200
            pieces = answer.iter_raw()
            for _ in range(3):  # 50 ms apart: the store is told 10 ms after a request left that it has, see `Leases`
                next(pieces)
            opened.wait(20)
            try:
                for _ in pieces:
                    pass
            except httpx.HTTPError:
                pass

    with ThreadPoolExecutor(6) as pool:
        streams = [pool.submit(stream, number) for number in range(6)]
        opened.wait(20)
        gateway.process.kill()
        gateway.process.wait(30)
        for each in streams:
            each.result(30)
    again = start(yaml, env=env)
    expired = eventually(lambda: rows_in(tmp_path, "expired") >= 6 and rows_in(tmp_path, "expired"))
    assert expired == 6
    rows = again.http.get(again.admin + "/exchanges?limit=1000").json()["data"]
    lost = [row for row in rows if row["usage_source"] == "expired"]
    assert {(row["consumer"], row["model"], row["target"], row["operation"]) for row in lost} == {
        ("agent", "stub", "stub", "chat")
    }
    agree(again, tmp_path, 5 + 6)
    assert again.metric("extproc_leases_expired_total") >= 6
    assert ask(again, "agent", headers={"x-ai-run": "1"}).status_code == 200


def rows_in(folder: Path, source: str) -> int:
    with ledger_of(folder) as ledger:
        query = Query.parse([("usage_source", source)], datetime.now(UTC))
        found: int = ledger.usage(query).json()["total"]["requests"]
        return found

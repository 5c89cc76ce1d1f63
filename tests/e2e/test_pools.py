"""Pools of model servers through a real Envoy: several doubles behind one provider."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import httpx
import pytest

from tests.doubles.pod import Pod
from tests.e2e.conftest import KEY, Gateway, eventually

YAML = """
providers:
  llama:
    kind: vllm
    base_url: http://llama.test:8000/v1
    timeout: 3s
    pool: {POOL}
  cloud: {kind: mock, base_url: "{mock_cloud}"}
models:
  llama-3: {provider: llama}
  sql: {provider: llama}
  cloud-3: {provider: cloud}
virtual_models:
  assistant: {targets: [{model: llama-3}, {model: cloud-3}]}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
stores: {counters: "memory:"}
"""


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    found = [Pod(f"pod{number}") for number in range(4)]
    yield found
    for pod in found:
        pod.hangs = False
        pod.kill()


def pool_of(pods: list[Pod], more: str = "") -> str:
    listed = ", ".join(f'"{pod.address}"' for pod in pods)
    return f"{{endpoints: [{listed}], scrape: 200ms, resolve: 1s, tell_endpoint: true{more}}}"


@pytest.fixture
def gateway(start, pods) -> Gateway:
    found = start(YAML.replace("{POOL}", pool_of(pods)), mocks=("cloud",))
    eventually(lambda: found.chat("llama-3").status_code == 200)
    return found


def served(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_each_try_goes_to_the_endpoint_that_was_chosen_and_the_record_names_it(gateway, pods):
    for number in range(12):
        answer = gateway.chat("llama-3", f"question {number}")
        pod = next(each for each in pods if each.name == served(answer))
        assert answer.headers["x-ai-endpoint"] == pod.address
        entry = gateway.exchange_of(answer)
        assert entry["endpoint"] == pod.address

        def row(id: str = entry["id"]) -> Any:
            """The exchange in the ledger: `outcome` of the memory has no text of the time."""
            found = gateway.http.get(f"{gateway.admin}/exchanges/{id}").json()
            return found if isinstance(found["time"], str) else None

        assert eventually(row)["endpoint"] == pod.address
        sent = pod.bodies[-1]["headers"]
        assert not [name for name in sent if name.lower().startswith(("x-gateway", "x-extproc", "x-envoy"))]
    forged = {"x-gateway-destination-endpoint": pods[0].address, "x-extproc-endpoints": pods[0].address}
    names = {served(gateway.chat("llama-3", f"q {number}", headers=forged)) for number in range(16)}
    assert len(names) > 1, "a client cannot choose"


class Load:
    """Requests in turns from several threads until the end of the block. `failed` are their errors."""

    def __init__(self, gateway: Gateway, threads: int = 6, **fields: object) -> None:
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(gateway, n, fields)) for n in range(threads)]

    def _run(self, gateway: Gateway, thread: int, fields: dict[str, object]) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            answer = gateway.chat("llama-3", f"{thread} asks {number}", **fields)
            if answer.status_code == 200:
                self.served[served(answer)] += 1
            else:
                self.failed.append(f"{answer.status_code} {answer.text}")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def until(self, more: int) -> None:
        """Wait for more answers."""
        before = self.served.total() + len(self.failed)
        eventually(lambda: self.served.total() + len(self.failed) >= before + more)


def test_pods_that_are_killed_and_start_again_cost_no_request(gateway, pods):
    with Load(gateway) as load:
        load.until(60)
        pods[0].kill()
        load.until(60)
        quiet = load.served["pod0"]
        pods[0].start()
        eventually(lambda: load.served["pod0"] > quiet)
        pods[1].kill()
        pods[2].kill()
        load.until(60)
    assert not load.failed
    assert load.served["pod3"]


def test_streams_that_have_begun_end_well_while_other_pods_die(gateway, pods):
    for pod in pods:
        pod.pause = 0.3
    with gateway.stream("llama-3", "a long story") as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if "says" in line or "pod" in line)
        for pod in pods:
            if pod.name not in first:
                pod.kill()
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_slow_pod_gets_fewer_requests_and_a_busy_one_none(gateway, pods):
    pods[0].waiting, pods[1].delay = 50, 0.3
    eventually(lambda: gateway.chat("llama-3", "warm up").status_code == 200)
    with Load(gateway) as load:
        load.until(30)
        busy = load.served["pod0"]
        load.until(120)
    assert load.served["pod0"] == busy
    assert load.served["pod1"] < min(load.served["pod2"], load.served["pod3"])
    assert not load.failed


def test_a_pod_that_hangs_holds_only_the_requests_that_it_has(gateway, pods):
    pods[0].hangs = True
    with Load(gateway, threads=8) as load:
        load.until(200)
        pods[0].hangs = False
    assert not load.failed


def test_a_conversation_stays_where_its_prefix_is_cached(gateway, pods):
    system = "You answer politely. " * 200
    for number in range(3):
        talk = [{"role": "system", "content": f"{number} {system}"}]
        names = set()
        for turn in range(5):
            talk.append({"role": "user", "content": f"question {turn}"})
            body = {"model": "llama-3", "messages": talk}
            name = served(gateway.post("/v1/chat/completions", body))
            talk.append({"role": "assistant", "content": name})
            names.add(name)
        assert len(names) == 1


def test_the_adapter_s_pod_is_preferred(gateway, pods):
    pods[2].adapters = "sql"
    eventually(lambda: {served(gateway.chat("sql", f"{number}")) for number in range(6)} == {"pod2"})


def test_pods_join_and_leave_with_a_reload_without_a_failed_request(start, pods):
    gateway = start(YAML.replace("{POOL}", pool_of(pods[:2])), mocks=("cloud",))
    eventually(lambda: gateway.chat("llama-3").status_code == 200)
    text = gateway.file.read_text()
    with Load(gateway) as load:
        load.until(40)
        assert set(load.served) <= {"pod0", "pod1"}
        gateway.file.write_text(text.replace(pool_of(pods[:2]), pool_of(pods[1:])))
        eventually(lambda: load.served["pod2"] and load.served["pod3"])
        load.until(12)  # requests that were under way at the change have ended
        before = load.served["pod0"]
        load.until(60)
        assert load.served["pod0"] == before
        pods[0].kill()
        load.until(20)
    assert not load.failed


_FULL = "saturated: {requests: 1}, max_queue: 2, wait: 2s, priority: {low: -1, high: 5}"
_ONE = f"{{endpoints: ['POD'], metrics: none, {_FULL}}}"
_KEYS = "- {name: low, keys: [{env: LOW}]}\n  - {name: high, keys: [{env: HIGH}]}\n  "


@pytest.fixture
def full(start, pods) -> Iterator[Gateway]:
    """A gateway whose only pod holds one request, until `pods[0].hangs` is false."""
    yaml = YAML.replace("{POOL}", _ONE.replace("POD", pods[0].address)).replace(
        "- {name: demo", _KEYS + "- {name: demo"
    )
    found = start(yaml, mocks=("cloud",), env={"LOW": "sk-gw-low", "HIGH": "sk-gw-high"})
    eventually(lambda: found.chat("llama-3").status_code == 200)
    pods[0].bodies.clear()
    pods[0].hangs = True
    with sending(found, "the first"):
        eventually(lambda: pods[0].running == 1)
        yield found
        pods[0].hangs = False


@contextmanager
def sending(gateway: Gateway, text: str, **fields: object) -> Iterator[list[httpx.Response]]:
    """A request that waits while the block runs. The list has its answer behind the block."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(gateway.chat("llama-3", text, **fields)))
    thread.start()
    yield answers
    thread.join()


def waiting(gateway: Gateway, count: int) -> None:
    eventually(lambda: gateway.metric("extproc_pool_waiting", provider="llama") == count)


def test_a_full_pool_spills_to_the_next_target_and_sheds_what_may_be_shed(full, pods):
    answer = full.chat("assistant")
    assert (answer.status_code, answer.headers["x-ai-provider"]) == (200, "cloud")
    assert full.exchange_of(answer)["skipped"] == {"llama-3": "full"}
    shed = full.chat("llama-3", key="sk-gw-low")
    assert (shed.status_code, shed.json()["error"]["code"]) == (429, "pool_full")
    assert int(shed.headers["retry-after"]) >= 1
    assert full.metric("extproc_pool_endpoints", provider="llama", state="full") == 1


def test_waiting_requests_go_by_priority_and_the_queue_is_bounded(full, pods):
    with sending(full, "second") as second:
        waiting(full, 1)
        with sending(full, "urgent", key="sk-gw-high") as urgent:
            waiting(full, 2)
            assert full.chat("llama-3", "one too many").status_code == 429
            pods[0].hangs = False
    assert [answer.status_code for answer in (*second, *urgent)] == [200, 200]
    asked = [body["messages"][0]["content"] for body in pods[0].bodies]
    assert asked == ["the first", "urgent", "second"]
    assert full.exchange_of(second[0])["pool_wait_ms"] > 0


def test_a_wait_ends_with_its_time_and_with_its_client(full, pods):
    late = full.chat("llama-3", "patient")
    assert (late.status_code, late.json()["error"]["code"]) == (429, "pool_full")
    with suppress(httpx.TimeoutException):
        httpx.post(
            full.base_url + "/chat/completions",
            json={"model": "llama-3", "messages": [{"role": "user", "content": "hasty"}]},
            headers={"authorization": f"Bearer {KEY}"},
            timeout=0.3,
        )
    waiting(full, 0)
    assert len(pods[0].bodies) == 1


def test_a_pool_without_endpoints_is_a_503_that_says_so(start):
    yaml = YAML.replace("{POOL}", "{wait: 500ms}").replace("http://llama.test:8000", "http://no-such-name.invalid:8000")
    gateway = start(yaml, mocks=("cloud",))
    answer = gateway.chat("llama-3")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_provider_available")
    assert "its pool has no endpoint" in answer.json()["error"]["message"]
    assert gateway.chat("assistant").headers["x-ai-provider"] == "cloud"

"""Pools of model servers through a real Envoy: several doubles behind one provider."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Self

import httpx
import pytest

from tests.doubles.pod import Pod
from tests.e2e.conftest import Gateway, eventually

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
        assert gateway.exchange_of(answer)["endpoint"] == pod.address
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
        before = load.served["pod0"]
        load.until(60)
        assert load.served["pod0"] == before
        pods[0].kill()
        load.until(20)
    assert not load.failed

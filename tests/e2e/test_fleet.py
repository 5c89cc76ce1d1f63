"""A budget that two gateways share through Redis, and its behaviour when Redis is down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Gateway, eventually
from tests.redis_server import RedisServer

pytestmark = pytest.mark.alone  # it measures time

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
stores: {counters: "redis://127.0.0.1:PORT?password=env:REDIS_PASSWORD"}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
budgets:
  - {name: ten, match: {model: stub}, unit: requests, limit: 10, window: total}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    RedisServer.need()
    server = RedisServer(tmp_path, "--requirepass", "canary")
    server.start()
    yield server
    server.stop()


def test_a_budget_holds_over_two_gateways_and_denies_without_its_store(
    start: Callable[..., Gateway], server: RedisServer
):
    yaml, env = YAML.replace("PORT", str(server.port)), {"REDIS_PASSWORD": "canary"}
    gateways = [start(yaml, env=env) for _ in range(2)]
    # On a busy machine a call of the store may fail: then the answer is 503, and nothing was reserved.
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: gateways[number % 2].chat(), range(40)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] <= 10
    assert set(statuses) <= {200, 402, 503}
    eventually(lambda: {gateway.chat().status_code for gateway in gateways} == {402})
    assert sum(gateway.calls() for gateway in gateways) == 10

    server.stop()
    for gateway in gateways:
        for _ in range(12):
            answer = gateway.chat()
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "store_unavailable"
    assert sum(gateway.calls() for gateway in gateways) == 10

    server.start()  # it starts empty, and that loss is reported
    for gateway in gateways:
        assert eventually(lambda gateway=gateway: gateway.metric("extproc_store_losses_total") == 1, 20)
        assert eventually(lambda gateway=gateway: gateway.chat().status_code == 200, 20)
        assert "canary" not in gateway.log.read_text()

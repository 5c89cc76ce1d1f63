"""A budget that two gateways share through Redis, and its behaviour when Redis is down."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually
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
        assert eventually(lambda gateway=gateway: gateway.metric("extproc_store_losses_total") == 1)
        assert eventually(lambda gateway=gateway: gateway.chat().status_code == 200)
        assert "canary" not in gateway.log.read_text()


def test_a_burst_waits_for_the_store_and_is_not_refused(start: Callable[..., Gateway], server: RedisServer):
    """A thousand requests at one idle processor: it is busy, and the store is not."""
    yaml = YAML.replace("PORT", str(server.port)).replace("limit: 10,", "limit: 1000,")
    gateway = start(yaml, env={"REDIS_PASSWORD": "canary"})
    eventually(lambda: gateway.metric("extproc_store_losses_total") == 0)
    answers = Counter(asyncio.run(burst(gateway, 1000)))
    assert gateway.metric("extproc_budget_decisions_total", verdict="store_failure") == 0
    assert answers == {200: 1000}


async def burst(gateway: Gateway, count: int) -> list[int]:
    """The statuses of requests that are all sent at once, each on a connection of its own."""
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps(chat_body("stub", "Hello")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    streams = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    for _, writer in streams:
        writer.write(request)

    async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1]) if answer else 0

    async with asyncio.timeout(120):
        return await asyncio.gather(*(status(*stream) for stream in streams))

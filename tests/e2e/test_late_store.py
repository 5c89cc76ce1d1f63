"""A Redis that hangs, and a processor that is killed meanwhile: what never left for a provider is never charged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extproc.money.ledger import open_ledger
from tests.e2e.conftest import Gateway, eventually
from tests.redis_server import RedisServer

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
stores: {counters: "redis://127.0.0.1:PORT", ledger: "sqlite:LEDGER"}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
limits: {lease: 2s}
budgets:
  - {name: ten, unit: requests, limit: 10, window: total}
"""
FORWARDED = """
local found = 0
for _, record in ipairs(redis.call('HVALS', KEYS[1])) do
  found = found + (record:sub(1, 1) == '1' and 1 or 0)
end
return found
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    RedisServer.need()
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def test_a_refused_request_is_never_charged_and_one_that_left_always_is(
    start: Callable[..., Gateway], server: RedisServer, tmp_path: Path
):
    yaml = YAML.replace("PORT", str(server.port)).replace("LEDGER", str(tmp_path / "ledger.db"))
    gateway = start(yaml)
    eventually(lambda: gateway.chat().status_code == 200)  # a busy machine may let a first call wait too long
    served = gateway.calls()
    eventually(lambda: counted(gateway)["settled"] == served)
    server.pause()
    refused = [gateway.chat() for _ in range(4)]
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["error"]["code"] for answer in refused} == {"store_unavailable"}
    gateway.process.kill()
    gateway.process.wait(30)
    server.resume()  # the calls in its sockets run now

    again = start(yaml)
    again.fault("sandbox", "words=500+pace=50ms")
    eventually(lambda: counted(again)["reserved"] == 0)
    assert counted(again)["settled"] == served
    assert gateway.calls() == served
    with again.stream(max_tokens=600) as answer:
        assert answer.status_code == 200
        next(pieces := answer.iter_raw())
        eventually(lambda: server.cli("eval", FORWARDED, "1", "{extproc}:reservations") == "1")
        again.process.kill()
        again.process.wait(30)
        pieces.close()

    last = start(yaml)
    eventually(lambda: counted(last) == {"settled": served + 1, "reserved": 0})
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    try:
        eventually(lambda: ledger.charges_by_scope("ten") == {"ten": served + 1})
    finally:
        ledger.close()


def counted(gateway: Gateway) -> dict[str, int]:
    [budget] = gateway.http.get(f"{gateway.admin}/budgets").json()["data"]
    found = budget["scopes"][0] if budget["scopes"] else {"settled": 0, "reserved": 0}
    return {name: int(found[name]) for name in ("settled", "reserved")}

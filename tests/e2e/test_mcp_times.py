"""Times of the MCP gateway beside servers in trouble, through a real Envoy.

`pytest -s -m alone tests/e2e/test_mcp_times.py` prints them.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import httpx
import pytest

from tests.doubles.mcp import KINDS, TOOLS, McpServer, McpServers
from tests.e2e.conftest import KEY, TICK, Gateway, run_gateway
from tests.e2e.mcp_agent import Agent, Answer

pytestmark = pytest.mark.alone  # it measures time

YAML = """
mcp:
  key: env:SESSION_KEY
  servers:
    down: {url: "http://127.0.0.1:9/mcp", timeout: 1s, refresh: 1s}
    hung: {url: "SERVERS/hung", timeout: 1s, refresh: 1s}
    babel: {url: "SERVERS/babel", timeout: 1s, refresh: 1s}
    dual: {url: "SERVERS/dual"}
    modern: {url: "SERVERS/modern", timeout: 1s}
    stateful-sse: {url: "SERVERS/stateful-sse", timeout: 1s}
  profiles:
    mixed: {servers: {down: {}, hung: {}, babel: {}, dual: {}}}
    dev: {servers: {modern: {}, stateful-sse: {}}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}]
stores: {counters: "memory:"}
"""
ANSWERED, PROGRESS, OVER = 0.050, 0.050, 1.0  # seconds
EVENTS, PAUSE = 20, 0.05
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


@pytest.fixture(scope="module")
def servers() -> Iterator[McpServers]:
    found = [McpServer(name, **KINDS[name]) for name in ("dual", "modern", "stateful-sse")]
    with McpServers(*found, McpServer("hung"), McpServer("babel")).running() as running:
        running["hung"].temper, running["babel"].temper = "hang", "html"
        yield running


@pytest.fixture(scope="module")
def gateway(servers: McpServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml = YAML.replace("SERVERS", servers.url)
    yield from run_gateway(tmp_path_factory.mktemp("mcp"), yaml, (), {"SESSION_KEY": "0123456789abcdef" * 2})


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@ERAS
def test_lists_and_handshakes_do_not_wait_for_servers_in_trouble(gateway: Gateway, era: str) -> None:
    """One server is down, one hangs, one talks nonsense. All are looked at again each second meanwhile."""
    client = Agent(f"{gateway.url}/mcp/mixed", KEY, era=era)
    wanted = [f"dual__{each['name']}" for each in TOOLS]
    assert [each["name"] for each in client.tools(gateway.http)] == wanted

    def begin() -> None:
        if era == "legacy":
            client.open(gateway.http)
        else:
            client.send(gateway.http, "server/discover")

    for name, work in (("handshake", begin), ("list", lambda: client.tools(gateway.http))):
        found = []
        for _ in range(30):
            found.append(seconds(work))
            time.sleep(0.02)
        median, most = statistics.median(found), max(found)
        print(f"{era}: {name} beside servers in trouble: median {median * 1e3:.1f} ms, most {most * 1e3:.1f} ms")  # noqa: T201
        assert median <= ANSWERED


Found = TypeVar("Found")
CASES = [*itertools.product(("modern", "legacy"), ("modern", "stateful-sse"))]


def at_once(work: Callable[[str, str], Found]) -> Mapping[tuple[str, str], Found]:
    """The results of `work` for each era of clients and kind of server, all begun at the same time."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(lambda case: work(*case), CASES), strict=True))


def test_a_call_of_a_server_that_hangs_ends_a_second_behind_its_timeout(gateway: Gateway, servers: McpServers) -> None:
    clients = {case: Agent(f"{gateway.url}/mcp/dev", KEY, era=case[0]) for case in CASES}

    def call(era: str, server: str) -> tuple[Answer, float]:
        began = time.perf_counter()
        found = clients[era, server].call(gateway.http, f"{server}__echo", {"text": "x"})
        return found, time.perf_counter() - began

    for (_, server), (found, _) in at_once(call).items():
        assert found.said == f"{server}: x"
    for server in ("modern", "stateful-sse"):
        servers[server].tempers["tools/call"] = "hang"
    hung = at_once(call)
    for server in ("modern", "stateful-sse"):
        servers[server].tempers.clear()
    for (era, server), (found, took) in hung.items():
        print(f"{era} client, {server}: a hung call ended after {took:.3f} s; the timeout is 1 s")  # noqa: T201
        assert found.code == -32603
        assert 1 - TICK <= took <= 1 + OVER


def test_progress_comes_when_the_server_reports_it(gateway: Gateway) -> None:
    def progress(era: str, server: str) -> Sequence[float]:
        client = Agent(f"{gateway.url}/mcp/dev", KEY, era=era)
        client.tools(gateway.http)
        arguments = {"text": "x", "steps": EVENTS, "pause": PAUSE}
        body, headers = client.request(
            "tools/call", {"name": f"{server}__slow", "arguments": arguments, "_meta": {"progressToken": "p"}}
        )
        with (
            httpx.Client(timeout=30, trust_env=False) as http,
            http.stream("POST", client.url, content=body, headers=headers) as answer,
        ):
            return [time.perf_counter() for line in answer.iter_lines() if "notifications/progress" in line]

    for (era, server), times in at_once(progress).items():
        assert len(times) == EVENTS
        late = [after - before - PAUSE for before, after in itertools.pairwise(times)]
        median = statistics.median(late)
        print(f"{era} client, {server}: progress late by {median * 1e3:.1f} ms, most {max(late) * 1e3:.1f}")  # noqa: T201
        assert median <= PROGRESS

"""Room for requests, through a real Envoy: what is refused before its body, and what one consumer leaves to others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.abuse.requests import CHAT, HOST, JSON, PATH, USER, chat, padded
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.raw import Reply, connect, message, read, send

HEAVY, SPENT = "sk-gw-heavy-0123456789abcdef", "sk-gw-spent-0123456789abcdef"
YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: heavy, keys: [{env: HEAVY_KEY}]}
  - {name: spent, keys: [{env: SPENT_KEY}]}
budgets: [{name: nothing, unit: requests, limit: 0, window: day, match: {consumer: spent}}]
stores: {counters: "memory:", ledger: "memory:"}
limits: {request_body: 2MiB, body_memory: 4MiB, exchanges: 10, consumer_share: 0.5, json_nodes: 1000, body_timeout: 3s}
"""
KIB = 1 << 10


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    eventually(lambda: shared.metric("extproc_exchanges_in_flight") == 0)  # of the test before
    return shared


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    env = {"HEAVY_KEY": HEAVY, "SPENT_KEY": SPENT}
    yield from run_gateway(tmp_path_factory.mktemp("admission"), YAML, ("sandbox",), env)


def head(key: str, *more: tuple[str, str]) -> bytes:
    return message("POST", PATH, [HOST, JSON, ("authorization", f"Bearer {key}"), *more])


def sized(key: str, size: int) -> bytes:
    return head(key, ("content-length", str(size)))


@contextlib.contextmanager
def unfinished(gateway: Gateway, number: int, *, key: str = HEAVY, size: int = 1000) -> Iterator[list[socket.socket]]:
    """Requests whose bodies do not come, and which the processor has admitted."""
    with contextlib.ExitStack() as stack:
        before = gateway.metric("extproc_exchanges_in_flight")
        open_ones = [stack.enter_context(connect(gateway.url)) for _ in range(number)]
        for connection in open_ones:
            connection.sendall(sized(key, size) + b"{")
        eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == before + number)
        yield open_ones
    eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == before)


def check(reply: Reply | None, status: int, code: str, *, wait: bool = True) -> None:
    assert reply is not None
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    assert reply.headers["x-ai-error-origin"] == "gateway"
    assert ("retry-after" in reply.headers) is wait


def served(gateway: Gateway, body: bytes = CHAT) -> bool:
    return send(gateway.url, sized(KEY, len(body)), body).status == 200  # type: ignore[union-attr]


def test_unfinished_bodies_of_one_consumer_leave_room_to_others(gateway: Gateway) -> None:
    with unfinished(gateway, 5):
        check(send(gateway.url, sized(HEAVY, len(CHAT)), CHAT), 429, "rate_limited")
        assert served(gateway)
    assert send(gateway.url, sized(HEAVY, len(CHAT)), CHAT).status == 200  # type: ignore[union-attr]


def test_a_body_that_does_not_come_ends_in_time(gateway: Gateway) -> None:
    with unfinished(gateway, 1) as [connection]:
        reply = read(connection)
        assert reply is not None
        assert reply.status == 408


def test_a_large_body_without_room_is_refused_before_it_comes(gateway: Gateway) -> None:
    with unfinished(gateway, 1, size=1500 * KIB):
        with connect(gateway.url) as connection:
            connection.sendall(sized(HEAVY, 1000 * KIB))
            check(read(connection), 429, "rate_limited")
        assert served(gateway)


def test_the_process_has_an_end_too(gateway: Gateway) -> None:
    with unfinished(gateway, 1, size=2000 * KIB), unfinished(gateway, 1, key=KEY, size=2000 * KIB):
        with connect(gateway.url) as connection:
            connection.sendall(sized(SPENT, 200 * KIB))
            check(read(connection), 503, "overloaded")
        assert gateway.metric("extproc_body_bytes_in_flight") == 4000 * KIB


def test_a_body_of_unknown_length_is_refused_when_it_comes(gateway: Gateway) -> None:
    body = padded(1000 * KIB)
    pieces = (head(HEAVY, ("transfer-encoding", "chunked")), b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    before = gateway.calls()
    with unfinished(gateway, 1, size=1500 * KIB):
        check(send(gateway.url, *pieces), 429, "rate_limited")
    assert gateway.calls() == before
    assert send(gateway.url, *pieces).status == 200  # type: ignore[union-attr]


def test_many_bodies_of_unknown_length_take_no_more_than_there_is(gateway: Gateway) -> None:
    body = padded(1900 * KIB)
    pieces = (head(HEAVY, ("transfer-encoding", "chunked")), b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    with ThreadPoolExecutor(5) as pool:
        replies = [one.result() for one in [pool.submit(send, gateway.url, *pieces) for _ in range(20)]]
    assert {reply.status for reply in replies if reply} <= {200, 429, 503}
    assert all(reply is not None for reply in replies)
    eventually(lambda: gateway.metric("extproc_body_bytes_in_flight") == 0)


def test_a_consumer_without_budget_is_refused_before_its_large_body(gateway: Gateway) -> None:
    before = gateway.calls()
    with connect(gateway.url) as connection:
        connection.sendall(sized(SPENT, 1000 * KIB))
        reply = read(connection)
    assert reply is not None
    assert reply.status in (400, 402, 429)
    small = send(gateway.url, sized(SPENT, len(CHAT)), CHAT)
    assert small is not None
    assert small.json()["error"]["code"] == reply.json()["error"]["code"]
    assert gateway.calls() == before


@pytest.mark.parametrize("size", [0, 300 * KIB])
def test_values_are_limited(gateway: Gateway, size: int) -> None:
    body = chat('"x":[' + "1," * 1000 + '"' + "a" * size + '"]')
    check(send(gateway.url, sized(KEY, len(body)), body), 400, "invalid_json", wait=False)


def test_a_large_request_is_served(gateway: Gateway) -> None:
    body = chat(messages="[" + ",".join([USER] * 100) + "]", fields='"x":"' + "é" * 500 * KIB + '"')
    answer = send(gateway.url, sized(KEY, len(body)), body)
    assert answer is not None
    assert answer.status == 200
    assert gateway.last(lambda entry: entry["request_id"] == answer.headers["x-request-id"])["status"] == 200


def test_a_client_that_leaves_frees_its_room(gateway: Gateway) -> None:
    body = padded(1900 * KIB)
    for _ in range(5):
        with connect(gateway.url) as connection:
            connection.sendall(sized(HEAVY, len(body)) + body)
    eventually(lambda: gateway.metric("extproc_body_bytes_in_flight") == 0)
    eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == 0)

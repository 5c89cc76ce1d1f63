"""Clients, and a provider, that do not read what is sent to them, through a real Envoy."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually
from tests.e2e.http2_provider import Http2Provider
from tests.e2e.idp import Authority
from tests.e2e.scripted import Scripted, endless, events, head
from tests.e2e.test_large_bodies import memory

CHUNK = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
PIECE = events(CHUNK | {"choices": [{"index": 0, "delta": {"content": "word " * 150}}]}, end=b"")
WHOLE = PIECE + events(CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1}}
BEGIN = events(
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    end=b"",
)
DELTA = events(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 150}}, end=b""
)
"""A message of Anthropic's, without the rest of its text."""
YAML = """
providers:
  fast: {kind: mock, base_url: "%s/v1"%s}
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
models: {fast: {provider: fast}, stub: {provider: sandbox}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
stores: {counters: "memory:", ledger: "memory:"}
"""
GUARDED = "guardrails: [{name: no-keys, kind: secrets, on: [output]}]\n"
EACH = 6
"""MB for each client."""


@contextmanager
def asking(gateway: Gateway, count: int) -> Iterator[list[socket.socket]]:
    """Clients that ask for a stream and do not read it."""
    at = urlsplit(gateway.url)
    body = json.dumps(chat_body("fast", "endless", stream=True, stream_options={"include_usage": True})).encode()
    asked = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((at.hostname, at.port), 30)) for _ in range(count)]
        for client in clients:
            client.sendall(asked + body)
        yield clients


def resident(gateway: Gateway) -> float:
    """MB of Envoy and the processor, when they do not grow any more."""
    assert gateway.envoy is not None
    pids = gateway.envoy.pid, gateway.process.pid

    def size() -> float:
        assert gateway.chat().status_code == 200, "others are served"
        return sum(memory(pid, "VmRSS") for pid in pids)

    return at_rest(size)


def at_rest(size: Callable[[], float]) -> float:
    """MB that `size` says, when it does not grow any more."""
    sizes = [0.0]

    def rests() -> bool:
        sizes.append(size())
        return len(sizes) > 20 and sizes[-1] - sizes[-20] < 1

    eventually(rests, 60)
    return sizes[-1]


@pytest.mark.parametrize(("more", "readers"), [("", 50), (GUARDED, 20)], ids=["read", "guarded"])
def test_clients_that_read_nothing_take_little_memory(
    start: Callable[..., Gateway], provider: Scripted, more: str, readers: int
) -> None:
    """An endless answer took 140 MB for each of them, most of it in Envoy's buffers."""
    provider.script = endless(head("text/event-stream"), PIECE * 64)
    gateway = start(YAML % (provider.url, "") + more)
    assert gateway.chat().status_code == 200
    before = resident(gateway)
    with asking(gateway, readers) as clients:
        eventually(lambda: gateway.metric("extproc_exchanges_in_flight") >= readers)
        assert resident(gateway) - before < EACH * readers
        assert clients[0].recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(("kind", "begin", "piece"), [("mock", b"", PIECE), ("anthropic", BEGIN, DELTA)])
def test_answers_take_little_memory_while_the_processor_does_not_look_at_their_headers(
    start: Callable[..., Gateway], provider: Scripted, kind: str, begin: bytes, piece: bytes
) -> None:
    """Envoy held 42 MB of each, as much as of a request, and gave them to the processor in one piece."""
    readers = 20
    asked = Barrier(readers, lambda: gateway.process.send_signal(signal.SIGSTOP), 30)

    def script() -> Iterator[bytes]:
        asked.wait()
        yield from endless(head("text/event-stream") + begin, piece * 64)()

    gateway = start((YAML % (provider.url, "")).replace("fast: {kind: mock", f"fast: {{kind: {kind}"))
    resident(gateway)
    before = most(gateway)
    provider.script, provider.sent = script, 0
    with asking(gateway, readers):
        try:
            eventually(lambda: provider.sent > 1 << 20)
            at_rest(lambda: most(gateway))
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        resident(gateway)
        assert most(gateway) - before < 2 * EACH * readers


def most(gateway: Gateway) -> float:
    """MB that Envoy and the processor had at most."""
    assert gateway.envoy is not None
    return sum(memory(pid) for pid in (gateway.envoy.pid, gateway.process.pid))


def test_they_do_not_stop_the_answers_in_the_same_connection_to_a_provider(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Answers that their clients do not read keep the windows of HTTP/2 that Envoy gave them."""
    authority = Authority(tmp_path)
    with Http2Provider(WHOLE, PIECE, authority.give("localhost", dns=("localhost",))).running() as provider:
        gateway = start(YAML % (provider.url, f', tls_ca: "{authority.file}"'))
        with asking(gateway, 20) as clients:
            for client in clients:
                assert client.recv(12) == b"HTTP/1.1 200"
            for _ in range(10):  # Envoy's threads have a connection each
                with gateway.stream("fast", stream_options={"include_usage": True}) as answer:
                    assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("limits", "error"),
    [("{stream_idle: 2s}", "provider_timeout"), ("{stream_duration: 3s}", "incomplete")],
    ids=["stream_idle", "stream_duration"],
)
def test_their_exchanges_end(start: Callable[..., Gateway], provider: Scripted, limits: str, error: str) -> None:
    """With `stream_duration` Envoy disconnects them. Else it keeps the end of the answer for them."""
    provider.script = endless(head("text/event-stream"), PIECE * 64)
    gateway = start(YAML % (provider.url, "") + f"limits: {limits}\n")
    with asking(gateway, 1) as [client]:
        assert client.recv(12) == b"HTTP/1.1 200"
        there = urlsplit(provider.url).port
        assert connected(there)
        entry = gateway.last(lambda entry: entry.get("model") == "fast")
        assert (entry["complete"], entry["usage_source"], entry["error"]) == (False, "estimated", error)
        eventually(lambda: not connected(there))
        if error == "incomplete":
            eventually(lambda: not connected(client.getpeername()[1], client.getsockname()[1]))


def test_a_provider_that_does_not_read_a_large_request_fails_over_after_its_own_timeout(
    start: Callable[..., Gateway],
) -> None:
    """The other target's timeout is ten minutes."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        both = "virtual_models: {both: {targets: [{model: fast}, {model: stub}]}}\n"
        gateway = start(YAML % (url, ", timeout: 2s") + both)
        answer = gateway.chat("both", "word " * 1_000_000)
        assert (answer.status_code, answer.headers["x-ai-provider"]) == (200, "sandbox")
        eventually(lambda: gateway.metric("extproc_tries_total", provider="fast", outcome="timeout") == 1)


def connected(local: int | None, remote: int | None = None) -> bool:
    """Whether a process holds the end at port `local` of a connection of loopback open. The other end learns that it
    was closed only when it has read everything.
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    ends = [(int(at.split(":")[1], 16), int(to.split(":")[1], 16)) for _, at, to, state, *_ in lines if state == "01"]
    return any(at == local and remote in (None, to) for at, to in ends)

"""The processor's socket is deleted under a running gateway, as cleaners of /tmp do, and Envoy starts again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Gateway, eventually

SETTINGS = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
stores: {counters: "memory:"}
"""


@pytest.fixture
def gateway(start: Callable[..., Gateway]) -> Gateway:
    return start(SETTINGS)


def place(gateway: Gateway) -> Path:
    """The processor's socket: it stands beside Envoy's bootstrap."""
    assert gateway.envoy is not None
    arguments = list(map(str, gateway.envoy.args))  # type: ignore[arg-type]
    return Path(arguments[arguments.index("-c") + 1]).with_name("extproc.sock")


def again(gateway: Gateway) -> None:
    """Another Envoy in place of the one that runs."""
    assert gateway.envoy is not None
    gateway.envoy.terminate()
    gateway.envoy.wait(30)
    gateway.envoy = subprocess.Popen(gateway.envoy.args, cwd=gateway.file.parent)


def served(gateway: Gateway) -> bool:
    try:
        return gateway.chat().status_code == 200
    except httpx.TransportError:  # Envoy begins
        return False


def ready(gateway: Gateway) -> tuple[int, str]:
    answer = gateway.http.get(gateway.status + "/readyz")
    return answer.status_code, answer.text


def test_a_deleted_socket_is_made_again_and_the_next_envoy_finds_it(gateway: Gateway):
    socket = place(gateway)
    socket.unlink()
    eventually(socket.is_socket)
    eventually(lambda: served(gateway))
    again(gateway)
    try:
        eventually(lambda: served(gateway))
        assert ready(gateway) == (200, "ok\n")
    finally:
        assert gateway.envoy is not None
        gateway.envoy.kill()
        gateway.envoy.wait()


def test_probes_are_red_while_the_socket_cannot_be_made(gateway: Gateway):
    socket = place(gateway)
    socket.unlink()
    socket.write_text("in the way")
    eventually(lambda: ready(gateway)[0] == 503)
    assert ready(gateway)[1] == f"another process serves {socket}\n"
    socket.unlink()
    eventually(lambda: ready(gateway) == (200, "ok\n"))
    assert socket.is_socket()

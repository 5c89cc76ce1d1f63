"""Conditions that must not stop the gateway: an unread log, and a settings file with any content."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, free_ports, run_gateway

SMALL = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}], models: [stub]}
stores: {counters: "memory:", ledger: "memory:"}
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_unread_output_stops_nothing(tmp_path: Path, stream: str):
    door, status, admin, mock = free_ports(4)
    (tmp_path / "gateway.yaml").write_text(
        f"listener: {{address: 127.0.0.1, port: {door}}}\nstatus: {{address: 127.0.0.1, port: {status}}}\n"
        f"admin: {{address: 127.0.0.1, port: {admin}}}\ntelemetry: {{log_buffer: 64KiB}}\n"
        + SMALL.replace("{mock_sandbox}", f"http://127.0.0.1:{mock}/v1")
    )
    outputs = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "-m", "extproc", "up", "--config", "gateway.yaml", "--concurrency", "1"],
        cwd=tmp_path,
        env={**os.environ, "EXTPROC_DEMO_KEY": KEY},
        **outputs,
    )
    url, metrics = f"http://127.0.0.1:{door}/v1/chat/completions", f"http://127.0.0.1:{status}/metrics"

    def serves() -> bool:
        assert process.poll() is None
        try:
            return httpx.post(url, json=chat_body("stub"), headers={"authorization": f"Bearer {KEY}"}).is_success
        except httpx.TransportError:
            return False

    try:
        eventually(serves, timeout=60)
        with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=10) as http:
            for _ in range(400):  # 112 filled a pipe
                assert http.post(url, json=chat_body("stub")).status_code == 200
            assert http.get(f"http://127.0.0.1:{status}/healthz").status_code == 200
            if stream == "stdout":
                lost = [line for line in http.get(metrics).text.splitlines() if line.startswith("extproc_log_lines_l")]
                assert float(lost[0].split()[1]) > 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("holds"), SMALL, ("sandbox",), {})


@pytest.mark.parametrize(
    "found",
    [
        b"budgets: [{name: b, unit: requests, limit: 1e30, window: hour}]\n",
        b"budgets: [{name: b, unit: usd, limit: 1e999999999, window: hour}]\n",
        b"\xff\xfe\x00",
        b"#" * (5 << 20),
        b"a: " + b"[" * 500,
        None,
    ],
    ids=["large", "larger", "no UTF-8", "5 MiB", "deep", "FIFO"],
)
def test_no_settings_file_stops_reloading(gateway: Gateway, found: bytes | None):
    refused = gateway.metric("extproc_reloads_total", outcome="refused")
    good = gateway.file.read_text()
    if found is None:
        gateway.file.unlink()
        os.mkfifo(gateway.file)
    else:
        gateway.file.write_bytes(good.encode() + found)
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="refused") == refused + 1)
    assert gateway.metric("extproc_settings_stale") == 1
    ready = gateway.http.get(gateway.status + "/readyz")
    assert (ready.status_code, "settings are stale: " in ready.text) == (200, True)
    assert gateway.chat().status_code == 200
    gateway.file.unlink()
    gateway.file.write_text(good.replace("models: [stub]", "models: []"))
    eventually(lambda: gateway.chat().status_code in (403, 404))
    assert gateway.metric("extproc_settings_stale") == 0
    assert gateway.http.get(gateway.status + "/readyz").text == "ok\n"
    gateway.file.write_text(good)
    eventually(lambda: gateway.chat().status_code == 200)

"""Starts what is measured and reads what it used: Envoy alone and Envoy with the processor, before the same mock."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

KEY = "sk-gw-bench"

SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
providers:
  sandbox: {{kind: mock, base_url: "http://127.0.0.1:{mock}/v1", max_requests: 10000, max_connections: 10000}}
models:
  "*": {{provider: sandbox}}
consumers:
  - {{name: bench, team: bench, keys: [{{env: BENCH_KEY}}]}}
teams:
  bench: {{models: ["*"]}}
budgets:
  - {{name: rate, per: [consumer], unit: requests, limit: 1000000000, window: minute}}
stores: {{counters: "{counters}"}}
telemetry: {{access_log: "off"}}
"""


@dataclass
class Process:
    """A child, and what it has used so far."""

    name: str
    child: subprocess.Popen[bytes]

    def cpu(self) -> float:
        """Seconds of CPU of all its threads so far, exact to the nanosecond as the scheduler counts."""
        total = 0
        for task in Path(f"/proc/{self.child.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


@dataclass
class Bench:
    """Everything that runs: two doors to the same mock."""

    alone: int  # port of Envoy without the processor
    gateway: int  # port of Envoy with it
    status: int
    envoy_alone: Process
    envoy: Process
    processor: Process

    def counted(self) -> int:
        """Exchanges that the processor says it has seen to their end."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("extproc_requests_total{"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def bench(counters: str = "memory:") -> Iterator[Bench]:
    """Start a mock, Envoy alone, and Envoy with the processor; end them when done."""
    ports = {name: free_port() for name in ("listener", "status", "admin", "mock", "alone")}
    children: list[subprocess.Popen[bytes]] = []

    def spawn(name: str, *command: str) -> Process:
        child = subprocess.Popen(command, env={**os.environ, "BENCH_KEY": KEY}, stdout=subprocess.DEVNULL)
        children.append(child)
        return Process(name, child)

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder)
        settings = root / "gateway.yaml"
        settings.write_text(SETTINGS.format(**ports, counters=counters.replace("{dir}", folder)))
        alone = root / "alone.yaml"
        alone.write_text(yaml.safe_dump(_alone(ports["alone"], ports["mock"])))
        envoy_yaml, secrets, sock = str(root / "envoy.yaml"), str(root / "secrets"), str(root / "extproc.sock")
        _render(settings, envoy_yaml, secrets, sock)
        envoy = str(Path(sys.executable).with_name("envoy"))
        quiet = ("--log-level", "error", "--use-dynamic-base-id", "--concurrency", "2")
        try:
            spawn("mock", sys.executable, "-m", "extproc", "mock", "--port", str(ports["mock"]))
            _wait(ports["mock"])
            processor = spawn(
                "processor", sys.executable, "-m", "extproc", "serve", "-c", str(settings), "--socket", sock,
                "--drain-notice", "0", "--drain-grace", "0",
            )  # fmt: skip
            _wait(ports["status"])
            envoy_alone = spawn("envoy alone", envoy, "-c", str(alone), *quiet)
            with_processor = spawn("envoy", envoy, "-c", envoy_yaml, *quiet)
            _wait(ports["alone"])
            _wait(ports["listener"])
            yield Bench(ports["alone"], ports["listener"], ports["status"], envoy_alone, with_processor, processor)
        finally:
            for child in reversed(children):
                child.terminate()
            for child in children:
                child.wait(20)


def _render(settings: Path, output: str, secrets: str, sock: str) -> None:
    from extproc import config, envoy_config

    loaded = config.load(settings)
    envoy_config.write_secrets(loaded, secrets)
    rendered = envoy_config.render(envoy_config.bootstrap(loaded, secrets_dir=secrets, socket=sock))
    Path(output).write_text(rendered)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def _alone(port: int, mock: int) -> dict[str, object]:
    """The least Envoy there is: one listener, one route, one cluster."""
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "alone",
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}],
                }
            ]
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": mock}}
    thresholds = [{"max_connections": 10000, "max_requests": 10000, "max_pending_requests": 10000}]
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "alone",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {"filters": [{"name": "envoy.http_connection_manager", "typed_config": manager}]}
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "mock",
                    "connect_timeout": "1s",
                    "circuit_breakers": {"thresholds": thresholds},
                    "load_assignment": {
                        "cluster_name": "mock",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ],
        }
    }

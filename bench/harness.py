"""Starts the processes of a benchmark and reads their CPU and memory: Envoy alone and Envoy with the processor, before
the same mock.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import site
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

KEY = "sk-gw-bench"
ROOT = Path(__file__).parent.parent

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
stores: {{counters: "{counters}", ledger: "sqlite:{dir}/ledger.db"}}
telemetry: {{access_log: "off"}}
"""


@dataclass
class Process:
    """A child process and its use of CPU and memory so far."""

    name: str
    child: subprocess.Popen[bytes]

    def cpu(self) -> float:
        """Seconds of CPU of all its threads so far, in nanosecond steps, from the scheduler."""
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
    """All processes of a run: two listeners before the same mock, and further mocks on demand."""

    alone: int  # port of Envoy without the processor
    gateway: int  # port of Envoy with it
    status: int
    envoy_alone: Process
    envoy: Process
    processor: Process
    mocks: Mapping[str, int]  # ports by name

    def counted(self, pattern: str = r"extproc_requests_total\{") -> int:
        """The sum of the matching metrics of the processor; by default its finished exchanges."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if re.match(pattern, line))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def bench(counters: str = "memory:", *, settings: str = SETTINGS, mocks: Sequence[str] = ("mock",)) -> Iterator[Bench]:
    """Start the mocks, Envoy alone before the first of them, and Envoy with the processor. End them at the end of the
    context.

    `settings` is a filter YAML with `{listener}`, `{status}`, `{admin}`, `{counters}`, `{dir}` (a directory of this
    run) and the name of each mock for its port; other braces are doubled. Every process runs in that directory. Stores
    with relative paths, the default ones included, are created there and not in the user's directory.
    """
    ports = {name: free_port() for name in ("listener", "status", "admin", "alone", *mocks)}
    children: list[subprocess.Popen[bytes]] = []

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:

        def spawn(name: str, *command: str) -> Process:
            child = subprocess.Popen(command, env=environment(), cwd=folder, stdout=subprocess.DEVNULL)
            children.append(child)
            return Process(name, child)

        root = Path(folder)
        file = root / "gateway.yaml"
        file.write_text(settings.format(**ports, counters=counters.replace("{dir}", folder), dir=folder))
        bare = root / "alone.yaml"
        bare.write_text(yaml.safe_dump(alone(ports["alone"], ports[mocks[0]])))
        envoy_yaml, secrets, sock = str(root / "envoy.yaml"), str(root / "secrets"), str(root / "extproc.sock")
        render(file, envoy_yaml, secrets, sock)
        envoy = str(Path(sys.executable).with_name("envoy"))
        quiet = ("--log-level", "error", "--use-dynamic-base-id", "--concurrency", "2")
        try:
            for name in mocks:
                spawn(name, sys.executable, "-m", "extproc", "mock", "--port", str(ports[name]))
                wait(ports[name])
            processor = spawn(
                "processor", sys.executable, "-m", "extproc", "serve", "-c", str(file), "--socket", sock,
                "--drain-notice", "0", "--drain-grace", "0",
            )  # fmt: skip
            wait(ports["status"])
            envoy_alone = spawn("envoy alone", envoy, "-c", str(bare), *quiet)
            with_processor = spawn("envoy", envoy, "-c", envoy_yaml, *quiet)
            wait(ports["alone"])
            wait(ports["listener"])
            doors = ports["alone"], ports["listener"], ports["status"]
            yield Bench(*doors, envoy_alone, with_processor, processor, {name: ports[name] for name in mocks})
        finally:
            end(children)


def environment() -> dict[str, str]:
    """The environment of a process that runs this checkout from any directory."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "BENCH_KEY": KEY, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(slots=True, frozen=True)
class Interpreter:
    """A Python that runs the processor with the packages of this one, whose minor version it must have."""

    path: str = sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """`environment`, with the packages."""
        packages = [] if self.path == sys.executable else site.getsitepackages()
        found = environment()
        return {**found, "PYTHONPATH": os.pathsep.join([found["PYTHONPATH"], *packages])}

    def describe(self) -> str:
        """Its version, and whether it was built with profile-guided optimization, as most distributions' is. Raises
        SystemExit for another minor version.
        """
        program = (
            "import platform, sysconfig; print(platform.python_version(), sysconfig.get_config_var('CONFIG_ARGS'))"
        )
        told = subprocess.run([self.path, "-c", program], capture_output=True, text=True, check=True).stdout
        version, _, built = told.partition(" ")
        if version.split(".")[:2] != platform.python_version().split(".")[:2]:
            raise SystemExit(f"{self.path} is Python {version}: its minor version must be that of {sys.executable}")
        return f"Python {version}" + (" with PGO" if "--enable-optimizations" in built else "")


def render(settings: Path, output: str, secrets: str, sock: str) -> None:
    from extproc.envoy import envoy_config
    from extproc.settings import config

    loaded = config.load(settings)
    envoy_config.write_secrets(loaded, secrets)
    rendered = envoy_config.render(envoy_config.bootstrap(loaded, secrets_dir=secrets, socket=sock))
    Path(output).write_text(rendered)


def end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes, the latest first, and wait for them; those that do not end in 20 seconds are killed."""
    for child in reversed(children):
        child.terminate()
    for child in children:
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def beside_stub(folder: Path, file: Path, ports: Mapping[str, int], env: Mapping[str, str]) -> Iterator[None]:
    """`extproc up` with the settings in `file`, beside the stub of a provider at `ports["stub"]`."""
    stub = [sys.executable, "-m", "bench.stub", "--port", str(ports["stub"])]
    up = [sys.executable, "-m", "extproc", "up", "-c", str(file)]
    with (folder / "log").open("wb") as log:
        children = [subprocess.Popen(each, env=env, stdout=log, stderr=log) for each in (stub, up)]
    try:
        wait(ports["listener"], 60)
        yield
    finally:
        for child in reversed(children):
            child.terminate()
            child.wait(60)


def wait(port: int, patience: float = 30) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def alone(port: int, mock: int) -> dict[str, object]:
    """The smallest Envoy configuration: one listener, one route, one cluster."""
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

"""The arms of `make bench`: Envoy alone, this gateway, and other gateways.

Every arm uses the same stub. All processes of an arm run on one core; the stub and the client run on the other.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench.harness import KEY, Interpreter, alone, end, free_port, render, wait
from bench.others import HOMES, OTHERS

SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
processor: {{socket: "{dir}/extproc.sock"{processor}}}
providers:
  stub: {{kind: mock, base_url: "http://127.0.0.1:{stub}/v1", max_requests: 10000, max_connections: 10000}}
models:
  "*": {{provider: stub}}
consumers:
  - {{name: bench, team: bench, keys: [{{env: BENCH_KEY}}]}}
teams:
  bench: {{models: ["*"]}}
budgets:
  - {{name: tokens, per: [consumer], unit: tokens, limit: 1000000000000, window: hour}}
stores: {{counters: "{counters}", ledger: "sqlite:{dir}/ledger.db"}}
telemetry: {{access_log: "off"}}
{more}
"""
"""Key authentication, a budget in tokens, a ledger and metrics are on."""

MEASURED, BESIDE = {0}, {1}
"""The core of the arms, and the core of the stub and the client; the same one on a machine with one core."""


@dataclass
class Arm:
    """One arm. `roots` are its processes, by name; processes that they start count with them."""

    name: str
    port: int
    roots: Mapping[str, int]
    headers: Sequence[str] = ()
    model: str = "stub"
    status: str = ""  # address of its metrics
    counted: Callable[[], int] | None = None  # requests answered, by its own count
    sent: int = 0
    errors: int = 0
    serves: dict[bytes, bool] = field(default_factory=dict)  # by bytes that an answer has, see `serves`
    figures: dict[str, float] = field(default_factory=dict)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far, by process, from the scheduler."""
        return {name: sum(map(cpu_seconds, family(root))) for name, root in self.roots.items()}

    def memory(self, name: str) -> int:
        """Resident bytes of a process and of the processes it started."""
        return sum(map(_memory, family(self.roots[name])))


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process, as the scheduler counts."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


class Stage:
    """Starts processes in a folder, each on its cores, and ends them all."""

    def __init__(self, folder: Path, python: Interpreter | None = None) -> None:
        self.folder = folder
        self.python = python or Interpreter()  # runs the processors
        self._children: list[subprocess.Popen[bytes]] = []
        self.stub = free_port()
        self.spawn([sys.executable, "-m", "bench.stub", "--port", str(self.stub)], BESIDE)
        wait(self.stub)

    def spawn(self, command: Sequence[str], cores: set[int] = MEASURED, **env: str) -> int:
        log = (self.folder / f"{len(self._children)}.log").open("wb")
        child = subprocess.Popen(
            command,
            env={**os.environ, "BENCH_KEY": KEY, **env},
            stdout=log,
            stderr=log,
        )
        pin(cores, child.pid)  # before it starts threads, which inherit it
        self._children.append(child)
        return child.pid

    def close(self) -> None:
        end(self._children)

    # --- arms

    def envoy_alone(self, upstream: int = 0) -> Arm:
        """Envoy before the stub, or before another server."""
        port = free_port()
        file = self.folder / "alone.yaml"
        file.write_text(yaml.safe_dump(alone(port, upstream or self.stub)))
        return self.ready(Arm("Envoy alone", port, {"Envoy": self.envoy(file)}))

    def gateway(
        self,
        name: str,
        *,
        processor: str = "",
        more: str = "",
        counters: str = "memory:",
        cores: set[int] = MEASURED,
        around: set[int] = MEASURED,
        settings: str = SETTINGS,
    ) -> Arm:
        """Envoy and the processor of this project. `processor` and `more` are added to its settings. The processor runs
        on `cores`, Envoy on those `around`, with a thread for each.
        """
        folder = self.folder / re.sub(r"\W+", "-", name)
        folder.mkdir()
        listener, status, admin = free_port(), free_port(), free_port()
        text = settings.format(
            listener=listener,
            status=status,
            admin=admin,
            stub=self.stub,
            dir=folder,
            processor=processor,
            more=more,
            counters=counters.format(dir=folder),
        )
        (folder / "gateway.yaml").write_text(text)
        render(folder / "gateway.yaml", str(folder / "envoy.yaml"), str(folder / "secrets"), f"{folder}/extproc.sock")
        serve = [self.python.path, "-m", "extproc", "serve", "-c", str(folder / "gateway.yaml"), "--drain-notice", "0"]
        pid = self.spawn([*serve, "--drain-grace", "0"], cores, **self.python.environment)
        wait(status)
        roots = {"Envoy": self.envoy(folder / "envoy.yaml", around), "processor": pid}
        metrics = f"http://127.0.0.1:{status}/metrics"
        return self.ready(Arm(name, listener, roots, status=metrics, counted=lambda: counted(status)))

    def other(self, name: str) -> Arm:
        """Another gateway, installed if it is not."""
        other, home, port = OTHERS[name], HOMES / name, free_port()
        other.install(home)
        upstream = f"http://127.0.0.1:{self.stub}"

        def fill(text: str) -> str:
            return text.format(port=port, upstream=upstream, home=home)

        env = {"OPENAI_API_KEY": "sk-none", "PORT": str(port)}
        env |= {key: fill(value) for key, value in other.env.items()}
        pid = self.spawn([fill(word) for word in other.command], **env)
        headers = [fill(header) for header in other.headers]
        return self.ready(Arm(name, port, {name: pid}, headers, other.model), patience=120)

    def envoy(self, file: Path, cores: set[int] = MEASURED) -> int:
        envoy = str(Path(sys.executable).with_name("envoy"))
        quiet = ("--log-level", "error", "--use-dynamic-base-id", "--concurrency", str(len(cores)))
        return self.spawn([envoy, "-c", str(file), *quiet], cores)

    def ready(self, arm: Arm, patience: float = 30) -> Arm:
        wait(arm.port, patience)
        return arm


def pin(cores: set[int], pid: int = 0) -> None:
    """Keep a process (0: this one) on these cores, if the machine has them."""
    if max(cores) < (os.cpu_count() or 1):
        os.sched_setaffinity(pid, cores)


def counted(status: int) -> int:
    """Finished exchanges, from the processor's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{status}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("extproc_requests_total{"))


@contextlib.contextmanager
def staged(folder: Path, python: Interpreter | None = None) -> Iterator[Stage]:
    stage = Stage(folder, python)
    try:
        yield stage
    finally:
        stage.close()

"""The processes that faults happen to: Envoy, the processor, three providers, the stores. They are ended by pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from bench.arms import family
from bench.harness import end, environment, free_port, wait
from extproc.envoy import envoy_config
from extproc.settings import config
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

_RESTART = 0.5  # seconds until a processor that ended starts again, as a kubelet would see to
_TMPFS = "24m"

SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
providers:
  a: {{kind: openai, base_url: "http://127.0.0.1:{a}/v1", {wide}}}
  b: {{kind: openai, base_url: "http://127.0.0.1:{b}/v1", {wide}}}
  c: {{kind: openai, base_url: "http://127.0.0.1:{c}/v1", {wide}}}
models:
  a: {{provider: a, model: stub}}
  b: {{provider: b, model: stub}}
  a-slow: {{provider: a, model: "stub+pace=100ms+words=30"}}
  b-slow: {{provider: b, model: "stub+pace=100ms+words=30"}}
  endless: {{provider: c}}
virtual_models:
  plain: {{targets: [{{model: a}}, {{model: b}}], {retry}}}
  slow: {{targets: [{{model: a-slow}}, {{model: b-slow}}], {retry}}}
consumers:
  - {{name: bench, keys: [{{env: BENCH_KEY}}]}}
budgets:
  - {{name: rate, per: [consumer], unit: requests, limit: 1000000000, window: minute}}
  - {{name: tokens, per: [consumer], unit: tokens, limit: 1000000000000, window: day}}
limits: {{request_body: 16MiB}}
stores: {{counters: "{counters}", ledger: "{ledger}"}}
telemetry: {{access_log: "off"}}
"""
_WIDE = "max_requests: 10000, max_connections: 10000"
_RETRY = "retry: {per_try_timeout: 2s, per_try_timeout_stream: 2s}"


class World:
    """`shared`: counters in Redis and the ledger in PostgreSQL; otherwise in files of `data`, a small file system of
    their own where this user may mount one.
    """

    def __init__(self, folder: Path, *, shared: bool) -> None:
        self.folder, self.shared = folder, shared
        self.ports = {name: free_port() for name in ("listener", "status", "admin", "a", "b", "c")}
        self.data = folder / "data"
        self.file = folder / "gateway.yaml"
        self.socket = folder / "extproc.sock"
        self.mounted = False
        self.program = ["extproc"]  # the module of the next processor, and its first arguments
        self.begun = 0.0  # when the latest fault began; a fault that has to prepare something sets it
        self.redis = RedisServer(folder)
        self.postgres: PostgresServer | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._env = {**environment(), "OPENAI_API_KEY": "sk-stub"}

    def start(self) -> None:
        os.environ.update(self._env)  # the settings are read here too
        self.data.mkdir()
        counters, ledger = f"sqlite:{self.data}/counters.db", f"sqlite:{self.data}/ledger.db"
        if self.shared:
            self.redis.start()
            self.postgres = PostgresServer()
            self.postgres.start()
            counters, ledger = self.redis.url, self.postgres.create("faults")
        elif os.geteuid() == 0:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS}", "tmpfs", str(self.data)]
            self.mounted = subprocess.run(mount, check=False).returncode == 0
        text = SETTINGS.format(**self.ports, wide=_WIDE, retry=_RETRY, counters=counters, ledger=ledger)
        self.file.write_text(text)
        secrets, bootstrap = str(self.folder / "secrets"), self.folder / "envoy.yaml"
        settings = config.load(self.file)
        envoy_config.write_secrets(settings, secrets)
        tree = envoy_config.bootstrap(settings, secrets_dir=secrets, socket=str(self.socket))
        bootstrap.write_text(envoy_config.render(tree))
        for name in "ab":
            self.provider(name)
        self.provider("c", "endless")
        self.processor()
        for name in ("a", "b", "c", "status"):
            wait(self.ports[name])
        envoy = str(Path(sys.executable).with_name("envoy"))
        quiet = ("--log-level", "error", "--use-dynamic-base-id", "--concurrency", "1")
        self.spawn("envoy", envoy, "-c", str(bootstrap), *quiet)
        wait(self.ports["listener"])

    def stop(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
        end([*self._children.values()])
        self.redis.stop()
        if self.postgres is not None:
            self.postgres.stop()
        if self.mounted:
            subprocess.run(["umount", str(self.data)], check=False)

    async def watch(self) -> None:
        """Start a processor that ended again."""
        while True:
            await asyncio.sleep(_RESTART)
            if self._children["processor"].poll() is not None:
                self.processor()

    # --- processes

    def provider(self, name: str, what: str = "") -> None:
        """Start a provider at its port: the stub, or one that breaks the rules."""
        module = ["bench.faults.provider", what] if what else ["bench.stub"]
        self.spawn(name, sys.executable, "-m", module[0], "--port", str(self.ports[name]), *module[1:])

    def processor(self) -> None:
        command = [sys.executable, "-m", *self.program, "serve", "-c", str(self.file), "--socket", str(self.socket)]
        command += ["--drain-notice", "0", "--drain-grace", "1"]
        self.spawn("processor", *command)

    def spawn(self, name: str, *command: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self._children[name] = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, cwd=self.folder)

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def kill(self, name: str) -> None:
        child = self._children[name]
        child.kill()
        child.wait()

    def send(self, name: str, number: int) -> None:
        self._children[name].send_signal(number)

    def send_postgres(self, number: int) -> None:
        """To the server and all its processes."""
        assert self.postgres is not None
        for pid in family(self.postgres.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # --- what the processor says

    def metric(self, name: str) -> float:
        """The sum of a metric's series; 0 while the processor is away."""
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['status']}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return 0.0

    def memory(self) -> int:
        """Resident bytes of the processor."""
        pages = int(Path(f"/proc/{self.pid('processor')}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


async def eventually(condition: object, seconds: float = 10.0) -> bool:
    """True when the condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await asyncio.to_thread(condition):  # type: ignore[arg-type]
            return True
        await asyncio.sleep(0.1)
    return False

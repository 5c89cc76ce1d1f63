"""The processes of a soak: three processors behind one Envoy, a Redis, a ledger, a provider. They are ended by pid.

Envoy itself spreads streams over the three sockets, and notices a killed processor as it would in a pod.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from bench.harness import end, free_port, wait
from bench.soak.plan import CONSUMERS, Plan, settings
from extproc.envoy import envoy_config
from extproc.settings import config
from tests.postgres_server import PostgresServer, binaries
from tests.redis_server import RedisServer

PROCESSORS = 3


def key(consumer: int) -> str:
    return f"sk-gw-soak-{consumer}"


class World:
    """`start` and `stop` all processes; `kill` and `revive` one processor."""

    def __init__(self, plan: Plan, folder: Path, *, postgres: bool = False) -> None:
        doors = [f"{door}{number}" for door in ("status", "admin") for number in range(PROCESSORS)]
        self.ports = {name: free_port() for name in ("listener", "mock", *doors)}
        self.plan = plan
        self.folder = folder
        self.redis = RedisServer(folder)
        self.postgres = PostgresServer() if postgres and binaries() is not None else None
        self.counters = self.redis.url
        self.ledger = f"sqlite:{folder}/ledger.db"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._log = (folder / "log").open("wb")
        self._env = {**os.environ, **{f"SOAK_KEY_{number}": key(number) for number in range(CONSUMERS)}}

    def start(self) -> None:
        os.environ.update(self._env)  # the settings are read here too
        self.redis.start()
        if self.postgres is not None:
            self.postgres.start()
            self.ledger = self.postgres.create("soak")
        self._spawn("mock", sys.executable, "-m", "bench.soak.provider", str(self.ports["mock"]))
        for number in range(PROCESSORS):
            self.write_settings(number)
            self.revive(number)
        envoy_yaml = self.folder / "envoy.yaml"
        envoy_yaml.write_text(yaml.safe_dump(self._bootstrap()))
        wait(self.ports["mock"])
        for number in range(PROCESSORS):
            wait(self.ports[f"status{number}"])
        envoy = str(Path(sys.executable).with_name("envoy"))
        quiet = ("--log-level", "error", "--use-dynamic-base-id", "--concurrency", "2")
        self._spawn("envoy", envoy, "-c", str(envoy_yaml), *quiet)
        wait(self.ports["listener"])

    def stop(self) -> None:
        end([*self._children.values()])
        self.redis.stop()
        if self.postgres is not None:
            self.postgres.stop()
        self._log.close()

    def write_settings(self, number: int, **changes: float) -> None:
        text = settings(self.plan, self.ports, self.counters, self.ledger, number, **changes)
        self._file(number).write_text(text)

    def kill(self, number: int) -> None:
        child = self._children[f"processor{number}"]
        child.kill()
        child.wait()

    def revive(self, number: int) -> None:
        socket = self.folder / f"{number}.sock"
        self._spawn(
            f"processor{number}", sys.executable, "-m", "extproc", "serve", "-c", str(self._file(number)),
            "--socket", str(socket), "--drain-notice", "0", "--drain-grace", "1",
        )  # fmt: skip

    def metric(self, pattern: str, number: int | None = None) -> float:
        """The sum of the matching metrics of all processors, or of one. A processor that is down counts as 0."""
        numbers = range(PROCESSORS) if number is None else (number,)
        total = 0.0
        for one in numbers:
            with contextlib.suppress(urllib.error.URLError, OSError):
                text = _get(f"http://127.0.0.1:{self.ports[f'status{one}']}/metrics").decode()
                total += sum(float(line.split()[-1]) for line in text.splitlines() if re.match(pattern, line))
        return total

    def provided(self) -> list[dict[str, Any]]:
        """The requests that reached the provider, from its log, oldest first."""
        found: list[dict[str, Any]] = json.loads(_get(f"http://127.0.0.1:{self.ports['mock']}/requests"))
        return found

    def provided_count(self) -> int:
        count: int = json.loads(_get(f"http://127.0.0.1:{self.ports['mock']}/requests?count"))["count"]
        return count

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _file(self, number: int) -> Path:
        return self.folder / f"gateway{number}.yaml"

    def _spawn(self, name: str, *command: str) -> None:
        self._children[name] = subprocess.Popen(command, env=self._env, stdout=self._log, stderr=self._log)

    def _bootstrap(self) -> dict[str, Any]:
        loaded = config.load(self._file(0))
        secrets = str(self.folder / "secrets")
        envoy_config.write_secrets(loaded, secrets)
        document = envoy_config.bootstrap(loaded, secrets_dir=secrets, socket="0.sock")
        for cluster in document["static_resources"]["clusters"]:
            if cluster["name"] == "extproc":
                cluster["load_assignment"]["endpoints"] = [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": {"pipe": {"path": str(self.folder / f"{number}.sock")}}}}
                            for number in range(PROCESSORS)
                        ]
                    }
                ]
        return document


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        body: bytes = answer.read()
        return body

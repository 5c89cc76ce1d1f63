"""Pods of the chart's fleet, with a Redis and a PostgreSQL behind TLS, as Services of a cluster: `make cluster`."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import certificates
from tests.cluster.client import IMAGES, KEY, Client, Load
from tests.cluster.kubelet import Pod, run, running, wait
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.test_chart import rendered

pytestmark = pytest.mark.cluster

HOST = "169.254.99.1"  # of this machine, as pods reach it
REDIS, POSTGRES = "redis.stores.svc", "postgres.stores.svc"
SETTINGS = """
providers:
  sandbox: {{kind: openai, base_url: "http://{host}:{port}/v1", api_key: "file:/run/secrets/extproc/openai-api-key"}}
models:
  assistant: {{provider: sandbox, model: stub}}
consumers:
  - {{name: demo, team: platform, keys: [{{file: /run/secrets/extproc/demo-key}}]}}
  - {{name: other, team: platform, keys: [{{file: /run/secrets/extproc/other-key}}]}}
teams:
  platform: {{models: ["*"]}}
budgets:
  - {{name: few, match: {{consumer: other}}, unit: requests, limit: 10, window: day}}
limits: {{exchanges: 1000}}
"""


class Fleet:
    """The stores, a provider, and pods that share them."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self._folder, self._closing = folder, closing
        run("ip", "address", "replace", f"{HOST}/32", "dev", "lo")
        closing.callback(run, "ip", "address", "delete", f"{HOST}/32", "dev", "lo", check=False)
        folder.chmod(0o755)
        self.authority, key = certificates.make(folder, "stores", hosts=[REDIS, POSTGRES])
        self._redis(key)
        self.postgres = self._postgres(key)
        self._objects = self._render(self._provider())
        self._pods = 0

    def pod(self) -> Pod:
        """One more pod, which is not started."""
        self._pods += 1
        folder = self._folder / f"pod{self._pods}"
        hosts = {REDIS: HOST, POSTGRES: HOST}
        return Pod(f"extproc-f{self._pods}", 80 + self._pods, self._objects, IMAGES, folder, hosts=hosts)

    def rows(self) -> int:
        """Exchanges of the consumer `demo` in the ledger."""
        return int(self.postgres.sql("SELECT count(*) FROM exchanges WHERE consumer = 'demo'", "usage"))

    def _redis(self, key: str) -> None:
        RedisServer.need()
        tls = ["--tls-port", "6379", "--tls-cert-file", self.authority, "--tls-key-file", key]
        tls += ["--tls-ca-cert-file", self.authority, "--tls-auth-clients", "no", "--protected-mode", "no"]
        user = ["--user", "gateway", "on", ">redis-secret", "~*", "&*", "+@all"]
        server = RedisServer(self._folder, "--bind", f"127.0.0.1 {HOST}", *tls, *user)
        server.start()
        self._closing.callback(server.stop)

    def _postgres(self, key: str) -> PostgresServer:
        PostgresServer.need()
        server = PostgresServer("-c", f"listen_addresses=127.0.0.1,{HOST}", "-c", "ssl=on")
        self._closing.callback(server.stop)
        data = server.folder / "data"
        for name, file in (("server.crt", self.authority), ("server.key", key)):
            (data / name).write_bytes(Path(file).read_bytes())
            (data / name).chmod(0o600)
            run("chown", "--reference", str(data), str(data / name))
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("hostssl all gateway 169.254.0.0/16 scram-sha-256\n")
        server.start()
        server.create("usage")
        server.sql("ALTER USER gateway PASSWORD 'postgres-secret'")
        return server

    def _provider(self) -> int:
        with socket.create_server((HOST, 0)) as held:
            port: int = held.getsockname()[1]
        command = [sys.executable, "-m", "extproc", "mock", "--address", HOST, "--port", str(port)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._closing.callback(process.wait)
        self._closing.callback(process.kill)
        return port

    def _render(self, port: int) -> list[dict[str, Any]]:
        (self._folder / "gateway.yaml").write_text(SETTINGS.format(host=HOST, port=port))
        postgres = f"postgresql://gateway@{POSTGRES}:{self.postgres.port}/usage"
        objects = rendered(
            "fleet", "--set-file", f"gateway={self._folder}/gateway.yaml", "--set", f"postgresql.url={postgres}"
        )
        authority = Path(self.authority).read_text()
        certificate, key = (Path(each).read_text() for each in certificates.make(self._folder, "ai.example.com"))
        secrets = {
            "extproc-keys": {
                "redis-password": "redis-secret",
                "postgres-password": "postgres-secret",
                "stores-ca": authority,
                "openai-api-key": "sk-provider",
                "admin-token": "admin-secret",
                "demo-key": KEY,
                "other-key": "other",
            },
            "extproc-tls": {"tls.crt": certificate, "tls.key": key},
        }
        made = [{"kind": "Secret", "metadata": {"name": name}, "data": data} for name, data in secrets.items()]
        return [*objects, *yaml.safe_load(yaml.safe_dump(made))]

    @property
    def listener_authority(self) -> str:
        """PEM file of the authority of the pods' listeners."""
        return str(self._folder / "ai.example.com.crt")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as closing:
        yield Fleet(tmp_path_factory.mktemp("fleet"), closing)


def taking_turns(clients: list[Client]) -> Callable[[], int]:
    """Asks the clients' pods one after the other, as a Service does."""
    at = 0

    def ask() -> int:
        nonlocal at
        at += 1
        return clients[at % len(clients)].status()

    return ask


def test_two_pods_share_budgets_and_a_ledger_and_are_replaced_without_a_failed_request(fleet: Fleet) -> None:
    first, second, third = fleet.pod(), fleet.pod(), fleet.pod()
    with running(first), running(second):
        clients = [Client(pod, fleet.listener_authority) for pod in (first, second)]
        assert sorted(client.status(key="other") for client in clients * 10) == [200] * 10 + [402] * 10
        ask = taking_turns(clients)
        with Load(ask) as load:
            time.sleep(2)
            with running(third):
                clients.append(Client(third, fleet.listener_authority))
                time.sleep(1)
                ending = clients.pop(0)
                seconds = first.terminate()
                assert seconds < 30, "no stream is open"
                time.sleep(2)
                assert ending.status() == 0
                assert load.failed == []
                wait(lambda: fleet.rows() >= load.asked - 5, 15, "rows are missing")

"""Real faults, a real Prometheus and a real Alertmanager: `python -m bench.alerts`. It takes seven minutes.

The gateway serves four requests a second. Each fault lasts until its alerts have rung; the table has the seconds from
the fault to the notification of Alertmanager, and from its end to the notification that it is over. The bar for both is
a minute. The exit code is 1 when one is missed. `prometheus`, `prometheus-alertmanager` and `redis-server` must be
installed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from bench.__main__ import row
from bench.harness import KEY, ROOT, SETTINGS, Bench, Process, bench, end, environment, free_port, wait
from tests.redis_server import RedisServer

BAR = 60.0
"""Seconds until an alert rings, and until it is over."""
_SETTINGS = SETTINGS.replace('"*": {{provider: sandbox}}', '"*": {{provider: sandbox, price: {{input: 1, output: 1}}}}')
_RATE = 4  # requests a second
_PATIENCE = 180.0
_SCRAPE = "15s"
_CALM = 75.0  # seconds of undisturbed traffic before the first fault


@dataclass
class Notified:
    """What Alertmanager told, by alert: times of ringing and of its end."""

    rang: dict[str, float] = field(default_factory=dict)
    over: dict[str, float] = field(default_factory=dict)

    def take(self, told: Mapping[str, object]) -> None:
        alerts = told["alerts"]
        assert isinstance(alerts, list)
        for alert in alerts:
            times = self.rang if alert["status"] == "firing" else self.over
            times.setdefault(alert["labels"]["alertname"], time.monotonic())


@contextlib.contextmanager
def receiver(notified: Notified) -> Iterator[int]:
    """The port of a webhook that Alertmanager calls."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notified.take(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    yield server.server_port
    server.shutdown()


@contextlib.contextmanager
def watching(what: Bench, folder: Path, hook: int) -> Iterator[None]:
    """Prometheus with the project's rules, and Alertmanager."""
    prometheus, alertmanager = free_port(), free_port()
    scraped = [{"job_name": "extproc", "static_configs": [{"targets": [f"127.0.0.1:{what.status}"]}]}]
    told = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": _SCRAPE, "evaluation_interval": _SCRAPE},
                "rule_files": [str(ROOT / "k8s/monitoring/alerts.yaml")],
                "scrape_configs": scraped,
                "alerting": {"alertmanagers": told},
            }
        )
    )
    route = {"receiver": "hook", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "5s"}
    receivers = [{"name": "hook", "webhook_configs": [{"url": f"http://127.0.0.1:{hook}/", "send_resolved": True}]}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump({"route": route, "receivers": receivers}))
    commands = {
        alertmanager: [
            "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts",
            f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address=", "--log.level=error",
        ],
        prometheus: [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series",
            f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=error",
        ],
    }  # fmt: skip
    children = []
    try:
        for port, command in commands.items():
            children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            wait(port)
        yield
    finally:
        end(children)


@contextlib.contextmanager
def traffic(port: int) -> Iterator[None]:
    """A few requests a second, whatever becomes of them."""
    stopped = threading.Event()
    body = json.dumps({"model": "stub", "messages": [{"role": "user", "content": "Hello"}]})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}

    def send() -> None:
        while not stopped.wait(1 / _RATE):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", "/v1/chat/completions", body, headers)
                connection.getresponse().read()
            connection.close()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    yield
    stopped.set()
    sender.join()


def control(port: int, fault: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("PUT", "/control", json.dumps({"fault": fault}))
    connection.getresponse().read()
    connection.close()


class Killed:
    """The processor, killed and started again."""

    def __init__(self, what: Bench) -> None:
        self._what = what
        self._again: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        self._what.processor.child.send_signal(signal.SIGKILL)
        self._what.processor.child.wait()

    def end(self) -> None:
        command = self._what.processor.child.args
        assert isinstance(command, list | tuple)
        folder = Path(command[command.index("-c") + 1]).parent
        child = subprocess.Popen(command, env=environment(), cwd=folder, stdout=subprocess.DEVNULL)
        self._again.append(child)
        self._what.processor = Process("processor", child)
        wait(self._what.status)

    def close(self) -> None:
        end(self._again)


def drive(
    notified: Notified, name: str, alerts: Sequence[str], begin: Callable[[], None], stop: Callable[[], None]
) -> bool:
    """One fault. True when each of its alerts kept the bar."""
    notified.rang.clear()
    begun = time.monotonic()
    begin()
    _until(lambda: all(alert in notified.rang for alert in alerts))
    notified.over.clear()
    ended = time.monotonic()
    stop()
    _until(lambda: all(alert in notified.over for alert in alerts))
    kept = True
    for alert in alerts:
        rang, over = notified.rang.get(alert, 0.0) - begun, notified.over.get(alert, 0.0) - ended
        told = [f"{seconds:.0f} s" if seconds > 0 else "never" for seconds in (rang, over)]
        row(f"  {name}: {alert}", *told)
        kept = kept and 0 < rang <= BAR and 0 < over <= BAR
    return kept


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.2)


def main() -> int:
    notified = Notified()
    with tempfile.TemporaryDirectory(prefix="alerts-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "redis").mkdir()
        redis = RedisServer(folder / "redis")
        redis.start()
        stack.callback(redis.stop)
        what = stack.enter_context(bench(redis.url, settings=_SETTINGS))
        hook = stack.enter_context(receiver(notified))
        stack.enter_context(watching(what, folder, hook))
        stack.enter_context(traffic(what.gateway))
        killed = Killed(what)
        stack.callback(killed.close)
        time.sleep(_CALM)
        if notified.rang:
            print("alerts without a fault:", *notified.rang)
            return 1
        fail = partial(control, what.mocks["mock"])
        row(f"scrapes each {_SCRAPE}, bar {BAR:.0f} s", "rings", "is over")
        kept = [
            drive(
                notified,
                "the provider fails",
                ["Outage"],
                partial(fail, "status=500"),
                partial(fail, ""),
            ),
            drive(notified, "the processor is killed", ["GatewayAbsent"], killed.begin, killed.end),
            drive(notified, "Redis hangs", ["BudgetUnguarded", "Outage"], redis.pause, redis.resume),
        ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    os.environ.setdefault("no_proxy", "127.0.0.1")
    sys.exit(main())

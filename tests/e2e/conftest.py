"""A whole gateway for a test: Envoy, the processor and mock providers, with a filter YAML of the test's own.

`start` is a factory; `demo` is one gateway that most tests share. Processes are ended by pid at the end of the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from extproc.__main__ import main
from tests.e2e import late, parts
from tests.e2e.scripted import Scripted

T = TypeVar("T")
HERE = Path(__file__).parent
KEY = "sk-gw-tests"
PORTS = 3  # listener, status, admin
KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=None)
"""No bound on idle connections: httpcore closes one beyond it even while another thread begins to use it."""
TRANSPORT = os.environ.get("EXTPROC_TRANSPORT", "")
"""The gRPC transport of the gateways: `EXTPROC_TRANSPORT=grpcio make e2e`; the default is that of the settings."""
TICK = 0.010
"""Seconds. Envoy's timers go by a coarse clock of the kernel, which stands still for 1 to 10 ms at a time: they may end
that much before a time measured here.
"""


late.delay()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def free_ports(count: int) -> list[int]:
    """Free ports of loopback. No other process of tests on this machine gets the same while this one runs: each holds a
    name for its ports, which the kernel takes back at its end.
    """
    found: list[int] = []
    for port in random.sample(range(12_000, 28_000), 16_000):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0extproc-test-port-{port}")
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            name.close()
            continue
        name.detach()  # open until the process ends
        found.append(port)
        if len(found) == count:
            return found
    raise OSError("there are no free ports")


@dataclass
class Gateway:
    """A running gateway and its mock providers, by name. `process` is the processor, or `extproc up` where `envoy` is
    None.
    """

    url: str
    status: str
    admin: str
    file: Path
    process: parts.Process
    mocks: dict[str, str] = field(default_factory=dict)
    log: Path = Path()
    envoy: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(
        default_factory=lambda: httpx.Client(timeout=30, trust_env=False, verify=False, limits=KEPT)
    )

    @property
    def base_url(self) -> str:
        return self.url + "/v1"

    def post(self, path: str, body: Any = None, *, key: str | None = KEY, **kwargs: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= kwargs.pop("headers", {})
        if body is not None:
            kwargs["json"] = body
        return self.http.post(self.url + path, headers=headers, **kwargs)

    def chat(self, model: str = "stub", text: str = "Hello", **fields: Any) -> httpx.Response:
        headers, key = fields.pop("headers", {}), fields.pop("key", KEY)
        return self.post("/v1/chat/completions", chat_body(model, text, **fields), headers=headers, key=key)

    @contextmanager
    def stream(self, model: str = "stub", text: str = "Hello", **fields: Any) -> Iterator[httpx.Response]:
        """A streamed answer, open while it arrives."""
        headers = {"authorization": f"Bearer {fields.pop('key', KEY)}"}
        body = chat_body(model, text, stream=True, **fields)
        with self.http.stream("POST", self.base_url + "/chat/completions", json=body, headers=headers) as answer:
            yield answer

    def direct(self, name: str, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
        """The answer of a mock provider to the same request, sent to it directly."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.http.post(self.mocks[name] + path, headers={"accept-encoding": "identity"}, **content)

    def fault(self, name: str, fault: str) -> None:
        self.http.put(self.mocks[name] + "/control", json={"fault": fault}).raise_for_status()

    def begin(self) -> None:
        """`reset` when no request of another test is in flight: it would be counted with those of the next."""
        eventually(lambda: self.metric("extproc_exchanges_in_flight") == 0)
        self.reset()

    def reset(self) -> None:
        for url in self.mocks.values():
            self.http.delete(url + "/control").raise_for_status()

    def seen(self, name: str) -> list[dict[str, Any]]:
        """The requests that a mock provider received."""
        found: list[dict[str, Any]] = self.http.get(self.mocks[name] + "/requests").json()
        return found

    def calls(self) -> int:
        return sum(len(self.seen(name)) for name in self.mocks)

    def metrics(self, *names: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All series, or those of some metrics: to read all of them takes 15 ms."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.http.get(self.status + "/metrics").text
        if names:
            text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(names))
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of `name` that have `labels`."""
        return sum(
            value
            for (found, have), value in self.metrics(name).items()
            if found == name and set(labels.items()) <= set(have)
        )

    def exchanges(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Recent exchanges, latest first."""
        found: list[dict[str, Any]] = self.http.get(f"{self.admin}/exchanges?limit={limit}").json()["data"]
        return found

    def last(self, wanted: Callable[[dict[str, Any]], bool] = lambda _entry: True) -> dict[str, Any]:
        """The latest exchange that `wanted` accepts. Waits until it is recorded, at first among few."""
        begun = time.monotonic()

        def find() -> dict[str, Any] | None:
            entries = self.exchanges(30 if time.monotonic() - begun < 0.5 else 1000)
            return next(filter(wanted, entries), None)

        return eventually(find)

    def written(self) -> list[str]:
        """The lines of the log that are complete. A thread writes them, some time after the answer."""
        return self.log.read_text(encoding="utf-8").split("\n")[:-1]

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.written() if line.startswith("{")]

    def line(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The latest JSON line of the log that `wanted` accepts. Waits until it is written."""
        return eventually(lambda: next((line for line in reversed(self.lines()) if wanted(line)), None))

    def exchange_of(self, answer: httpx.Response) -> dict[str, Any]:
        """The record of the exchange that produced `answer`."""
        return self.last(lambda entry: entry["request_id"] == answer.headers["x-request-id"])

    def verdicts_of(self, answer: httpx.Response, count: int = 1) -> list[dict[str, Any]]:
        """The verdicts of guardrails on an exchange, from the audit trail: waits until `count` of them are written."""
        id = self.exchange_of(answer)["id"]

        def found() -> list[dict[str, Any]]:
            trail = [one["event"] for one in self.http.get(f"{self.admin}/audit?limit=200").json()["data"]]
            return [
                {"guardrail": one["rule"]["name"], **one["extproc"]}
                for one in reversed(trail)
                if "rule" in one and one["extproc"]["exchange"] == id
            ]

        return eventually(lambda: each if len(each := found()) >= count else None)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the processes in order, Envoy first. Returns the exit status."""
        if self.envoy is not None:
            self.envoy.terminate()
            self.envoy.wait(30)
        self.process.send_signal(number)
        return self.process.wait(30)


def chat_body(model: str, text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def eventually(find: Callable[[], Any], timeout: float = 30) -> Any:
    """The first true value of `find`, polled for at most `timeout` seconds: often at first, then ten times a second."""
    deadline, pause = time.monotonic() + timeout, 0.02
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(pause)
        pause = min(0.1, pause * 1.2)
    return found


def measured(measure: Callable[[], T], holds: Callable[[T], bool], times: int = 3) -> T:
    """The first measurement that holds, else the last: other work on the machine can spoil one, and cannot mend one."""
    found = measure()
    for _ in range(times - 1):
        if holds(found):
            break
        found = measure()
    return found


@pytest.fixture(autouse=True)
def within_an_hour() -> None:
    """No hour ends in the middle of a test: budgets would begin anew, and reports have one more bar."""
    eventually(lambda: time.time() % 3600 < 3560, 60)


def run_gateway(
    folder: Path,
    yaml: str,
    mocks: tuple[str, ...],
    env: dict[str, str],
    *,
    listener: str = "",
    admin: str = "",
    strict: bool = True,
    up: bool = False,
) -> Iterator[Gateway]:
    """Start a gateway. In its YAML, `{mock_<name>}` is the address of a mock provider with /v1, `{at_<name>}` the
    address without, `{gateway}` its own. `listener` and `admin` add settings to these sections. Mock providers are
    strict doubles, or the built-in mock. With `up`, the command `extproc up` starts it, as users do; that takes three
    times as long.
    """
    door, status, desk, *ports = free_ports(PORTS + len(mocks))
    urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(mocks, ports, strict=True)}
    text = textwrap.dedent(yaml).replace("{gateway}", f"http://127.0.0.1:{door}")
    for name, url in urls.items():
        text = text.replace("{mock_" + name + "}", url + "/v1").replace("{at_" + name + "}", url)
    head = f"""
listener: {{address: 127.0.0.1, port: {door}, {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {desk}, {admin}}}
"""
    if TRANSPORT and "processor:" not in text:
        head += f"processor: {{transport: {TRANSPORT}}}\n"
    file, log = folder / "gateway.yaml", folder / "log.txt"
    file.write_text(head + text, encoding="utf-8")
    env = {"EXTPROC_DEMO_KEY": KEY, **env}
    base = "http://127.0.0.1"
    addresses = (f"{base}:{door}", f"{base}:{status}", f"{base}:{desk}")
    with contextlib.ExitStack() as stack:
        if up:
            process = stack.enter_context(running_up(file, log, env))
            gateway = Gateway(*addresses, file, process, urls, log)
        else:
            served = parts.serving(dict(zip(mocks, ports, strict=True)), strict=strict)
            stack.enter_context(served)
            processor, envoy = stack.enter_context(parts.running(file, log, env))
            gateway = Gateway(*addresses, file, processor, urls, log, envoy)
        stack.callback(gateway.http.close)
        yield gateway


@contextmanager
def running_up(file: Path, log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`extproc up`, stopped in order at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "extproc", "up", "--config", str(file), "--concurrency", "2"],
            cwd=file.parent,
            env={**os.environ, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        parts.wait(process, log, lambda: b"Ctrl-C stops it" in log.read_bytes())
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """`start(yaml, mocks=("a", "b"), env={}, strict=True, up=False)`: gateways of this test's own."""
    running: list[Iterator[Gateway]] = []

    def begin(
        yaml: str, mocks: tuple[str, ...] = ("sandbox",), env: dict[str, str] | None = None, **options: Any
    ) -> Gateway:
        folder = tmp_path / f"gateway{len(running)}"
        folder.mkdir()
        gateway = run_gateway(folder, yaml, mocks, env or {}, **options)
        running.append(gateway)
        return next(gateway)

    yield begin
    for gateway in running:
        next(gateway, None)


@pytest.fixture(scope="module")
def provider() -> Iterator[Scripted]:
    """A provider whose answers the tests of one file write themselves."""
    with Scripted().running() as scripted:
        yield scripted


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens Envoy's wait for an answer of the processor from 10 s to 2 s, for gateways that start from now on."""
    monkeypatch.setattr("extproc.envoy.envoy_config.processor.MESSAGE_TIMEOUT", timedelta(seconds=2))


DEMO = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
  backup: {kind: mock, base_url: "{mock_backup}", outlier_detection: {consecutive_5xx: 10000}}
models:
  stub: {provider: sandbox}
  spare: {provider: backup, model: spare-v2}
  renamed: {provider: sandbox, model: stub-v1}
  "any/*": {provider: sandbox}
virtual_models:
  assistant: {targets: [{model: stub}, {model: spare}]}
consumers:
  - {name: demo, team: platform, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: narrow, keys: [{env: NARROW_KEY}], models: [stub]}
  - {name: poor, keys: [{env: POOR_KEY}]}
  - {name: hasty, keys: [{env: HASTY_KEY}]}
teams:
  platform: {models: ["*"]}
budgets:
  - {name: nothing-a-day, match: {consumer: poor}, unit: requests, limit: 0, window: day}
  - {name: nothing-a-minute, match: {consumer: hasty}, unit: requests, limit: 0, window: minute}
guardrails:
  - {name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}'}}
limits: {request_body: 1MiB}
stores: {counters: "memory:"}
"""


DEMO_KEYS = {f"{name.upper()}_KEY": f"sk-gw-{name}" for name in ("narrow", "poor", "hasty")}


@pytest.fixture(scope="session")
def shared_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("demo")
    yield from run_gateway(folder, DEMO, ("sandbox", "backup"), DEMO_KEYS, listener="my_usage: true")


@pytest.fixture
def demo(shared_demo: Gateway) -> Gateway:
    """The shared gateway. Faults and recorded requests of its mocks are cleared."""
    shared_demo.begin()
    return shared_demo


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def extproc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`extproc("check", "--config", file)`: the command line as a call, for verbs that start no process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["extproc", *map(str, arguments)])
        return Ended(main(), *capsys.readouterr())

    return run

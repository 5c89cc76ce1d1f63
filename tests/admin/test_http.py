"""The HTTP thread, and the status port."""

import asyncio
import contextlib
import errno
import gc
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from starlette.responses import PlainTextResponse

from extproc.operate.admin.api import admin_app
from extproc.operate.admin.doors import HTTPThread, LoopErrors
from extproc.operate.admin.failures import Failures
from extproc.operate.admin.http import CONNECTIONS, Gate, HttpServer, status_app
from tests.admin.fakes import FakeSources


@pytest.fixture
def telemetry(world):
    return world().telemetry


@pytest.mark.parametrize(("reason", "status", "text"), [("", 200, "ok\n"), ("draining", 503, "draining\n")])
async def test_health_is_answered(telemetry, connect, reason, status, text):
    async with connect(status_app(telemetry, str, lambda: reason)) as http:
        assert (await http.get("/healthz")).text == "ok\n"
        ready = await http.get("/readyz")
    assert (ready.status_code, ready.text) == (status, text)


async def test_a_blocked_loop_is_not_alive(telemetry, connect):
    async with connect(status_app(telemetry, lambda: "the event loop has stood still for 31 s", str)) as http:
        found = await http.get("/healthz")
        assert (found.status_code, found.text) == (503, "the event loop has stood still for 31 s\n")
        assert (await http.get("/readyz")).status_code == 200


async def test_a_warning_does_not_make_it_unready(telemetry, connect):
    async with connect(status_app(telemetry, str, str, lambda: "settings are stale: line 3")) as http:
        found = await http.get("/readyz")
    assert (found.status_code, found.text) == (200, "ok\nsettings are stale: line 3\n")


@pytest.mark.parametrize(
    ("accept", "kind", "read"),
    [
        ("", "text/plain", plain_text),
        ("*/*", "text/plain", plain_text),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", open_metrics),
    ],
)
async def test_metrics_are_served_in_both_formats(telemetry, connect, accept, kind, read):
    telemetry.refusal("invalid_key")
    async with connect(status_app(telemetry, str, str)) as http:
        answer = await http.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    samples = {sample.name: sample for family in read(answer.text) for sample in family.samples}
    assert samples["extproc_refusals_total"].value == 1


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/exchanges", "/usage", "/admin", "/healthz/"])
async def test_the_status_port_has_no_other_paths(telemetry, connect, path):
    async with connect(status_app(telemetry, str, str)) as http:
        assert (await http.get(path)).status_code in (404, 307)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_the_status_port_only_allows_reading(telemetry, connect, path):
    async with connect(status_app(telemetry, str, str)) as http:
        assert (await http.post(path)).status_code == 405


def test_applications_are_served_from_a_thread_until_it_stops(telemetry):
    thread = HTTPThread()
    port = thread.add(lambda: status_app(telemetry, str, str), "127.0.0.1", 0)
    thread.start()
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
        with pytest.raises(OSError):
            HTTPThread().add(lambda: status_app(telemetry, str, str), "127.0.0.1", port)
    finally:
        thread.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def test_a_body_does_not_wait_until_the_client_has_acknowledged_its_head(telemetry):
    thread = HTTPThread()
    port = thread.add(lambda: status_app(telemetry, str, str), "127.0.0.1", 0)
    [(_, listener)] = thread._doors
    with listener, socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_stop_closes_the_connection_of_an_answer_that_does_not_end():
    asked = threading.Event()

    async def app(_scope, _receive, _send):
        asked.set()
        await asyncio.sleep(60)

    thread = HTTPThread()
    port = thread.add(lambda: app, "127.0.0.1", 0)
    thread.start()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        assert asked.wait(30)
        thread.stop()
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert not client.recv(1)
    gc.collect()  # an open transport would be a ResourceWarning, which is an error here


@pytest.mark.parametrize("turns", range(8))
async def test_connections_that_come_with_the_end_are_closed(telemetry, turns):
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        server = HttpServer(status_app(telemetry, str, str), listener)
        at = listener.getsockname()
        clients = [stack.enter_context(socket.create_connection(at)) for _ in range(4)]
        ended = asyncio.create_task(server.run_until_ended())
        for _ in range(turns):
            await asyncio.sleep(0)
        server.end()
        await ended
        for client in clients:
            client.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert not client.recv(1)
    gc.collect()  # an open transport would be a ResourceWarning, which is an error here


@pytest.fixture
def doors(telemetry, monkeypatch):
    """The status port with short timeouts on a thread, beside an admin port whose reports never end. Both ports."""
    monkeypatch.setattr("extproc.operate.admin.http._SLOWEST", 0.3)
    go = threading.Event()

    class Stuck(FakeSources):
        def usage(self, parameters):
            go.wait(20)
            return {}

    thread = HTTPThread()
    ports = [
        thread.add(lambda app=app: app, "127.0.0.1", 0)
        for app in (status_app(telemetry, str, str), admin_app(Stuck(), None))
    ]
    thread.start()
    yield ports
    go.set()
    thread.stop()


@pytest.mark.parametrize("said", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ", b"after one"])
def test_silent_connections_do_not_block_probes(doors, said):
    address = "127.0.0.1", doors[0]
    if said == b"after one":
        said = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal"
    idle = [socket.create_connection(address) for _ in range(70)]
    for connection in idle:
        connection.sendall(said)
    started = time.monotonic()
    url = f"http://127.0.0.1:{doors[0]}/healthz"
    while httpx.get(url, trust_env=False).status_code != 200:
        assert time.monotonic() - started < 3
        time.sleep(0.05)
    for connection in idle:
        connection.settimeout(3)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1000):
                pass
        connection.close()


def test_new_connections_replace_idle_ones(doors, monkeypatch):
    """Beyond the limit of open connections the oldest idle ones are closed, and probes are answered at once."""
    monkeypatch.setattr("extproc.operate.admin.http._SLOWEST", 60.0)
    url = f"http://127.0.0.1:{doors[0]}/healthz"
    with contextlib.ExitStack() as stack:
        idle = []
        for number in range(CONNECTIONS + 40):
            idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", doors[0]))))
            if number % 8 == 0:  # an answer shows that those before it were accepted: a full backlog costs seconds
                assert httpx.get(url, trust_env=False, timeout=10).status_code == 200
        for _ in range(5):
            assert httpx.get(url, trust_env=False, timeout=1).status_code == 200
        idle[0].settimeout(3)
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        idle[-1].sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        idle[-1].settimeout(3)
        assert idle[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_requests_beyond_the_limit_are_refused_except_probes(telemetry):
    async def slow(scope, receive, send):
        await asyncio.sleep(0.5)
        await PlainTextResponse("done")(scope, receive, send)

    async def ask():
        transport = httpx.ASGITransport(Gate(slow, limit=2))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            paths = ["/usage"] * 3 + ["/healthz", "/readyz"]
            return [answer.status_code for answer in await asyncio.gather(*map(http.get, paths))]

    assert asyncio.run(ask()) == [200, 200, 503, 200, 200]


def test_reports_that_do_not_end_do_not_block_probes(doors):
    """The reports may occupy every thread."""
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", doors[1])))
            connection.sendall(b"GET /usage HTTP/1.1\r\nhost: localhost\r\n\r\n")
        time.sleep(0.3)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"http://127.0.0.1:{doors[0]}{path}", trust_env=False, timeout=2).status_code == 200


def test_a_header_moves_no_client_to_another_address():
    """Wrong tokens count by the address of the connection."""
    thread = HTTPThread()
    port = thread.add(lambda: admin_app(FakeSources([], 0), "token", failures=Failures(3)), "127.0.0.1", 0)
    thread.start()
    try:
        found = [
            httpx.get(
                f"http://127.0.0.1:{port}/budgets",
                headers={"authorization": "Bearer x", "x-forwarded-for": f"192.0.2.{number}"},
                trust_env=False,
            ).status_code
            for number in range(5)
        ]
    finally:
        thread.stop()
    assert found == [401] * 3 + [429] * 2


async def test_missing_descriptors_are_one_line_and_no_flood(caplog):
    told, loop = LoopErrors(), asyncio.get_running_loop()
    for _ in range(2048):
        told(loop, {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "no room")})
    assert [record.getMessage() for record in caplog.records] == ["status and admin accept no connections: no room"]
    told(loop, {"message": "a bug", "exception": ValueError()})
    assert len(caplog.records) == 2


STARVED = """
import logging, os, resource, socket, time, urllib.request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from extproc.operate.admin.doors import HTTPThread

logging.basicConfig(format="%(message)s")
thread = HTTPThread()
app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("ok"))])
port = thread.add(lambda: app, "127.0.0.1", 0)
thread.start()
ask = lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read().decode()
assert ask() == "ok"
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
client, held = socket.socket(), []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    client.connect(("127.0.0.1", port))  # it waits in the queue: nothing is left to accept it with
began = time.process_time()
time.sleep(2.5)
print(time.process_time() - began < 0.5)
for descriptor in held:
    os.close(descriptor)
print(ask())
thread.stop()
"""


PROBED = """
import os, resource, socket, time
from starlette.applications import Starlette
from extproc.operate.admin.spare import probing
from extproc.operate.admin.doors import HTTPThread

reasons = {"ready": ""}
thread = HTTPThread()
port = thread.add(Starlette, "127.0.0.1", 0, probing(str, lambda: reasons["ready"]))
thread.start()
idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
idle[0].sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
assert idle[0].recv(100)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
clients, held = [socket.socket() for _ in range(12)], []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass

def ask(client, request, size=65536):
    client.settimeout(5)
    client.connect(("127.0.0.1", port))
    if request is None:
        return
    client.sendall(request)
    began, found = time.monotonic(), b""
    while more := client.recv(size):
        found += more
    return found.partition(b"\\r\\n")[0].decode(), found.partition(b"\\r\\n\\r\\n")[2].decode().strip()

print(*ask(clients[0], b"GET /healthz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"))
print(*ask(clients[1], b"GET /readyz?a HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"))
reasons["ready"] = "draining"
print(*ask(clients[2], b"GET /readyz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"))
print(*ask(clients[3], b"GET /metrics HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"))
print(*ask(clients[4], b"\\x16\\x03\\x01garbage\\r\\n\\r\\n"))
for silent in clients[5:8]:
    ask(silent, None)
print(*ask(clients[8], b"GET /healthz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"))  # behind clients that say nothing
time.sleep(1.2)
print(*ask(clients[9], b"HEAD /healthz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"))  # asyncio tried again meanwhile
for descriptor in held:
    os.close(descriptor)
time.sleep(1.2)
print(*ask(clients[10], b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n"))
thread.stop()
"""


def test_probes_are_answered_without_a_descriptor_left():
    done = subprocess.run([sys.executable, "-c", PROBED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        "HTTP/1.1 200 OK ok",
        "HTTP/1.1 200 OK ok",
        "HTTP/1.1 503 Unavailable draining",
        "HTTP/1.1 503 Unavailable no descriptors are left",
        "HTTP/1.1 503 Unavailable no descriptors are left",
        "HTTP/1.1 200 OK ok",
        "HTTP/1.1 200 OK ",
        "HTTP/1.1 404 Not Found Not Found",
    ], done.stderr


def test_a_process_without_descriptors_says_so_once_and_recovers():
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\nok\n", done.stderr
    assert done.stderr == "status and admin accept no connections: Too many open files\n"

"""The supervisor of several workers: it starts again one that ends, stops them all, and stays small."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from extproc.cli import _supervise
from extproc.cli.serve import as_begun
from extproc.settings import config

SERVES = """
import os, signal, socket, sys, time
path, log = sys.argv[1:3]
def note(text):
    with open(log, "a") as file: file.write(f"{os.getpid()} {text}\\n")
note("began")
terms = 0
def term(*_):
    global terms
    terms += 1
    note("term")
signal.signal(signal.SIGTERM, term)
with socket.socket(socket.AF_UNIX) as door:
    if os.path.exists(path): os.unlink(path)
    door.bind(path)
    door.listen()
    while terms < int(sys.argv[3]):
        time.sleep(0.01)
sys.exit(int(sys.argv[4]))
"""


class Supervisor:
    """Two workers of `SERVES`, and the log that they write."""

    def __init__(self, folder: Path, *, terms: int = 1, status: int = 0, second: str | None = None) -> None:
        self.log = folder / "log"
        self.log.touch()
        sockets = [str(folder / f"{number}.sock") for number in range(2)]
        commands = [[sys.executable, "-c", SERVES, path, str(self.log), str(terms), str(status)] for path in sockets]
        if second is not None:
            commands[1] = [sys.executable, "-c", second]
        command = _supervise.command(workers=list(zip(commands, sockets, strict=True)))
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.sockets = sockets

    def lines(self, text: str) -> list[int]:
        """The process ids of the workers that wrote `text`."""
        found = [line.split(" ", 1) for line in self.log.read_text().splitlines()]
        return [int(pid) for pid, what in found if what == text]

    def ready(self) -> None:
        eventually(lambda: all(map(connects, self.sockets)))
        time.sleep(0.3)  # for the supervisor to see it too

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.lines("began"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stderr.close()


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def eventually(find: Callable[[], Any], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    running: list[Supervisor] = []

    def begin(**options: Any) -> Supervisor:
        running.append(Supervisor(tmp_path, **options))
        return running[-1]

    yield begin
    for each in running:
        each.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, *_supervise.HANG_UP])
def test_all_drain_at_a_signal(start, number):
    supervisor = start()
    supervisor.ready()
    supervisor.process.send_signal(number)
    assert supervisor.process.wait(10) == 0
    assert len(supervisor.lines("term")) == 2


def test_a_worker_that_does_not_drain_in_order_is_told(start):
    supervisor = start(status=1)
    supervisor.ready()
    supervisor.process.terminate()
    assert supervisor.process.wait(10) == 1


def test_a_second_signal_is_passed_on(start):
    supervisor = start(terms=2)
    supervisor.ready()
    supervisor.process.terminate()
    eventually(lambda: len(supervisor.lines("term")) == 2)
    assert supervisor.process.poll() is None, "it waits for them"
    supervisor.process.terminate()
    assert supervisor.process.wait(10) == 0
    assert len(supervisor.lines("term")) == 4


def test_a_worker_that_dies_starts_again_each_time_a_little_later(start):
    supervisor = start()
    supervisor.ready()
    first, waits = supervisor.lines("began"), []
    for count in (3, 4):
        victim = supervisor.lines("began")[-1]
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        eventually(lambda count=count: len(supervisor.lines("began")) == count)
        waits.append(time.monotonic() - began)
    assert waits[0] >= _supervise.FIRST_WAIT
    assert waits[1] >= 2 * _supervise.FIRST_WAIT
    assert Path(f"/proc/{first[0]}").exists(), "the other one stayed"
    supervisor.process.terminate()
    _, err = supervisor.process.communicate(timeout=10)
    assert supervisor.process.returncode == 0
    messages = [json.loads(line)["message"].partition("; ")[2] for line in err.splitlines()]
    assert messages == ["it starts again in 0.5 s", "it starts again in 1 s"]


def test_a_worker_that_cannot_start_ends_all(start):
    supervisor = start(second="import sys; sys.exit(3)")
    assert supervisor.process.wait(10) == 3
    assert "worker 1 ended with status 3 before it was ready" in supervisor.process.stderr.read()
    assert len(supervisor.lines("began")) in (0, 1)
    for pid in supervisor.lines("began"):
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("begins", [True, False], ids=["while they begin", "while one is down"])
def test_a_pause_is_no_signal(start, begins):
    """Ctrl-Z and `docker pause` ended it while it looked at its workers each tenth of a second."""
    supervisor = start(second="import time; time.sleep(100)" if begins else None)
    eventually(lambda: supervisor.lines("began"))
    if not begins:
        supervisor.ready()
        os.kill(supervisor.lines("began")[0], signal.SIGKILL)
    for _ in range(3):
        supervisor.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        supervisor.process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    assert not supervisor.lines("term")
    assert supervisor.process.poll() is None
    supervisor.process.terminate()
    supervisor.process.wait(10)


def test_it_starts_no_worker_while_others_serve_at_its_sockets(start, tmp_path):
    """Workers whose supervisor was killed, which drain, or those of another gateway."""
    path = tmp_path / "1.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        first, second = start(), start()
        for each in (first, second):
            assert f"another process serves {path}: waiting" in each.process.stderr.readline()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(10) == 0
        assert first.lines("began") == []
    first.ready()


def test_it_is_small(start):
    supervisor = start()
    supervisor.ready()
    status = Path(f"/proc/{supervisor.process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert resident < 20_000  # kB


def test_nothing_of_the_package_is_imported():
    code = f"import runpy, sys; runpy.run_path({_supervise.__file__!r}); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in out.split() if name.startswith(("extproc", "asyncio", "subprocess"))]


def test_a_worker_without_its_supervisor_does_not_serve(tmp_path):
    (tmp_path / "gateway.yaml").write_text(
        textwrap.dedent("""
        processor: {workers: 2}
        providers: {sandbox: {kind: mock}}
        models: {stub: {provider: sandbox}}
        auth: {required: false}
        """)
    )
    command = [sys.executable, "-m", "extproc", "serve", "--worker", "0", "--parent", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "the supervisor of the workers has ended" in done.stderr


def test_a_worker_begins_as_the_others_did_though_a_secret_of_then_is_gone(tmp_path):
    plain = "providers: {s: {kind: mock}}\nmodels: {m: {provider: s}}\n"
    gone = f"auth: {{key_secret: 'file:{tmp_path}/gone'}}\nadmin: {{token: 'file:{tmp_path}/token'}}\n"
    (tmp_path / "token").write_text("of-today")
    now = config.parse(plain + "auth: {required: false}\nstores: {counters: 'sqlite:new.db'}\n")
    begun = as_begun(now, plain + gone + "stores: {counters: 'sqlite:old.db'}\n")
    assert begun.stores.counters == "sqlite:old.db"
    assert begun.auth == now.auth
    assert begun.admin.token.read() == "of-today"

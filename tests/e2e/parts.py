"""The parts of a gateway, started as `extproc up` starts them, but without its process and without processes for the
mocks.

Envoy and the processor are processes; the processor is a fork of `zygote`. Mock providers are servers on a thread of
the test process. Envoy's configuration is made by a call, because a process for it would spend a second on imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import uvloop

from extproc.cli._drain import AT_ONCE
from extproc.cli.envoy import prepare
from extproc.envoy.resources.plain import plain
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.upstream import mock
from tests import doubles
from tests.e2e.zygote import Child

with plain():
    from extproc.envoy import envoy_config

ENVOY = Path(sys.executable).with_name("envoy")
START = 60.0  # seconds until a part must be ready


Process = subprocess.Popen[bytes] | Child


class Parts(NamedTuple):
    processor: Child
    envoy: subprocess.Popen[bytes]


@contextmanager
def running(file: Path, log: Path, env: Mapping[str, str]) -> Iterator[Parts]:
    """Envoy and the processor for a filter YAML. Both are killed at the end; tests of `extproc up` cover the orderly
    stop.
    """
    environment = {**os.environ, **env}
    with contextlib.ExitStack() as stack:
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extproc-")))
        out = stack.enter_context(log.open("ab"))

        def spawn(*command: str | Path) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, cwd=file.parent, env=environment, stdout=out, stderr=out)
            stack.callback(end, process)
            return process

        sock, secrets = runtime / "extproc.sock", runtime / "secrets"
        serve = ("serve", "--config", file, "--socket", sock, "--secrets", secrets)
        with patch.dict(os.environ, env):
            settings = config.load(file)
            envoy_config.write_secrets(settings, str(secrets))
        prepare(file, settings, secrets, dynamic=True, socket=str(sock))
        drain = ("--drain-notice", "0", "--drain-grace", "1")
        processor = Child([*map(str, serve), *drain], file.parent, environment, out)
        stack.callback(end, processor)
        bootstrap = runtime / "envoy.json"  # while the processor starts
        tree = envoy_config.bootstrap(settings, secrets_dir=str(secrets), socket=str(sock), dynamic=True)
        bootstrap.write_text(json.dumps(tree), encoding="utf-8")
        wait(processor, log, lambda: is_ready(settings))
        options = ("--log-level", "warn", "--disable-hot-restart", "--concurrency", "2", *AT_ONCE)
        envoy = spawn(ENVOY, "-c", bootstrap, *options)
        wait(envoy, log, lambda: listens(settings.listener.port))
        yield Parts(processor, envoy)


@contextmanager
def envoy(file: Path, log: Path, socket: Path) -> Iterator[None]:
    """Envoy alone, for a filter YAML whose processor listens on `socket`."""
    settings, folder = config.load(file), socket.parent
    envoy_config.write_secrets(settings, str(folder / "secrets"))
    tree = envoy_config.bootstrap(settings, secrets_dir=str(folder / "secrets"), socket=str(socket))
    bootstrap = folder / "envoy.json"
    bootstrap.write_text(json.dumps(tree), encoding="utf-8")
    options = ("--log-level", "warn", "--disable-hot-restart", "--concurrency", "2")
    with log.open("ab") as out:
        process = subprocess.Popen([ENVOY, "-c", bootstrap, *options], stdout=out, stderr=out)
    try:
        wait(process, log, lambda: listens(settings.listener.port))
        yield
    finally:
        end(process)


@contextmanager
def serving(mocks: Mapping[str, int], *, strict: bool) -> Iterator[None]:
    """Mock providers, by name, on loopback ports, on a thread of their own until the context ends: strict doubles, or
    the built-in mock.
    """
    kind = doubles if strict else mock
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mock providers")
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(START)

    try:
        servers = [run(kind.serve(kind.Options(name=name, port=port))) for name, port in mocks.items()]
        try:
            yield
        finally:
            for server in servers:
                run(server.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def wait(process: Process, log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def is_ready(settings: Settings) -> bool:
    with contextlib.closing(HTTPConnection("127.0.0.1", settings.status.port, timeout=5)) as http:
        try:
            http.request("GET", "/readyz")
            return http.getresponse().status == 200
        except OSError:
            return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: Process) -> None:
    process.kill()
    process.wait()

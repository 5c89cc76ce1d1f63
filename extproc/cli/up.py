"""`extproc up`: Envoy, the processor and the mock provider on one machine, stopped together.

This module prepares and starts them; `_supervise` then waits for them in its place. Whichever child ends first, the
others are ended too, also when the supervisor itself is killed.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from extproc.cli import _drain, _supervise
from extproc.cli._options import add_config, local, local_url, seconds, threads
from extproc.cli._supervise import say
from extproc.cli._tables import progress
from extproc.cli.envoy import check_complete, prepare
from extproc.dialects import by_path
from extproc.envoy.resources.plain import plain
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.wire.transport import workers
from extproc.words.values import is_loopback

with plain():
    from extproc.envoy import envoy_config

EXAMPLES = """\
  extproc up                                  gateway.yaml here, until Ctrl-C
  extproc up -c mine.yaml --concurrency 2     other settings, two worker threads in Envoy
"""

MOCK: Sequence[str] = (sys.executable, "-m", "extproc", "mock")
"""The command that starts a mock provider; its name, address and port follow."""
_ADMIN, _SOCKET = "envoy-admin.sock", "extproc.sock"  # names of sockets in the directory of this run
_START = 20.0  # most seconds for all parts to start
_DEMO_KEY = "sk-gw-demo"
"""The key that `make run` sets. It stands in the README, so it is not secret, and it is the only key ever printed."""
# At every clean stop Envoy warns that it caught a signal (`main`), and that streams of discovery ended (`config`). The
# processor reports what Envoy refuses.
_LOG_LEVELS = ("--log-level", "warn", "--component-log-level", "main:error,config:error")
_PR_SET_PDEATHSIG = 1  # prctl(2)


_DIES_TOO = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"
"""Becomes the command in its arguments, which gets SIGTERM when its parent dies in any way (Linux)."""


@dataclass(slots=True)
class Launched:
    name: str
    process: subprocess.Popen[bytes]
    command: list[str] | None = None  # set for a child that restarts when it ends


class UpError(OSError):
    """A part did not start. The message names the part and the remedy."""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--envoy", metavar="PATH", help="Envoy binary (default: that of this Python environment)")
    parser.add_argument(
        "--drain-notice",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="on SIGTERM or Ctrl-C, least time before the end, in which load balancers look elsewhere (default: 0)",
    )
    parser.add_argument(
        "--drain-grace",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="on SIGTERM or Ctrl-C, time for open requests to end; a second signal ends them (default: 10)",
    )
    parser.add_argument(
        "--concurrency", type=threads, metavar="N", help="Envoy's worker threads (default: one per core)"
    )


def run(options: argparse.Namespace) -> int:
    """Start everything and become its supervisor, which ends with 0 after Ctrl-C and with 1 when a child ended.

    Returns only when Ctrl-C came before everything ran. Raises ConfigError, UpError.
    """
    file: Path = options.config
    settings = config.load(file)
    for doubt in config.lint(file):
        say(f"warning: {doubt.show(str(file))}")
    if _first_key(settings) == _DEMO_KEY and not is_loopback(settings.listener.address):
        raise UpError("the demo key stands in the README: it works only with `listener: {address: 127.0.0.1}`")
    binary = _find_envoy(options.envoy)
    _check_ports(settings)
    for number in _supervise.STOPS:
        signal.signal(number, _interrupt)
    children: list[Launched] = []
    runtime = tempfile.mkdtemp(prefix="extproc-")
    mark = Path(workers.drain_mark(str(Path(runtime) / _SOCKET)))
    held = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)  # systemd-tmpfiles deletes nothing in a locked directory
    os.set_inheritable(held, True)  # for the supervisor, which this process becomes
    try:
        with progress() as told:
            told("starting Envoy and the processor …")
            mark.parent.mkdir()
            _drain.write_mark(str(mark), 3 * _START, "starting")  # the processor starts before Envoy
            _start(children, settings, options, runtime=Path(runtime), binary=binary)
            mark.unlink()
        say(_welcome(settings, file))
        drain = _drain.command(str(Path(runtime) / _ADMIN), options.drain_notice, options.drain_grace, str(mark))
        running = [(child.process.pid, child.name, child.command) for child in children]
        _supervise.take_over(running=running, drain=drain, directory=runtime)
    except KeyboardInterrupt:
        say("\nstopping")
        return 0
    finally:
        _supervise.stop(_known(children))
        _supervise.remove(runtime)


def _known(children: Sequence[Launched]) -> Sequence[_supervise.Child]:
    """The children, in the form for the supervisor's plan."""
    return [_supervise.Child(child.name, child.process.pid) for child in children]


def _start(
    children: list[Launched], settings: Settings, options: argparse.Namespace, *, runtime: Path, binary: str
) -> None:
    path = str(runtime / _SOCKET)
    secrets = str(runtime / "secrets")
    check_complete(options.config, settings)
    envoy_config.write_secrets(settings, secrets)
    prepare(options.config, settings, secrets, dynamic=True, socket=path)
    bootstrap, whole, admin = runtime / "envoy.json", runtime / "whole.json", str(runtime / _ADMIN)
    for place, dynamic in ((bootstrap, True), (whole, False)):
        tree = envoy_config.bootstrap(settings, secrets_dir=secrets, socket=path, dynamic=dynamic, admin_socket=admin)
        place.write_text(json.dumps(tree), encoding="utf-8")  # writing YAML takes ten times as long
    ourselves = [sys.executable, "-m", "extproc"]
    mocks = _mocks(settings)
    for name, host, port in mocks:
        command = [*MOCK, "--name", name, "--address", host, "--port", str(port)]
        _spawn(children, f"mock provider {name}", command, stdout=subprocess.DEVNULL)
    for name, command in _bridges(settings):
        _spawn(children, name, command)
        children[-1].command = command
    command = [*ourselves, "serve", "--config", str(options.config), "--socket", path, "--secrets", secrets]
    _spawn(children, "processor", [*command, "--drain-notice", "0", "--drain-grace", "1"])
    _validate(children, binary, whole)  # while children start: Envoy does not report errors in later resources
    for child, (_, host, port) in zip(children, mocks, strict=False):
        _wait_for_port(child, host, port)
    for each in settings.processor.sockets(path):
        _wait_for_socket(children[-1], each)
    command = [binary, "-c", str(bootstrap), *_LOG_LEVELS, "--use-dynamic-base-id", *_drain.AT_ONCE]
    # Streams continue for this long after a change of their listener.
    command += ["--drain-time-s", str(int(settings.limits.stream_duration))]
    command += ["--concurrency", str(options.concurrency)] if options.concurrency else []
    _spawn(children, "Envoy", command)
    _wait_for_port(children[-1], local(settings.listener.address), settings.listener.port)


def _find_envoy(given: str | None) -> str:
    beside = Path(sys.executable).with_name("envoy")
    found = given or (str(beside) if beside.exists() else shutil.which("envoy"))
    if found is None or not os.access(found, os.X_OK):
        raise UpError(f"there is no Envoy at {given or 'this Python environment or on the PATH'}; {_remedy()}")
    return found


def _remedy() -> str:
    """The way to get an Envoy on this machine: a wheel exists for one platform, images for all."""
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return "install it with: pip install 'llm-extproc[local]', or give its path with --envoy"
    return (
        f"there is no wheel of it for {platform.system()} on {platform.machine()}. Run all of it in containers, in a "
        "checkout of the repository: cd k8s/compose && docker compose up. Or give the path of an Envoy with --envoy"
    )


def _check_ports(settings: Settings) -> None:
    doors = [(name, getattr(settings, name)) for name in ("listener", "status", "admin")]
    addresses = [(name, door.address, door.port) for name, door in doors]
    addresses += [(f"mock provider {name}", host, port) for name, host, port in _mocks(settings)]
    for name, host, port in addresses:
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            raise UpError(
                f"{name}: cannot listen on {host}:{port}: {(error.strerror or '').partition(' (')[0]}. "
                "Stop the program that listens there (another `make run`?), or choose another port in the settings."
            ) from None


def _validate(children: list[Launched], binary: str, bootstrap: Path) -> None:
    command = [binary, "--mode", "validate", "-c", str(bootstrap), "--log-level", "error", "--use-dynamic-base-id"]
    _spawn(children, "Envoy's validation", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = children[-1].process.communicate()
    if children.pop().process.returncode != 0:
        raise UpError(f"Envoy refuses its configuration:\n{(err.strip() or out.strip()).decode(errors='replace')}")


def _mocks(settings: Settings) -> Sequence[tuple[str, str, int]]:
    """The mock providers to start: those whose address is this machine."""
    found: dict[int, tuple[str, str, int]] = {}
    for name, provider in settings.providers.items():
        host, port = provider.url.hostname or "", provider.url.port or 80
        if provider.kind == "mock" and is_loopback(host):
            found.setdefault(port, (name, host, port))
    return list(found.values())


def _bridges(settings: Settings) -> Sequence[tuple[str, list[str]]]:
    """The commands of MCP servers, which nothing waits for: some load a package first. Raises UpError."""
    found = []
    for name, server in settings.mcp.servers.items() if settings.mcp is not None else ():
        if not server.command:
            continue
        if (program := shutil.which(server.command[0])) is None:
            raise UpError(f"mcp.servers.{name}: there is no command {server.command[0]!r}")
        command = [program, *server.command[1:]]
        wrapped = [sys.executable, "-I", "-S", "-c", _DIES_TOO, *command] if sys.platform == "linux" else command
        found.append((f"MCP server {name}", wrapped))
    return found


def _spawn(
    children: list[Launched], name: str, command: Sequence[str], *, stdout: int | None = None, stderr: int | None = None
) -> None:
    """Start a child in its own session, so that Ctrl-C reaches only this process, which stops the children in order."""
    begin = _child_setup(os.getpid())
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _supervise.SIGNALS)  # blocked until the child is recorded
    try:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=begin,  # noqa: PLW1509
        )
        children.append(Launched(name, process))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _child_setup(parent: int) -> Callable[[], None]:
    """The first steps of a child: unblock signals, and ask the kernel for SIGTERM when this process dies in any way."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def begin() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _supervise.SIGNALS)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return begin


def _wait_for_socket(child: Launched, path: str) -> None:
    def ready() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(path) == 0

    _poll(child, ready, path)


def _wait_for_port(child: Launched, host: str, port: int) -> None:
    def ready() -> bool:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, port)) == 0

    _poll(child, ready, f"{host}:{port}")


def _poll(child: Launched, ready: Callable[[], bool], where: str) -> None:
    deadline = time.monotonic() + _START
    while not ready():
        if child.process.poll() is not None:
            raise UpError(f"{child.name} ended with status {child.process.returncode} before it was ready; see above")
        if time.monotonic() > deadline:
            raise UpError(f"{child.name} does not answer at {where} after {_START:.0f} s")
        time.sleep(0.05)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _welcome(settings: Settings, file: Path) -> str:
    scheme = "https" if settings.listener.tls else "http"
    base = local_url(settings.listener.address, settings.listener.port, scheme)
    status = local_url(settings.status.address, settings.status.port)
    admin = local_url(settings.admin.address, settings.admin.port)
    model = next((name for name in [*settings.virtual_models, *settings.models] if "*" not in name), "MODEL")
    key = _first_key(settings)
    given = "" if file == Path("gateway.yaml") else f" -c {shlex.quote(str(file))}"
    path = "/v1/chat/completions"
    body = json.dumps(by_path()[path].smallest(model))
    lines = [
        "",
        f"  gateway   {base}/v1      (OpenAI SDKs: base_url)",
        f"  console   {admin}/      (spending, budgets, recent exchanges)",
        f"            {_program()} usage{given}      (the same, as a table; and {_program()} budgets{given})",
        f"  metrics   {status}/metrics",
        "",
        'Try it; add "stream": true and -N for a stream:',
        "",
        f"  curl {base}{path} \\",
        *([f"    -H 'authorization: Bearer {key}' \\"] if key else []),
        f"    -H 'content-type: application/json' -d '{body}'",
        "",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)


def _program() -> str:
    """The command that runs this program, as it was called, because it may not be on the PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "extproc" else "extproc"


def _first_key(settings: Settings) -> str:
    """The first working key, as text for the shell: the name of its variable, never the key itself."""
    for consumer in settings.consumers:
        for key in consumer.keys:
            if key.env and os.environ.get(key.env) == _DEMO_KEY:
                return _DEMO_KEY
            if key.env and os.environ.get(key.env):
                return f"'\"${key.env}\"'"
    return "" if not settings.auth.required else "YOUR_KEY"

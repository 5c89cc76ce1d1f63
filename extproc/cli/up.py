"""`extproc up`: Envoy, the processor and the mock provider on one machine, stopped together.

Three kinds of child processes: whichever ends first, the others are ended too.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from extproc import envoy_config
from extproc.dialects import by_path
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.words.values import is_loopback

_START = 20.0  # seconds for everything to be up
_DEMO_KEY = "sk-gw-demo"
"""The key `make run` sets: in the README, so no secret, and the only one that is ever printed."""
_STOP = 10.0  # seconds for a child to end by itself


@dataclass(slots=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]


class UpError(OSError):
    """Something did not come up. The message says what, and what to do."""


def up(file: Path, *, envoy: str | None = None, concurrency: int | None = None) -> int:
    """Run all of it until Ctrl-C. Returns 0, or 1 when a child ended by itself."""
    settings = config.load(file)
    for doubt in config.lint(file):
        _say(f"warning: {doubt.show(str(file))}")
    binary = _find_envoy(envoy)
    _check_ports(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="extproc-") as runtime:
        children: list[Child] = []
        try:
            _start(children, settings, file=file, runtime=Path(runtime), binary=binary, concurrency=concurrency)
            _say(_welcome(settings, file))
            return _watch(children)
        except KeyboardInterrupt:
            _say("\nstopping")
            return 0
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _stop(children)


def _start(
    children: list[Child], settings: Settings, *, file: Path, runtime: Path, binary: str, concurrency: int | None
) -> None:
    path = str(runtime / "extproc.sock")
    secrets = str(runtime / "secrets")
    envoy_config.write_secrets(settings, secrets)
    bootstrap = runtime / "envoy.yaml"
    bootstrap.write_text(
        envoy_config.render(envoy_config.bootstrap(settings, secrets_dir=secrets, socket=path)), encoding="utf-8"
    )
    mocks = _mocks(settings)
    for name, host, port in mocks:
        command = [sys.executable, "-m", "extproc", "mock", "--name", name, "--address", host, "--port", str(port)]
        children.append(_spawn(f"mock provider {name}", command, quiet=True))
    command = [sys.executable, "-m", "extproc", "serve", "--config", str(file), "--socket", path, "--secrets", secrets]
    children.append(_spawn("processor", [*command, "--drain-notice", "0", "--drain-grace", "1"]))
    _validate(binary, bootstrap)  # while they start
    for child, (_, host, port) in zip(children, mocks, strict=False):
        _wait_for_port(child, host, port)
    _wait_for(children[-1], f"http://{_local(settings.status.address)}:{settings.status.port}/readyz")
    command = [binary, "-c", str(bootstrap), "--log-level", "warn", "--use-dynamic-base-id"]
    command += ["--concurrency", str(concurrency)] if concurrency else []
    children.append(_spawn("Envoy", command))
    _wait_for_port(children[-1], _local(settings.listener.address), settings.listener.port)


def _find_envoy(given: str | None) -> str:
    beside = Path(sys.executable).with_name("envoy")
    found = given or (str(beside) if beside.exists() else shutil.which("envoy"))
    if found is None or not os.access(found, os.X_OK):
        raise UpError(
            f"there is no Envoy at {given or 'this Python environment or on the PATH'}; "
            "install it with: pip install 'llm-extproc[local]' (Linux x86-64), or say where it is with --envoy"
        )
    return found


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
                "Stop what listens there (another `make run`?), or choose another port in the settings."
            ) from None


def _validate(binary: str, bootstrap: Path) -> None:
    command = [binary, "--mode", "validate", "-c", str(bootstrap), "--log-level", "error", "--use-dynamic-base-id"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise UpError(f"Envoy refuses its configuration:\n{done.stderr.strip() or done.stdout.strip()}")


def _mocks(settings: Settings) -> Sequence[tuple[str, str, int]]:
    """The mock providers that are ours to start: those on this machine."""
    found: dict[int, tuple[str, str, int]] = {}
    for name, provider in settings.providers.items():
        host, port = provider.url.hostname or "", provider.url.port or 80
        if provider.kind == "mock" and is_loopback(host):
            found.setdefault(port, (name, host, port))
    return list(found.values())


def _spawn(name: str, command: Sequence[str], *, quiet: bool = False) -> Child:
    # In a session of its own: Ctrl-C reaches this process alone, which then stops the others in order.
    out = subprocess.DEVNULL if quiet else None
    return Child(name, subprocess.Popen(command, stdout=out, start_new_session=True))  # noqa: S603


def _wait_for(child: Child, url: str) -> None:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own status port
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    _poll(child, ready, url)


def _wait_for_port(child: Child, host: str, port: int) -> None:
    def ready() -> bool:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, port)) == 0

    _poll(child, ready, f"{host}:{port}")


def _poll(child: Child, ready: Callable[[], bool], where: str) -> None:
    deadline = time.monotonic() + _START
    while not ready():
        if child.process.poll() is not None:
            raise UpError(f"{child.name} ended with status {child.process.returncode} before it was ready; see above")
        if time.monotonic() > deadline:
            raise UpError(f"{child.name} does not answer at {where} after {_START:.0f} s")
        time.sleep(0.05)


def _watch(children: Sequence[Child]) -> int:
    while True:
        for child in children:
            if child.process.poll() is not None:
                _say(f"{child.name} ended with status {child.process.returncode}; stopping the rest")
                return 1
        time.sleep(0.25)


def _stop(children: Sequence[Child]) -> None:
    """Envoy first, so that nobody calls a processor that is gone."""
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.terminate()
            try:
                child.process.wait(_STOP)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _local(address: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104


def _welcome(settings: Settings, file: Path) -> str:
    scheme = "https" if settings.listener.tls else "http"
    base = f"{scheme}://{_local(settings.listener.address)}:{settings.listener.port}"
    status = f"http://{_local(settings.status.address)}:{settings.status.port}"
    admin = f"http://{_local(settings.admin.address)}:{settings.admin.port}"
    model = next((name for name in [*settings.virtual_models, *settings.models] if "*" not in name), "MODEL")
    key = _first_key(settings)
    given = "" if file == Path("gateway.yaml") else f" -c {shlex.quote(str(file))}"
    path = "/v1/chat/completions"
    body = json.dumps(by_path()[path].smallest(model))
    lines = [
        "",
        f"  gateway   {base}/v1      (OpenAI SDKs: base_url)",
        f"  console   {admin}/      (who spends what)",
        f"            {_ourselves()} usage{given}      (the same, as a table; and {_ourselves()} budgets{given})",
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


def _ourselves() -> str:
    """What to type for this program: as it was called, which need not be on the PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "extproc" else "extproc"


def _first_key(settings: Settings) -> str:
    """How to write the first key that works: by the name of its variable, never the key itself."""
    for consumer in settings.consumers:
        for key in consumer.keys:
            if key.env and os.environ.get(key.env) == _DEMO_KEY:
                return _DEMO_KEY
            if key.env and os.environ.get(key.env):
                return f"'\"${key.env}\"'"
    return "" if not settings.auth.required else "YOUR_KEY"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201

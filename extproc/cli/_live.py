"""One small request to each provider of the settings: `extproc check --live`.

A separate gateway sends the requests, on free ports of this machine. It has the providers and models of the settings
and a random key, and stores nothing, so a running gateway, its budgets and its ledger are not affected.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from extproc.cli._admin import message
from extproc.cli._options import local_url
from extproc.cli._tables import painted, safe
from extproc.dialects import by_path, families
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.upstream.providers import kinds
from extproc.wire.outbound.client import AnswerError, ask

_CHAT, _EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
_KEY = "EXTPROC_CHECK_KEY"
_START, _STOP = 30.0, 15.0  # seconds for the gateway to start, and to stop
_MOST = 1 << 20  # most bytes of an answer
_PATIENCE = 60.0  # seconds to wait for a provider's answer
_HINTS = {
    400: "the provider does not take this request: is the model's name right, and does it chat?",
    401: "the provider refuses the key",
    403: "the provider refuses the key, or this model for it",
    404: "the provider does not know this model",
    429: "the key is known; its limit is reached",
    502: "the provider refuses the key",
    503: "the provider does not answer: check its address, certificate and firewalls between",
    504: "the provider is silent",
}


class _Question(NamedTuple):
    provider: str
    model: str  # the clients' name of the model; empty if the settings have none
    path: str


def check_live(settings: Settings, file: Path) -> bool:
    """Ask each provider, and print a line for each answer. False if a provider did not answer well.

    Raises OSError when the gateway does not start.
    """
    questions = [_question(settings, name) for name in settings.providers]
    asked, well = [], True
    for question in questions:
        if lack := settings.providers[question.provider].lack:
            print(f"{painted('WRONG', 'bad')} {question.provider}: its key {lack}")
            well = False
        elif question.model:
            asked.append(question)
        else:
            print(f"{painted('--', 'doubtful')}    {question.provider}: {_why(settings, question.provider)}")
    if not asked:
        return well
    print(f"asking {len(asked)} provider{'s' * (len(asked) != 1)}, which may cost a fraction of a cent …", flush=True)
    tree = {**config.parse_tree(config.text(file), str(file))[0], "include": []}
    with _gateway(tree) as (url, key):
        for question in asked:
            line, good = _ask(url, key, question)
            print(line, flush=True)
            well &= good
    return well


def _question(settings: Settings, provider: str) -> _Question:
    """The request for a provider, for the first of its models, or without models for the example of its kind."""
    known = settings.providers[provider]
    chats = any(families()[name] == by_path()[_CHAT].family for name in known.provider.dialects)
    path = _CHAT if chats else _EMBEDDINGS
    if known.kind == "mock" or known.disabled:
        return _Question(provider, "", path)
    names = [name for name, model in settings.models.items() if model.provider == provider and not model.disabled]
    names.sort(key=lambda name: "*" in name)
    model = names[0].replace("*", kinds()[known.kind].example[1]) if names else ""
    return _Question(provider, model, path)


def _why(settings: Settings, provider: str) -> str:
    known = settings.providers[provider]
    if known.kind == "mock":
        return "not asked: the mock is built in"
    return "not asked: it is disabled" if known.disabled else "not asked: no model of the settings leads to it"


def _ask(url: str, key: str, question: _Question) -> tuple[str, bool]:
    body = msgspec.json.encode(by_path()[question.path].smallest(question.model))
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    begun = time.monotonic()
    try:
        status, data = ask(url + question.path, body, headers, timeout=_PATIENCE, most=_MOST)
    except (OSError, AnswerError) as error:
        status, data = 504, str(error).encode()
    took = (time.monotonic() - begun) * 1e3
    good = status == 200
    mark = painted(f"{'ok' if good else 'WRONG':<6}", "good" if good else "bad")
    line = f"{mark}{safe(question.provider)}: {safe(question.model)} answered {status} in {took:,.0f} ms"
    if good:
        return line, True
    hint = _HINTS.get(status, "")
    return "\n".join([line, *(f"      {text}" for text in (safe(message(data), 500), hint) if text)]), False


@contextmanager
def _gateway(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A gateway with these providers and models. Gives its URL and a key, and ends with the block."""
    ports = _free_ports(3)
    doors = dict(
        zip(("listener", "status", "admin"), ({"address": "127.0.0.1", "port": port} for port in ports), strict=True)
    )
    settings = {name: tree[name] for name in ("providers", "models") if name in tree} | doors
    settings |= {
        "consumers": [{"name": "check", "team": "check", "keys": [{"env": _KEY}]}],
        "teams": {"check": {"models": ["*"]}},
        "stores": {"counters": "memory:", "ledger": "memory:"},
        "auth": {"required": True},
    }
    key = f"sk-gw-{secrets.token_urlsafe(24)}"
    url = local_url("127.0.0.1", ports[0])
    with tempfile.TemporaryDirectory(prefix="extproc-check-") as folder, (Path(folder) / "log").open("w+b") as log:
        file = Path(folder) / "gateway.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = [sys.executable, "-m", "extproc", "up", "--config", str(file), "--concurrency", "1"]
        process = subprocess.Popen(  # noqa: S603
            command, stdout=log, stderr=log, env=os.environ | {_KEY: key}, start_new_session=True
        )
        try:
            _wait(process, url, key, Path(folder) / "log")
            yield url, key
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, key: str, log: Path) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            status, _ = ask(f"{url}/v1/models", None, {"authorization": f"Bearer {key}"}, timeout=2, most=_MOST)
        except (OSError, AnswerError):
            status = 0
        if status == 200:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            text = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise OSError(
                "the gateway that would ask did not start:\n" + "\n".join(safe(line, 500) for line in text[-5:])
            )
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [server.getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()

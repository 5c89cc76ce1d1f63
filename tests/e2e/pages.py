"""The pages of docs/ as tests run them: the settings in a gateway, the commands in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.conftest import KEY, Gateway, eventually

Start = Callable[..., Gateway]

DOCS = Path(__file__).parents[2] / "docs"
PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
SPARE = (3, "spare", "llama-3.3-70b")
GPT = (1, "openai", "gpt-6.1-sol")
EASY = "Translate to French: good morning"
HARD = "Prove that the square root of 2 is irrational."


def settings(page: str) -> str:
    """The full example of a page: its longest block of settings. `test_docs` loads the others, which are fragments."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return max(blocks, key=len)


def commands(page: str) -> list[str]:
    """The commands of a page, one string for each block."""
    text = (DOCS / page).read_text()
    return [
        block for block in re.findall(r"^(?: {4}.*\n)+", text, re.MULTILINE) if re.match(" +(curl|for|sed) ", block)
    ]


def run(start: Start, page: str, env: dict[str, str] | None = None, more: str = "", *, strict: bool = False) -> Gateway:
    """A gateway with the settings of a page, the built-in mock (or a strict double) for each provider, and `more`
    settings. Consumers after the first have the key `sk-gw-<name>`.
    """
    text = settings(page)
    wanted = yaml.safe_load(text)
    names = tuple(wanted["providers"])
    for name in names:
        here = rf"(^  {name}:\s+\{{kind: openai)(?:, base_url: [^,}}\s]+)?"
        text, count = re.subn(here, rf'\1, base_url: "{{mock_{name}}}"', text, flags=re.MULTILINE)
        assert count == 1, name
    mocks = "".join(f'  mock-{name}: {{kind: mock, base_url: "{{mock_{name}}}"}}\n' for name in names)
    keys = {
        provider["api_key"].removeprefix("env:"): f"sk-{name}"
        for name, provider in wanted["providers"].items()
        if "api_key" in provider
    }
    keys |= {consumer["keys"][0]["env"]: f"sk-gw-{consumer['name']}" for consumer in wanted["consumers"][1:]}
    text = text.replace("providers:\n", "providers:\n" + mocks, 1) + more
    return start(text, mocks=names, env=keys | (env or {}), strict=strict)


def shell(gateway: Gateway, page: str, number: int = 0) -> str:
    """The output of a block of commands, run beside the gateway's settings file."""
    text = commands(page)[number]
    text = text.replace("http://127.0.0.1:10000", gateway.url).replace("http://127.0.0.1:9091", gateway.admin)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "EXTPROC_DEMO_KEY": KEY, "PATH": path, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-ec", text],
        cwd=gateway.file.parent,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace("\r", "")


def told(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-ai-attempts"]), answer.headers["x-ai-provider"], answer.headers["x-ai-model"]


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def edit(gateway: Gateway, *changes: tuple[str, str]) -> None:
    """Change the settings file, and wait until the gateway has loaded it."""
    before = gateway.metric("extproc_reloads_total", outcome="taken")
    text = gateway.file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    gateway.file.write_text(text)
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") > before)


def shares(gateway: Gateway, count: int, model: str = "assistant", **fields: Any) -> Counter[str]:
    """The number of requests, of `count`, that each model served."""
    return Counter(told(gateway.chat(model, **fields))[2] for _ in range(count))


def places(gateway: Gateway) -> dict[str, dict[str, float]]:
    """The processor's notes on each model at its provider."""
    found: dict[str, dict[str, float]] = gateway.http.get(gateway.admin + "/providers").json()["data"]
    return found


def tries(gateway: Gateway, **labels: str) -> float:
    return gateway.metric("extproc_tries_total", **labels)

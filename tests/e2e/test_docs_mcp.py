"""docs/mcp.md and docs/mcp-clients.md, with their own settings and commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.conftest import KEY, Gateway, eventually
from tests.e2e.pages import DOCS, Start

AGENT = "sk-gw-agent"


class Shell:
    """Runs the commands of a page beside the gateway, block after block, with the functions of earlier blocks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._before = ""
        self._env = {
            **os.environ,
            "EXTPROC_DEMO_KEY": KEY,
            "AGENT_KEY": AGENT,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "no_proxy": "127.0.0.1",
        }

    def __call__(self, text: str) -> str:
        urls = {"10000": self._gateway.url, "9091": self._gateway.admin}
        urls |= {"8001": self._gateway.mocks["tickets"], "8002": self._gateway.mocks["web"]}
        for port, url in urls.items():
            text = text.replace(f"http://127.0.0.1:{port}", url)
        for function in re.findall(r"^ *\w+\(\) \{.*?; echo; \}\n", text, re.DOTALL | re.MULTILINE):
            self._before += function
        done = subprocess.run(
            ["bash", "-c", self._before + text],
            cwd=self._gateway.file.parent,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr


def blocks(page: str) -> list[str]:
    """The indented blocks of a page that run here: not those that start servers or other people's programs."""
    found = re.findall(r"^(?: {4}.*\n)+", (DOCS / page).read_text(), re.MULTILINE)
    return [block for block in found if re.match(r" +(extproc mcp|mcp|curl)\b", block)]


def names(text: str) -> list[str]:
    return re.findall(r'"name":"(\w+__\w+)"', text)


def start_page(start: Start) -> Gateway:
    found = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "mcp.md").read_text(), re.DOTALL | re.MULTILINE)
    (text,) = (each for each in found if "http://127.0.0.1:8001" in each)
    text = text.replace("http://127.0.0.1:8001", "{at_tickets}").replace("http://127.0.0.1:8002", "{at_web}")
    return start(text, mocks=("tickets", "web"), env={"AGENT_KEY": AGENT}, strict=False)


def test_a_security_engineer_sees_two_teams_and_stops_two_attacks(start: Start) -> None:
    """The whole tutorial of the page, in its order."""
    gateway = start_page(start)
    shell = Shell(gateway)
    pin, ask, poison, restore, result, tainted, audit = blocks("mcp.md")
    told = shell(pin)
    assert "read_page" in told
    first, second, refused = _split(eventually(lambda: _if(shell(ask), lambda text: len(names(text)) == 6)))
    assert first == ["tickets__echo", "tickets__add", "web__echo", "web__read_page"]
    assert second == ["web__echo", "web__read_page"]
    assert refused["error"]["code"] == -32602
    assert "Unknown tool" in refused["error"]["message"]
    assert calls(gateway, "tickets") == 0

    poisoned = shell(poison)
    assert names(poisoned)[:3] == ["tickets__add", "web__echo", "web__read_page"]
    assert "tool_changed" in poisoned
    assert "id_rsa" in poisoned.partition("tool_changed")[2], "the difference is shown to the operator"
    assert "id_rsa" not in poisoned.partition("tool_changed")[0], "and to no client"
    assert calls(gateway, "tickets") == 0
    shell(restore.replace("; sleep 7", ""))

    blocked = json.loads(shell(result))["result"]
    assert blocked["isError"] is True
    assert "attacker" not in json.dumps(blocked)
    assert "untrusted_context" in shell(tainted)
    assert calls(gateway, "tickets") == 0

    rows = {(row["consumer"], row["model"]) for row in json.loads(shell(audit))["data"]}
    assert {("demo", "tickets__echo"), ("demo", "web__read_page"), ("agent", "tickets__add")} <= rows


def _if(value: Any, good: Any) -> Any:
    return value if good(value) else None


def _split(text: str) -> tuple[list[str], list[str], Any]:
    *listed, last = text.strip().splitlines()
    found = [name for line in listed for name in names(line)]
    return found[:4], found[4:], json.loads(last)


def calls(gateway: Gateway, name: str) -> int:
    return sum(entry["body"].get("method") == "tools/call" for entry in gateway.seen(name) if entry["body"])


def test_the_first_command_of_the_clients_page_lists_the_tools_of_make_run(start: Start) -> None:
    """With the settings of `make run`, on the demo key."""
    text = (DOCS.parent / "gateway.yaml").read_text()
    text = re.sub(r"^listener:.*\n", "", text, flags=re.MULTILINE)
    gateway = start(
        text.replace("{kind: mock}", '{kind: mock, base_url: "{mock_tickets}"}').replace(
            "http://127.0.0.1:8089", "{at_tickets}"
        ),
        mocks=("tickets", "web"),
        strict=False,
    )
    (command, *_) = blocks("mcp-clients.md")
    shell = Shell(gateway)
    listed = eventually(lambda: names(shell(command)))
    assert listed == [f"sandbox__{name}" for name in ("echo", "add", "slow", "fail", "read_page")]

"""The commands of README and tour, and of pages without a test of their own, against the gateway of `make run`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.test_docs import BASE

ROOT = Path(__file__).parents[2]
OPENAI = {"OPENAI_API_KEY": "sk-none"}  # a provider that no request of these tests reaches
ADDRESSES = {"10000": "url", "9090": "status", "9091": "admin"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    text = re.sub(r"^listener: .*\n", "", (ROOT / "gateway.yaml").read_text(), flags=re.MULTILINE)
    text = text.replace("{kind: mock}", '{kind: mock, base_url: "{mock_sandbox}"}')
    text = text.replace("http://127.0.0.1:8089", "{at_sandbox}")
    yield from run_gateway(tmp_path_factory.mktemp("tour"), text, ("sandbox",), OPENAI, strict=False)


def run(gateway: Gateway, text: str) -> str:
    """The output of commands of a page, run beside the gateway's settings file."""
    for port, name in ADDRESSES.items():
        text = text.replace(f"http://127.0.0.1:{port}", getattr(gateway, name))
    text = text.replace("sk-gw-demo", KEY)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **OPENAI, "EXTPROC_DEMO_KEY": KEY, "no_proxy": "127.0.0.1"}
    command = ["bash", "-ec", text]
    done = subprocess.run(
        command, cwd=gateway.file.parent, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace("\r", "")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def block(name: str, word: str) -> str:
    """The commands of a page that mention `word`."""
    [found] = [text for text in re.findall(r"^(?: {4}.*\n)+", page(name), re.MULTILINE) if word in text]
    return str(found)


def test_the_readme_and_the_tour(gateway: Gateway) -> None:
    [first] = re.findall(r"^```sh\n(.*?)^```", page("README.md"), re.DOTALL | re.MULTILINE)
    failover, tools = re.findall(r"^```sh\n(.*?)^```", page("docs/tour.md"), re.DOTALL | re.MULTILINE)
    assert json.loads(run(gateway, first))["choices"][0]["message"]["content"]
    out = run(gateway, failover)
    assert out.startswith("HTTP/1.1 200")
    assert "\nx-ai-attempts: 2\n" in out
    assert "\nx-ai-provider: sandbox\n" in out
    entry = gateway.last(lambda entry: len(entry.get("tries", ())) == 1)
    assert (entry["tries"][0]["provider"], entry["tries"][0]["status"]) == ("flaky", 503)
    called = eventually(lambda: '"sum":3' in (told := run(gateway, tools)) and told)
    assert json.loads(called)["result"]["content"] == [{"type": "text", "text": "3"}]
    [code] = re.findall(r"^```python\n(.*?)^```", page("README.md"), re.DOTALL | re.MULTILINE)
    run(gateway, f"python - <<'END'\n{code}\nEND\n")
    assert "resilient" in run(gateway, "extproc check --explain --model resilient --consumer demo")
    blocked = gateway.chat("assistant", "the key is AKIAABCDEFGHIJKLMNOP")
    assert (blocked.status_code, blocked.json()["error"]["code"]) == (400, "guardrail_blocked")
    own = run(gateway, "curl -s http://127.0.0.1:10000/v1/usage -H 'authorization: Bearer sk-gw-demo'")
    assert json.loads(own)["object"] == "usage"
    eventually(lambda: "resilient" in run(gateway, "extproc usage --group-by model"))


@pytest.mark.parametrize(
    ("name", "word", "wanted"),
    [
        ("docs/clients.md", "/v1/models", '"assistant"'),
        ("docs/translation.md", "/v1/messages", "\nx-ai-provider: sandbox\n"),
        ("docs/failover.md", "curl -si", "\nx-ai-attempts: 1\n"),
        ("docs/compose.md", "/v1/chat/completions", '"choices"'),
        ("docs/telemetry.md", "/healthz", "extproc_requests_total"),
        ("docs/workers.md", "/readyz", "extproc_requests_total"),
        ("docs/troubleshooting.md", "extproc doctor", "listener"),
    ],
)
def test_commands_of_a_page_do_what_it_says(gateway: Gateway, name: str, word: str, wanted: str) -> None:
    assert wanted in run(gateway, block(name, word))


@pytest.mark.parametrize(("name", "word", "wanted"), [("docs/providers.md", "extproc check -c", "gateway.yaml: ok")])
def test_the_check_of_a_page_accepts_its_settings(
    gateway: Gateway, name: str, word: str, wanted: str, tmp_path: Path
) -> None:
    [settings, *_] = re.findall(r"^```yaml\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE)
    missing = {key: value for key, value in BASE.items() if key not in yaml.safe_load(settings)}
    (tmp_path / "gateway.yaml").write_text((yaml.safe_dump(missing) if missing else "") + settings)
    assert wanted in run(dataclasses.replace(gateway, file=tmp_path / "gateway.yaml"), block(name, word))


def test_helms_request_is_answered(gateway: Gateway) -> None:
    """The last command of the block. The others need a cluster."""
    text = block("docs/helm.md", "try-me").replace("try-me", "sk-gw-demo")
    assert '"choices"' in run(gateway, text[text.index("curl") :])

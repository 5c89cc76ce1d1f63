"""The pages about spending: their commands, run against the gateway of `make run` with the first settings of
budgets.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway

ROOT = Path(__file__).parents[2]
WORDS = "ask|curl|export|extproc|for|make|sqlite3"
EXTRA = "\nauth: {key_secret: env:EXTPROC_KEY_SECRET}\n"
SECRET = "0123456789abcdef" * 4
KEYS = {"EXTPROC_DEMO_KEY": KEY, "CI_BOT_KEY": "sk-gw-ci", "EXTPROC_KEY_SECRET": SECRET}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """The blocks of a page that hold commands, in order."""
    blocks = re.findall(r"^(?: {4}.*\n)+", page(name), re.MULTILINE)
    return [block for block in blocks if re.match(rf" +(?:{WORDS})\b", block)]


def as_told() -> str:
    """gateway.yaml with the first settings of budgets.md in place of its consumers, teams and budgets."""
    [first, *_] = re.findall(r"^```yaml\n(.*?)^```", page("budgets.md"), re.DOTALL | re.MULTILINE)
    assert first.count("window: minute") == 1
    first = first.replace("window: minute", "window: hour")  # a minute may end in the middle of a test
    text = (ROOT / "gateway.yaml").read_text(encoding="utf-8")
    own = re.sub(r"^listener: .*\n", "", text, flags=re.MULTILINE)  # the tests have a port of their own
    start, end = own.index("\nconsumers:") + 1, own.index("\nguardrails:") + 1
    assert yaml.safe_load(own[start:end]).keys() == {"consumers", "teams", "budgets"}
    assert own.count("{kind: mock}") == 2  # the same mock twice
    return own[:start].replace("{kind: mock}", '{kind: mock, base_url: "{mock_sandbox}"}') + first + own[end:] + EXTRA


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("pages"), as_told(), ("sandbox",), KEYS, strict=False)


def run(gateway: Gateway, *blocks: str) -> str:
    """The output of commands, run beside the gateway's settings file."""
    text = (
        "".join(blocks).replace("http://127.0.0.1:10000", gateway.url).replace("http://127.0.0.1:9091", gateway.admin)
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **KEYS, "PATH": path, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-ec", text], cwd=gateway.file.parent, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_limits_of_a_team_a_run_and_a_key_work_as_the_page_shows(gateway: Gateway):
    start, check, see, report, own, *_ = commands("budgets.md")
    assert "make run" in start
    out = run(gateway, check, see)
    for budget in ("team-month", "per-run (label.run=nightly-42)", "rpm (key=ci-bot#0)"):
        assert budget in out
    assert out.split()[-6:] == ["402", "400", "60", "200", "1", "429"]
    assert len(gateway.seen("sandbox")) == 60
    eventually(lambda: "nightly-42" in run(gateway, report))
    usage, budgets = re.split(r"^budget .*\n", run(gateway, report), flags=re.MULTILINE)
    assert re.search(r"^platform +nightly-42 +61 +1 +0 ", usage, re.MULTILINE)
    assert re.search(r"^platform +nightly-43 +1 +1 +0 ", usage, re.MULTILINE)
    assert re.search(r"^rpm +key=ci-bot#0 +requests +hour +60 +60 ", budgets, re.MULTILINE)
    usage, budgets = map(json.loads, run(gateway, *own.splitlines(keepends=True)).replace("}{", "}\n{").splitlines())
    assert usage["total"]["requests"] == 63
    assert {budget["name"] for budget in budgets["data"]} == {"team-month", "per-run", "rpm"}


def test_usage_reports_print_what_the_page_shows(gateway: Gateway):
    tables, budgets, focus, _kept, others = commands("usage.md")  # `_kept` stays, or needs a bucket
    out = run(gateway, tables)
    heads = next(line for line in page("usage.md").splitlines() if line.startswith("    team      consumer"))
    assert out.splitlines()[0].split() == heads.split()
    assert "start,end,model,requests,refused,errors" in out  # the last asks for CSV
    assert run(gateway, budgets).split()[0] == "budget"
    run(gateway, focus)
    assert "BilledCost" in (gateway.file.parent / "november.csv").read_text().splitlines()[0].split(",")
    found = run(gateway, others)
    csv = (gateway.file.parent / "november.csv").read_text().splitlines()
    assert csv[0].startswith("start,end,team,model,requests,")
    [shown] = re.findall(r"^```json\n(.*?)^```", page("usage.md"), re.DOTALL | re.MULTILINE)
    wanted, now = json.loads(shown), json.loads(found)
    assert now.keys() == wanted.keys()
    everything = gateway.http.get(f"{gateway.admin}/usage?group_by=team").json()
    assert everything["data"][0].keys() == wanted["data"][0].keys()
    assert wanted["total"].keys() <= everything["total"].keys() == wanted["data"][0].keys() - {"start", "end", "group"}


def test_a_grant_works_as_the_page_shows(gateway: Gateway):
    for block in commands("console.md"):
        run(gateway, block)
    [budget] = gateway.http.get(f"{gateway.admin}/budgets/team-month").json()["data"]
    assert budget["scopes"][0]["granted"] == "50"
    for grant in gateway.http.get(f"{gateway.admin}/grants").json()["data"]:
        assert gateway.http.delete(f"{gateway.admin}/grants/{grant['id']}").is_success
    answer = gateway.http.post(
        f"{gateway.admin}/grants", json={"budget": "team-month", "scope": "team-month:team=search", "amount": "1"}
    )
    assert (answer.status_code, "/budgets/team-month" in answer.text) == (400, True)


def test_the_page_of_the_console_lists_the_api(gateway: Gateway):
    paths = gateway.http.get(f"{gateway.admin}/openapi.json").json()["paths"]
    described = {
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods if method != "parameters"
    }
    listed = set(re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", page("console.md").partition("## Give room")[0]))
    unlisted, endless = {"GET /", "GET /openapi.json"}, {"GET /events"}
    assert listed - endless == described - unlisted


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3, which the page names")
def test_the_ledger_is_copied_while_in_use(gateway: Gateway):
    [copy] = commands("ledger.md")
    run(gateway, copy)
    assert (gateway.file.parent / "copy.db").stat().st_size > 0
    assert (gateway.file.parent / "data").stat().st_mode & 0o777 == 0o700


def test_a_key_made_as_the_page_shows_is_accepted(gateway: Gateway):
    make, *_ = commands("access.md")
    out = run(gateway, make.replace("$(openssl rand -hex 32)", SECRET))
    key, hashed = re.findall(r"^(?:key|hash): +(\S+)$", out, re.MULTILINE)
    text = gateway.file.read_text()
    assert text.count("keys: [{env: CI_BOT_KEY}]") == 1
    gateway.file.write_text(
        text.replace("{env: CI_BOT_KEY}]", f'{{env: CI_BOT_KEY}}, {{name: "2027", hash: "{hashed}"}}]')
    )
    eventually(lambda: gateway.chat("assistant", key=key, headers={"x-ai-run": "r"}).is_success)
    eventually(lambda: "ci-bot#2027" in run(gateway, "extproc usage --group-by key"))

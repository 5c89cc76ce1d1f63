"""`extproc check --explain --tool`: the way of a call, from the settings alone."""

import pytest

from extproc.cli import main
from extproc.tools.mcp.pins import write
from tests.guardrails.services import PROVIDERS
from tests.guardrails.test_quarantine import GUARD
from tests.mcp.test_policy import MCP

MORE = """
guardrails:
  - {name: keys, kind: regex, on: [tool_arguments], patterns: {k: SECRET}}
  - {name: calls, kind: tools, arguments: {"github__*": {/n: {minimum: 1, enum: [1, 2]}}, other: {x: {maximum: 1}}}}
  - GUARD
budgets:
  - {name: calls, per: [consumer], match: {mcp_server: github}, unit: tool_calls, limit: 5, window: hour}
  - {name: none-left, match: {tool: github/spent}, unit: tool_calls, limit: 0, window: hour}
  - {name: usd, unit: usd, limit: 1, window: day}
teams: {platform: {tools: ["dev/github__*"]}}
"""


@pytest.fixture
def explained(tmp_path, monkeypatch, capsys):
    """Call it with words of the command line: the exit code and the output."""
    lock = tmp_path / "mcp.lock.yaml"
    lock.write_text(
        write(
            {"github": dict.fromkeys([("tools", name) for name in ("add", "delete_all", "spent")], "0" * 64), "web": {}}
        )
    )
    bots = "{name: bot, team: platform, keys: [{env: BOT_KEY}], tools: ['*']}, {name: none, keys: [{env: NONE_KEY}]}, "
    text = PROVIDERS.replace("consumers: [", f"consumers: [{bots}")
    file = tmp_path / "gateway.yaml"
    guard = GUARD.replace("tools: ['*']", "tools: ['web/*']") + "}"
    changes = "{github: {changes: {open: {name: bug, fixed: {repo: x}, hidden: [debug]}}}, web"
    mcp = MCP.replace("{github: {}, web", changes)
    file.write_text(f"{text}{mcp}  pins: {{file: {lock}}}\n{MORE.replace('GUARD', guard)}")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["extproc", "check", "-c", str(file), "--explain", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_a_call_is_explained(explained):
    code, text = explained("--tool", "dev/github__add", "--consumer", "bot", "--label", "run=7")
    lines = dict.fromkeys(line[:11].strip() for line in text.splitlines())
    assert list(lines) == ["tool", "consumer", "policy", "pin", "guardrails", "budgets", "answer", "not known"]
    assert code == 0
    for told in (
        "add of server github, as github__add in profile dev",
        "bot: may call it",
        "sensitive: refused in a run",
        "a call costs 0.25 USD",
        "000000000000…",
        "keys (regex) reads arguments: block",
        "calls: argument '/n' must be at least 1 and must be one of 1, 2",
        "calls (consumer=bot): 1 of 5 tool_calls per hour",
        "usd (shared by all): 0.25 USD of 1 USD per day",
        "forwarded to server github",
    ):
        assert told in text
    assert "quarantine" not in text
    assert "'x'" not in text, "the rule of another tool"


@pytest.mark.parametrize(
    ("tool", "consumer", "told"),
    [
        ("dev/github__delete_all", "bot", "refused: tool_not_found"),
        ("dev/github__add", "none", "refused: tool_not_found"),
        ("dev/web__fetch", "bot", "refused: tool_not_found"),  # not its team's
        ("dev/github__new", "bot", "refused: tool_changed"),
        ("dev/github__spent", "bot", "refused: rate_limited"),
        ("dev/github__add", "nobody", "there is no consumer"),
        ("dev/jira__add", "bot", "no server of profile"),
        ("other/add", "bot", "profiles are dev"),
    ],
)
def test_a_call_that_is_refused(explained, tool, consumer, told):
    code, text = explained("--tool", tool, "--consumer", consumer)
    assert (code, told in text) == (1, True), text


def test_a_changed_tool_is_explained_by_its_name_in_the_profile(explained):
    _, text = explained("--tool", "dev/github__bug", "--consumer", "bot")
    assert "open of server github, as github__bug in profile dev" in text
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("arguments")] == [
        ["debug:", "hidden"],
        ["repo:", "fixed"],
    ]
    assert "no server of profile" in explained("--tool", "dev/github__open")[1]


def test_the_command_line(explained):
    assert "alone" in explained("--tool", "dev/github__add", "--model", "m")[1]
    code, text = explained("--tool", "dev/web__fetch")
    assert code == 1
    assert "anonymous: was not granted it" in text
    assert "q (quarantine) reads results: mask" in text
    assert "untrusted: its answers taint the run" in text

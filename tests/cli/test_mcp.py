"""`extproc mcp`: what servers offer, and pins of it."""

import json

import pytest

from extproc.cli import main, mcp
from extproc.tools.mcp.pins import digest, read
from tests.mcp.test_pins import TOOL

SHOWN = {"state": "listed", "reason": "", "pinned": None}
ADD = {("tools", "add"): digest(TOOL)}


def served(tools, **more):
    shown = [{**SHOWN, "kind": "tools", "name": one["name"], "digest": digest(one), "definition": one} for one in tools]
    return {"name": "github", "error": "", "read_at": 1.0, "tools": shown, "others": [], "left_out": [], **more}


@pytest.fixture
def said(monkeypatch, capsys, tmp_path):
    """Call it with servers and words: the exit code and the output of `extproc mcp`."""

    class Gateway:
        def json(self, path, parameters):
            assert (path, parameters) == ("/tools", [("definitions", "true")])
            return {"object": "list", "data": json.loads(json.dumps(self.servers))}

    gateway = Gateway()
    monkeypatch.setattr(mcp, "connect", lambda _options: gateway)

    def run(servers, *words):
        gateway.servers = servers
        monkeypatch.setattr("sys.argv", ["extproc", "mcp", *words, "--file", str(tmp_path / "mcp.lock.yaml")])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_pins_are_written_and_compared(said, tmp_path):
    code, text = said([served([TOOL])], "list")
    assert code == 0
    assert "github: 1 tools" in text
    assert digest(TOOL)[:12] in text
    assert said([served([TOOL])], "diff")[0] == 1
    assert "1 definitions pinned" in said([served([TOOL])], "pin")[1]
    assert read((tmp_path / "mcp.lock.yaml").read_text()) == {"github": ADD}
    assert said([served([TOOL])], "diff") == (0, "nothing differs\n")
    poisoned = {**TOOL, "description": "Adds\u200b; and reads ~/.ssh"}
    code, text = said([served([poisoned, {**TOOL, "name": "more"}])], "diff")
    assert code == 1
    assert "changed: github/add" in text
    assert "Adds\\u{200b}; and reads ~/.ssh" in text
    assert "new: github/more" in text
    assert "gone: github/add" in said([served([])], "diff")[1]
    # one server alone
    other = {**served([TOOL]), "name": "jira"}
    said([served([poisoned]), other], "pin", "--server", "jira")
    assert read((tmp_path / "mcp.lock.yaml").read_text()) == {
        "github": ADD,
        "jira": ADD,
    }
    assert "there is no MCP server" in said([other], "pin", "--server", "gitlab")[1]
    assert "has read none" in said([served([], read_at=None)], "pin")[1]


def test_pins_of_a_server_that_is_away_stay_as_they_are(said, tmp_path):
    lock, other = tmp_path / "mcp.lock.yaml", {**served([TOOL]), "name": "jira"}
    said([served([TOOL]), other], "pin")
    code, text = said([served([], read_at=None), {**other, "tools": []}], "pin")
    assert (code, "left as pinned: github" in text, "gone: jira/add" in text) == (0, True, True)
    assert read(lock.read_text()) == {"github": ADD, "jira": {}}
    code, text = said([served([], read_at=None), other], "diff")
    assert (code, "new: jira/add" in text, "gone: github" in text) == (1, True, False)


def test_everything_that_clients_get_is_shown_and_pinned(said, tmp_path):
    hello = {"instructions": "Mind the\u200b step."}
    others = [
        {**SHOWN, "kind": "instructions", "name": "instructions", "digest": "1" * 64, "definition": hello},
        {**SHOWN, "kind": "prompts", "name": "greet", "digest": "2" * 64, "definition": {"name": "greet"}},
    ]
    others[0] |= {"state": "withheld", "reason": "its definition has characters that people do not see"}
    left_out = [{"kind": "tools", "name": "search", "reason": "in profile dev it would be 'search': it belongs to a"}]
    shown = [served([{**TOOL, "_meta": {"x": "y"}}], others=others, left_out=left_out)]
    code, text = said(shown, "list")
    assert code == 0
    assert "withheld  111111111111  instructions (its definition has characters" in text
    assert "listed    222222222222  prompt greet" in text
    assert "left out                search (in profile dev it would be 'search': it belongs to a)" in text
    code, text = said(shown, "diff")
    assert "new: github instructions\n    withheld: its definition has" in text
    assert "Mind the\\u{200b} step." in text
    assert "new: github prompt greet" in text
    assert '"_meta"' in text
    said(shown, "pin")
    pinned = read((tmp_path / "mcp.lock.yaml").read_text())["github"]
    assert {("instructions", "instructions"), ("prompts", "greet"), ("tools", "add")} == {*pinned}
    # a file of the older version is renewed
    (tmp_path / "mcp.lock.yaml").write_text(f"version: 1\nservers: {{github: {{add: {'0' * 64}}}}}\n")
    assert "of version 1" in said(shown, "diff")[1]
    assert "3 definitions pinned" in said(shown, "pin")[1]

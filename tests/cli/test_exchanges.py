"""`extproc exchanges` and `extproc completion`."""

import argparse
import json
import shutil
import subprocess

import pytest

from extproc.cli import VERBS, exchanges, module
from extproc.cli._tables import painted, progress


def entry(number, **more):
    known = {"id": f"id-{number}", "request_id": f"r-{number}", "time": 1_780_000_000.0 + number, "status": 200}
    return {**known, "error": "", "outcome": "ok", **more}


class Fake:
    """An admin API whose pages are given; it ends what follows it after the last one."""

    def __init__(self, *pages):
        self.pages, self.asked = list(pages), []

    def json(self, path, parameters=()):
        self.asked.append((path, list(parameters)))
        if not self.pages:
            raise KeyboardInterrupt
        found = self.pages.pop(0)
        return {"data": found} if isinstance(found, list) else found


@pytest.fixture
def show(run, monkeypatch):
    def call(fake, *words):
        monkeypatch.setattr(exchanges, "connect", lambda _options: fake)
        monkeypatch.setattr(exchanges.time, "sleep", lambda _seconds: None)
        return run("exchanges", *words)

    return call


def ids(out):
    return [json.loads(line)["id"] for line in out.splitlines()]


def test_the_latest_stand_last_and_filters_reach_the_api(show):
    fake = Fake([entry(3), entry(2)])
    status, out, _ = show(fake, "--only", "team=qa", "--only", "label.a=b=c", "-n", "2", "--format", "json")
    assert (status, ids(out)) == (0, ["id-2", "id-3"])
    assert fake.asked == [("/exchanges", [("team", "qa"), ("label.a", "b=c"), ("limit", "2")])]
    assert show(Fake(), "--only", "team")[2] == "--only is given as field=value\n"


def test_following_shows_each_exchange_once(show):
    old = [entry(number) for number in range(30, 0, -1)]
    fake = Fake(old, [entry(31), *old], [entry(33), entry(32), entry(31), *old])
    status, out, _ = show(fake, "-f", "--format", "json")
    assert status == 130
    assert ids(out) == [f"id-{number}" for number in (*range(11, 31), 31, 32, 33)]


def test_a_gap_while_following_is_told(show):
    fake = Fake([entry(1)], [entry(number) for number in range(1000, 500, -1)])
    assert "more than 500 exchanges ended in a second" in show(fake, "-f")[2]


def test_lines_are_aligned_and_steer_no_terminal(show):
    evil = entry(1, consumer="\x1b[2J" + "x" * 100, model="m", error="guardrail_blocked", outcome="refused")
    lines = show(Fake([evil, entry(2, input_tokens=1200, output_tokens=3, cost_usd="0.0000123", duration_ms=4.4)]))[1]
    heads, second, first = lines.splitlines()
    assert "\x1b" not in lines
    assert heads.rindex("id") == first.index("id-1") == second.index("id-2")
    assert "1,200+3" in second
    assert "0.000012" in second
    assert "guardrail_blocked" in first


def test_one_exchange_is_shown_whole(show):
    tried = {"target": "m", "provider": "a", "status": 503, "ms": 7, "outcome": "5xx"}
    out = show(Fake(entry(1, tries=[tried], labels={"run": "7"}, stream=True, denied_by="")), "id-1")[1]
    assert "time        2026-05-28 20:26:41 UTC\n" in out
    assert "try 1       m at a: 5xx, status 503, 7 ms\n" in out
    assert "labels      run=7\n" in out
    assert "denied_by" not in out


def test_colours_are_for_terminals_alone(monkeypatch):
    assert painted("x", "bad") == "x"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert painted("x", "bad") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("x", "bad") == "x"


def test_progress_is_for_terminals_alone(monkeypatch, capsys):
    with progress() as told:
        told("5 rows")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress() as told:
        told("5 rows")
    assert capsys.readouterr().err == "\r\x1b[K5 rows\r\x1b[K"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_and_options(run, tmp_path):
    script = tmp_path / "complete"
    script.write_text(run("completion", "bash")[1])

    def complete(*words):
        line = " ".join(repr(word) for word in ("extproc", *words))
        call = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _extproc; printf '%s\\n' ${{COMPREPLY[@]}}"
        )
        done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("ex") == ["exchanges"]
    assert complete("mcp", "")[:3] == ["list", "diff", "pin"]
    assert complete("usage", "--res") == ["--resolution"]
    assert complete("nothing", "--") == []
    for verb in (verb for group in VERBS.values() for verb in group):
        parser = argparse.ArgumentParser()
        module(verb).arguments(parser)
        assert "--help" in complete(verb, "--h")
    assert "complete -c extproc -n __fish_use_subcommand -a exchanges" in run("completion", "fish")[1]
    assert run("completion", "zsh")[1].startswith("autoload -U +X bashcompinit")

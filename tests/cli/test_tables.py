"""`extproc usage` and `extproc budgets`, against a running admin API."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cli._admin import AdminClient
from extproc.cli._tables import budgets_table, money, safe, table, usage_table
from extproc.operate.admin.api import admin_app
from extproc.operate.admin.doors import HTTPThread
from tests.admin.fakes import QUESTION, FakeSources, exchange, some

TOKEN = "operator-token"
EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\n" + "x" * 10_000


@pytest.fixture(scope="module")
def sources():
    now = time.time()
    return FakeSources(some(now, 50), now)


@pytest.fixture(scope="module")
def urls(sources):
    """The address without a token, and the one with a token."""
    thread = HTTPThread()
    ports = [thread.add(lambda token=token: admin_app(sources, token), "127.0.0.1", 0) for token in (None, TOKEN)]
    thread.start()
    yield [f"http://127.0.0.1:{port}" for port in ports]
    thread.stop()


def test_the_table_has_the_total_of_its_lines(run, urls, sources):
    status, out, _ = run("usage", "--url", urls[0], "--start", "2020-01-01", "--end", "2100-01-01")
    heads, rule, *lines, again, total = out.splitlines()
    assert status == 0
    assert heads.split() == [
        "team",
        "consumer",
        *("requests", "refused", "errors", "input_tokens", "output_tokens", "usd"),
    ]
    assert rule == again
    assert len({len(line) for line in (heads, rule, *lines, total)}) == 1
    assert sum(int(line.split()[2]) for line in lines) == int(total.split()[1]) == len(sources.entries)


def test_arguments_reach_the_api(run, urls, sources):
    run(
        *("usage", "--url", urls[0], "--start", "2026-11-01", "--end", "2026-12-01", "--group-by", "team,label.agent"),
        *("--resolution", "day", "--only", "label.agent=a=b&c", "--only", "consumer=ada"),
    )
    assert sources.asked[-1] == [
        ("start", "2026-11-01"),
        ("end", "2026-12-01"),
        ("resolution", "day"),
        ("group_by", "team,label.agent"),
        ("label.agent", "a=b&c"),
        ("consumer", "ada"),
    ]


def test_json_and_csv_are_printed_as_the_api_returns_them(run, urls):
    assert json.loads(run("usage", "--url", urls[0], "--format", "json")[1])["object"] == "usage"
    assert run("usage", "--url", urls[0], "--format", "csv")[1].startswith("start,end,team,consumer,requests,")
    assert json.loads(run("budgets", "--url", urls[0], "--format", "json")[1])["object"] == "list"


def test_budgets_are_printed(run, urls):
    status, out, _ = run("budgets", "--url", urls[0])
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert lines[2][:10] == [
        "team-month",
        "team=platform",
        "usd",
        "month",
        "500",
        "455.25",
        "8.50",
        "0",
        "36.25",
        "91.0%",
    ]
    assert lines[6][:10] == ["per-minute", "-", "requests", "minute", "60", "0", "0", "0", "60", "0.0%"]
    assert lines[7][-1] == "never"


def test_a_grant_is_made(run, urls, sources):
    status, out, _ = run("budgets", "--url", urls[0], "--grant", "team-month", "team-month:team=search", "25")
    assert (status, out) == (0, "granted 25 to team-month:team=search until 2026-12-01T00:00:00Z (g-1)\n")
    assert [grant["amount"] for grant in sources.given] == ["25"]
    status, out, err = run("budgets", "--url", urls[0], "--grant", "team-month", "team-month:team=search", "-0")
    assert (status, out) == (1, "")
    assert "amount" in err


def test_a_grant_names_its_count_as_the_table_does(run, urls, sources):
    assert run("budgets", "--url", urls[0], "--grant", "team-month", "team=search", "24")[0] == 0
    assert (sources.given[-1]["scope"], sources.given[-1]["amount"]) == ("team-month:team=search", "24")
    before = len(sources.given)
    status, _, err = run("budgets", "--url", urls[0], "--grant", "team-month", "team=none", "24")
    assert (status, len(sources.given)) == (1, before)
    assert err


def test_a_question_is_listed_and_answered_and_a_count_reset(run, urls, sources):
    status, out, _ = run("approvals", "--url", urls[0])
    assert (status, out.splitlines()[2].split()[:8]) == (
        0,
        ["5c1f0a", "2026-11-18", "10:00", "open", "ada", "search", "team-month", "team=search"],
    )
    status, out, _ = run("approvals", "--url", urls[0], "--approve", "5c1f0a", "--reason", "a demo")
    assert (status, out) == (0, "approved: 2.50 of team-month:team=search for ada\n")
    assert sources.open["5c1f0a"]["reason"] == "a demo"
    status, _, err = run("approvals", "--url", urls[0], "--deny", "5c1f0a")
    assert (status, "approved already" in err) == (1, True)
    status, out, _ = run("budgets", "--url", urls[0], "--reset", "team-month", "team=search")
    assert (status, out) == (0, "team-month:team=search begins anew: 41.50 no longer counts\n")
    assert run("approvals", "--url", urls[0], "--reason", "none")[0] == 1
    call = {"profile": "dev", "server": "bank", "tool": "pay", "definition": "", "arguments": '{"n":1}'}
    sources.open["77aa"] = QUESTION | {"id": "77aa", "call": call | {"arguments_sha256": "", "run": ""}}
    assert 'bank/pay        {"n":1}' in run("approvals", "--url", urls[0])[1]
    assert run("approvals", "--url", urls[0], "--deny", "77aa")[1] == "denied: a call of bank/pay for ada\n"


def test_the_token_is_sent(run, urls, monkeypatch):
    monkeypatch.setenv("ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("OTHER", "wrong")
    assert run("usage", "--url", urls[1], "--token", "env:ADMIN_TOKEN")[0] == 0
    for more in ([], ["--token", "env:OTHER"]):
        status, out, err = run("usage", "--url", urls[1], *more)
        assert (status, out) == (1, "")
        assert "it wants the admin token" in err
    status, _, err = run("usage", "--url", urls[1], "--token", TOKEN)
    assert status == 1
    assert TOKEN not in err


def test_the_settings_give_the_address_and_their_token_goes_only_there(run, urls, monkeypatch, tmp_path):
    file = tmp_path / "gateway.yaml"
    port = urls[1].rpartition(":")[2]
    file.write_text(
        f"providers: {{a: {{kind: mock}}}}\nmodels: {{m: {{provider: a}}}}\nauth: {{required: false}}\n"
        f"admin: {{address: 127.0.0.1, port: {port}, token: env:ADMIN_TOKEN}}\n"
    )
    monkeypatch.setenv("ADMIN_TOKEN", TOKEN)
    assert run("usage", "-c", file)[0] == 0
    assert "it wants the admin token" in run("usage", "-c", file, "--url", urls[1])[2]
    monkeypatch.delenv("ADMIN_TOKEN")
    assert "env:ADMIN_TOKEN is not set" in run("usage", "-c", file)[2]


@pytest.mark.parametrize(
    "url", ["", "localhost:9091", "ftp://a", "http://", "file:///etc/passwd", "http://a:b@c", "http://a/?q"]
)
def test_an_invalid_address_is_refused(run, url):
    assert "--url is the admin API's address" in run("usage", "--url", url)[2]


def test_an_unreachable_address_is_reported(run):
    status, out, err = run("budgets", "--url", "http://127.0.0.1:1")
    assert (status, out) == (1, "")
    assert "http://127.0.0.1:1 does not answer" in err


@pytest.mark.parametrize("arguments", [["--resolution", "total", "--only", "x=1"], ["--start", "never"]])
def test_a_refusal_of_the_api_is_printed(run, urls, arguments):
    status, out, err = run("usage", "--url", urls[0], *arguments)
    assert (status, out) == (1, "")
    assert "refuses: " in err


@pytest.mark.parametrize("only", ["x", "=x", ""])
def test_an_invalid_filter_is_refused(run, urls, only):
    assert run("usage", "--url", urls[0], "--only", only)[0] == 1


# --- untrusted text


def test_control_characters_in_a_label_do_not_reach_the_terminal():
    source = FakeSources([exchange(1, 1_794_990_000.0, labels={"agent": EVIL})])
    out = usage_table(source.usage([("group_by", "label.agent")]))
    assert all(line.isprintable() for line in out.splitlines())
    assert max(map(len, out.splitlines())) < 200
    source.scopes = [(EVIL, "1", "0", "0")]
    out = budgets_table(source.budgets(None))
    assert all(line.isprintable() for line in out.splitlines())


def test_an_answer_that_is_not_the_gateways_is_reported(monkeypatch):
    gateway = AdminClient("http://127.0.0.1:1")
    for text in ("<html>", "[]", "3", ""):
        monkeypatch.setattr(gateway, "text", lambda *_, text=text: text)
        with pytest.raises(ValueError, match="is not the admin API"):
            gateway.json("/usage")


@given(st.text(), st.integers(1, 100))
def test_safe_text_is_short_and_printable(text, most):
    assert len(safe(text, most)) <= most
    assert safe(text, most).isprintable()


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3)))
def test_every_row_is_one_line(rows):
    assert len(table(["a", "b", "c"], rows).split("\n")) == len(rows) + 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"),
        ("1.5", "1.50"),
        ("0.000123", "0.000123"),
        ("1234567.123456789", "1,234,567.123456789"),
        ("-0.5", "-0.50"),
        ("-1234", "-1,234"),
        ("1E+3", "1,000"),
    ],
)
def test_money_is_printed_exactly(text, shown):
    assert money(text) == shown


def test_a_budget_without_a_window_counts_at_once():
    answer = FakeSources().budgets(None)
    slots = {"name": "slots", "unit": "concurrency", "window": None, "limit": "2", "resets_at": None, "scopes": []}
    row = budgets_table({"data": [answer["data"][0] | slots]}).splitlines()[-1]
    assert re.split("  +", row)[:5] == ["slots", "-", "concurrency", "at once", "2"]


def test_empty_answers_are_printed():
    source = FakeSources()
    source.budgetless = True
    assert "No budget is set" in budgets_table(source.budgets(None))
    assert usage_table(source.usage([])).splitlines()[-1].split() == ["0", "0", "0", "0", "0", "0"]
    report = source.usage([("group_by", "team"), ("resolution", "day")]) | {"truncated": True}
    report["total"]["unpriced"] = 3
    assert "3 requests have no known price" in usage_table(report)
    assert "more rows than are shown" in usage_table(report)


def test_the_table_says_what_kept_answers_saved(sources):
    report = sources.usage([])
    assert "Kept answers" not in usage_table(report)
    report["total"] |= {"cache_hits": 1200, "saved_usd": "3.5", "shadow_hits": 7, "would_save_usd": "0.25"}
    *_, saved, shadow = usage_table(report).splitlines()
    assert saved == "Kept answers saved 3.5 USD (1,200 requests)."
    assert shadow == "Kept answers would have saved 0.25 USD (7 requests)."

"""The routes: the questions they ask of the sources, and the answers they make."""

import asyncio
import csv
import io
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.operate.admin.api import admin_app
from extproc.operate.admin.handlers import as_csv
from extproc.operate.admin.handling import MAX_BODY
from extproc.operate.admin.playing import pieces_of
from extproc.operate.reports import ReportError
from tests.admin.conftest import JSON, NOW
from tests.admin.fakes import FakeSources, acts_of

GRANT = {"budget": "team-month", "scope": "team-month:team=lab", "amount": "25.5"}
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "=cmd|' /C calc'!A0"]
FORMULAS += ["＝1+1", "＋1", "－1", "＠SUM(A1)", "﹦1", "﹢1", "﹣1", "﹫x", "\ufeff=1", "\u3000＝1", "\u00a0+1"]


def rows(text):
    return list(csv.reader(io.StringIO(text, newline="")))


# --- usage


async def test_the_parameters_reach_the_report_unchanged(admin, sources):
    query = "start=2026-11-01&group_by=team,label.agent&consumer=ada&consumer=maps&label.agent=a%26b&format=json"
    answer = await admin.get("/usage?" + query)
    assert answer.status_code == 200
    assert sources.asked == [
        [
            ("start", "2026-11-01"),
            ("group_by", "team,label.agent"),
            ("consumer", "ada"),
            ("consumer", "maps"),
            ("label.agent", "a&b"),
        ]
    ]
    assert answer.json()["group_by"] == ["team", "label.agent"]


@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("", "*/*", "application/json"),
        ("", "text/csv", "text/csv; charset=utf-8"),
        ("format=csv", "application/json", "text/csv; charset=utf-8"),
        ("format=json", "text/csv", "application/json"),
    ],
)
async def test_a_report_is_json_or_csv(admin, query, accept, kind):
    answer = await admin.get("/usage?group_by=team&" + query, headers={"accept": accept})
    assert answer.headers["content-type"] == kind


async def test_csv_has_the_same_rows(admin):
    query = "/usage?group_by=team,label.agent&resolution=day&start=2026-11-01"
    report = (await admin.get(query)).json()
    heads, *found = rows((await admin.get(query + "&format=csv")).text)
    assert heads[:5] == ["start", "end", "team", "label.agent", "requests"]
    assert len(found) == len(report["data"]) > 10
    for cells, row in zip(found, report["data"], strict=True):
        named = dict(zip(heads, cells, strict=True))
        assert (named["team"], named["cost_usd"]) == (row["group"]["team"], row["cost_usd"])
        assert int(named["input_tokens"]) == row["input_tokens"]


@pytest.mark.parametrize("text", FORMULAS)
async def test_no_csv_cell_is_a_formula(connect, make, text):
    source = FakeSources([make(1, NOW - 60, labels={"agent": text})], NOW)
    async with connect(admin_app(source, None)) as http:
        answer = await http.get("/usage?group_by=label.agent&format=csv")
    [_, cells] = rows(answer.text)
    assert cells[2] == "'" + text


@given(st.text(), st.one_of(st.none(), st.text()))
def test_any_text_is_one_csv_cell(name, value):
    numbers = dict.fromkeys(("requests", "refused", "errors", "input_tokens", "output_tokens", "cached_tokens"), 0)
    numbers |= {"cache_write_tokens": 0, "reasoning_tokens": 0, "cost_usd": "0.1", "unpriced": 0}
    numbers |= {
        "cache_hits": 0,
        "saved_usd": "0",
        "shadow_hits": 0,
        "would_save_usd": "0",
        "prompt_saved_usd": "0",
        "prompt_extra_usd": "0",
    }
    row = {"start": "a", "end": "b", "group": {name: value}, **numbers}
    [heads, cells] = rows(as_csv({"group_by": [name], "data": [row]}))
    assert len(heads) == len(cells) == 19
    assert cells[2].removeprefix("'") == (value or "").removeprefix("'")
    assert not cells[2].startswith(("=", "+", "-", "@", "\t"))


@pytest.mark.parametrize(
    "query",
    ["format=xml", "format=", "format=csv&format=json", "resolution=week", "group_by=nothing", "x=1", "start=never"],
)
async def test_an_unreadable_query_is_a_400_with_the_reason(admin, query):
    answer = await admin.get("/usage?" + query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert answer.json()["error"]["message"]


async def test_a_query_is_bounded(admin):
    assert (await admin.get("/usage?" + "&".join(["team=a"] * 256))).status_code == 200
    assert (await admin.get("/usage?" + "&".join(["team=a"] * 257))).status_code == 400
    assert (await admin.get("/usage?team=" + "a" * 8300)).status_code == 414
    assert (await admin.get("/exchanges/" + "a" * 8300)).status_code == 414


@pytest.mark.parametrize("path", ["/exchanges/a%00b", "/usage?team=%00", "/usage?team=a%0Ab", "/budgets/%7f"])
async def test_control_characters_are_refused(admin, sources, path):
    assert (await admin.get(path)).status_code == 400
    assert sources.asked == []


@pytest.mark.parametrize("text", ["\ud800", "\u202eevil", "<script>", "é" * 10_000])
async def test_any_label_can_be_shown(connect, make, text):
    source = FakeSources([make(1, NOW - 60, labels={"agent": text})], NOW)
    async with connect(admin_app(source, None)) as http:
        for path in ("/usage?group_by=label.agent", "/exchanges", "/usage?group_by=label.agent&format=csv"):
            answer = await http.get(path)
            assert answer.status_code == 200
            answer.content.decode()
        assert (await http.get("/exchanges")).json()["data"][0]["labels"]["agent"] == text


# --- budgets and grants


async def test_budgets_are_listed(admin):
    assert [b["name"] for b in (await admin.get("/budgets")).json()["data"]] == ["team-month", "per-minute", "try-out"]
    assert [b["name"] for b in (await admin.get("/budgets/try-out")).json()["data"]] == ["try-out"]
    answer = await admin.get("/budgets/none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_grant_is_given_listed_and_revoked(admin, sources):
    given = await admin.post("/grants", json=GRANT)
    assert (given.status_code, given.json()["amount"]) == (201, "25.5")
    assert (await admin.get("/grants")).json()["data"] == [given.json()]
    path = "/grants/" + given.json()["id"]
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.delete(path)).status_code == 404
    assert sources.given == []


@pytest.mark.parametrize(
    "change",
    [
        *({"amount": amount} for amount in ("0", "0.0", "-1", "1e5", "NaN", "Infinity", "", "1" * 19, "0.1234567891")),
        *({"amount": amount} for amount in ("٣", "5\n", " 5", "01", 5, 5.5, None, ["5"])),
        *({"scope": scope} for scope in ("", "a b", "é", "a\n", "a" * 2049, None)),
        *({"budget": budget} for budget in ("", "../x", "a" * 64, 1)),
        *({"expires_in": seconds} for seconds in (0, -1, "60", 0.5, 10**9)),
        {"more": 1},
    ],
    ids=repr,
)
async def test_an_invalid_grant_is_refused(admin, sources, change):
    answer = await admin.post("/grants", json=GRANT | change)
    assert answer.status_code == 400, answer.text
    assert "regex" not in answer.text
    assert sources.given == []


async def test_a_question_is_answered_once(admin, sources):
    [question] = (await admin.get("/questions")).json()["data"]
    assert (question["state"], question["amount"], question["labels"]) == ("open", "2.50", {"run": "nightly"})
    path = "/questions/" + question["id"]
    for body in ({}, {"decision": "maybe"}, {"decision": "deny", "reason": "x" * 501}):
        assert (await admin.post(path, json=body)).status_code == 400
    decided = (await admin.post(path, json={"decision": "deny", "reason": "too dear"})).json()
    assert (decided["state"], decided["decided_by"], decided["reason"]) == ("denied", "local", "too dear")
    assert (await admin.post(path, json={"decision": "approve"})).status_code == 409
    assert (await admin.post("/questions/none", json={"decision": "approve"})).status_code == 404


async def test_a_count_is_reset(admin):
    answer = await admin.post("/budgets/team-month/reset", json={"scope": "team-month:team=search"})
    assert answer.json() == {"budget": "team-month", "scope": "team-month:team=search", "settled": "41.50"}
    assert (await admin.post("/budgets/team-month/reset", json={"scope": "other"})).status_code == 404


async def test_a_negative_grant_is_refused_with_an_example(admin):
    answer = await admin.post("/grants", json=GRANT | {"amount": "-5"})
    assert answer.json()["error"]["message"].startswith("amount: a number above 0 is expected")
    assert "25 or 0.50" in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"budget":"\\ud800"}'])
async def test_a_body_without_a_grant_is_refused(admin, body):
    answer = await admin.post("/grants", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


async def test_a_body_is_bounded(admin):
    padded = json.dumps(GRANT).encode().ljust(MAX_BODY)
    assert (await admin.post("/grants", content=padded, headers=JSON)).status_code == 201
    assert (await admin.post("/grants", content=padded + b" ", headers=JSON)).status_code == 413
    for length in ("999999999999", "-1", "x", ""):
        assert (
            await admin.post("/grants", content=b"{}", headers=JSON | {"content-length": length})
        ).status_code == 413

    async def pieces():
        yield b"{}"

    assert (await admin.post("/grants", content=pieces(), headers=JSON)).status_code == 411
    lies = JSON | {"content-length": "2"}
    assert (await admin.post("/grants", content=padded + b" ", headers=lies)).status_code == 413


# --- exchanges


async def test_the_latest_exchanges_come_first(admin, sources):
    data = (await admin.get("/exchanges?limit=2")).json()["data"]
    assert [entry["id"] for entry in data] == [entry["id"] for entry in sources.entries[:-3:-1]]
    assert len((await admin.get("/exchanges")).json()["data"]) == 90


async def test_exchanges_are_filtered(admin, sources):
    bad = [entry["id"] for entry in sources.entries[::-1] if entry["error"] and not entry["provider"]]
    assert bad
    assert [entry["id"] for entry in (await admin.get("/exchanges?outcome=refused")).json()["data"]] == bad
    for field, value in (("consumer", "maps"), ("team", "lab"), ("model", "small"), ("status", "200")):
        found = (await admin.get("/exchanges", params={field: value})).json()["data"]
        assert found
        assert {str(entry[field]) for entry in found} == {value}
    assert (await admin.get("/exchanges?consumer=nobody")).json()["data"] == []
    labelled = (await admin.get("/exchanges?label.agent=planner&team=platform")).json()["data"]
    assert {(entry["labels"]["agent"], entry["team"]) for entry in labelled} == {("planner", "platform")}
    assert (await admin.get("/exchanges?end=2026-01-01&findings=true")).json()["data"] == []


async def test_times_and_findings_are_reports(admin, sources):
    [*rows] = (await admin.get("/latency?group_by=team&consumer=ada&resolution=day")).json()["data"]
    assert (rows[0]["p50_ms"], rows[0]["first_p95_ms"]) == (800.0, None)
    assert (await admin.get("/findings?team=lab")).json()["data"][0]["finding"] == "no-keys: block"
    assert sources.asked[-1] == [("team", "lab")]
    for path in ("/latency?group_by=x", "/findings?start=never", "/latency?" + "&".join(["team=a"] * 257)):
        assert (await admin.get(path)).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "label.=1",
        "consumer=a&consumer=b",
        "findings=x",
        "start=x",
        "status=x",
        "status=2000",
        "status=",
        "id=1",
        "outcome=",
        "outcome=bad",
    ],
)
async def test_an_invalid_filter_is_refused(admin, query):
    assert (await admin.get("/exchanges?" + query)).status_code == 400


@pytest.mark.parametrize(
    "limit", ["0", "-1", "1001", "x", "", "1.5", "1e3", "9" * 7, "9" * 5000, "000001" + "9" * 5000, "²"]
)
async def test_a_limit_is_a_number_from_1_to_1000(admin, limit):
    assert (await admin.get("/exchanges", params={"limit": limit})).status_code == 400


@pytest.mark.parametrize("id", ["nobody", "id", "%2e%2e", "id-3'--"])
async def test_an_unknown_exchange_is_a_404(admin, id):
    answer = await admin.get(f"/exchanges/{id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# --- operators, keys, models


async def test_a_key_is_shown_once_and_revoked_and_every_change_is_in_the_trail(admin, desk):
    wanted = {"consumer": "ada", "name": "laptop", "expires_in": 3600}
    made = await admin.post("/keys", json=wanted)
    assert (made.status_code, made.json()["key"]) == (201, "sk-gw-secret")
    listed = await admin.get("/keys")
    assert [key["name"] for key in listed.json()["data"]] == ["0", "laptop"]
    assert "secret" not in listed.text
    assert (await admin.post("/keys", json=wanted | {"consumer": "nobody"})).status_code == 404
    changes = (
        {"consumer": "a\n"},
        {"name": ""},
        {"name": "a b"},
        {"expires_in": 59},
        {"more": 1},
    )
    for change in changes:
        assert (await admin.post("/keys", json=wanted | change)).status_code == 400
    assert (await admin.delete("/keys/k-0")).status_code == 204
    assert (await admin.delete("/keys/k-0")).status_code == 404
    await admin.post("/grants", json=GRANT)
    await admin.post("/ledger/forget", json={"consumer": "ada"})
    trail = [entry["event"] for entry in (await admin.get("/audit")).json()["data"]]
    assert [(act["user"], act["event"]["action"]) for act in trail] == [
        ({"name": "local", "roles": ["admin"]}, action)
        for action in ("forget-consumer", "grant", "revoke-key", "issue-key")
    ]
    details = [act["extproc"]["detail"] for act in trail]
    assert details[1]["amount"] == "25.5"
    assert details[2] == {"id": "k-0"}
    assert details[3]["consumer"] == "ada"
    assert "secret" not in str(desk.acts)
    assert "'ada'" not in str(trail[0])  # as a value: random ids may have the letters
    assert [act["number"] for act in (await admin.get("/audit?limit=1&before=2")).json()["data"]] == [1]
    assert (await admin.get("/audit?limit=0")).status_code == 400


async def test_models_have_targets_and_prices(admin, connect, sources):
    [first, *_] = (await admin.get("/models")).json()["data"]
    assert (first["name"], first["consumers"], first["targets"][0]["usd_per_million"]["output"]) == (
        "assistant",
        4,
        10.0,
    )
    assert (await admin.get("/models?consumer=ada")).json()["data"][0]["consumers"] == 1
    door = {"port": 10000, "tls": False, "model": "assistant"}
    link = "https://traces.example.com/search?q={id}&all"
    about = {
        "session": False,
        "door": door,
        "trace_link": link,
        "stale": "changes of stores bind at a restart",
        "certificate": "",
    }
    assert (await admin.get("/me")).json() == {"name": "local", "role": "admin", "trace_link": link, **about}
    async with connect(admin_app(sources, None)) as http:
        assert (await http.get("/keys")).status_code == 404


async def test_the_playground_sends_a_request_and_keeps_neither_key_nor_text(admin, desk):
    body = {"model": "assistant", "messages": [{"role": "user", "content": "secret words"}]}
    played = (await admin.post("/playground", json={"key": "sk-gw-good", "body": body})).json()
    assert (played["status"], played["headers"]) == (200, {"x-request-id": "r-1"})
    assert "secret words" in played["content"]
    assert (await admin.post("/playground", json={"key": "sk-gw-bad", "body": body})).json()["status"] == 401
    for wrong in ({"key": "", "body": {}}, {"key": "a b", "body": {}}, {"key": "k", "body": []}, {"key": "k"}):
        assert (await admin.post("/playground", json=wrong)).status_code == 400
    assert [act[3] for act in acts_of(desk.acts)] == [{"status": 200}, {"status": 401}]
    body["messages"][0]["content"] = "grün"
    answer = await admin.post("/playground", json={"key": "sk-gw-good", "body": body, "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert "grün" in "".join(event["piece"] for event in events[:-1])
    assert events[-1]["played"]["headers"] == {"x-request-id": "r-1"}


async def test_a_streamed_request_says_why_it_failed_and_ends_with_its_page():
    def fail(_sink):
        raise ReportError(503, "the answer ended early")

    assert [json.loads(event[6:]) async for event in pieces_of(fail)] == [
        {"error": {"message": "the answer ended early"}}
    ]
    left, ended = threading.Event(), threading.Event()

    def play(sink):
        sink(b"one")
        left.wait(20)
        try:
            sink(b"two")
        except ConnectionAbortedError:
            ended.set()

    events = pieces_of(play)
    assert json.loads((await anext(events))[6:]) == {"piece": "one"}
    await events.aclose()
    left.set()
    assert await asyncio.to_thread(ended.wait, 20)


# --- the ledger


async def test_an_export_is_in_the_trail(admin, desk):
    rows = (await admin.get("/ledger/export?consumer=ada&limit=7")).text.splitlines()
    await admin.get("/usage?group_by=consumer")
    assert (await admin.get("/ledger/export?consumer=ada&limit=0")).status_code == 400
    [act] = acts_of(desk.acts)
    assert act[2:] == ("export", {"consumer": "ada", "rows": len(rows)})
    assert len(rows) == 7


async def test_a_consumer_is_exported_in_pages_and_forgotten(admin, sources):
    wanted = [entry["id"] for entry in sources.exchanges([("consumer", "ada"), ("limit", "1000")])]
    found: list[str] = []
    while lines := (
        await admin.get("/ledger/export", params={"consumer": "ada", "limit": 7, "before": (found or [""])[-1]})
    ).text:
        found += [json.loads(line)["id"] for line in lines.splitlines()]
    assert found == wanted
    for body in (
        {},
        {"consumer": ""},
        {"consumer": "a\nb"},
        {"consumer": "a", "more": 1},
        {"consumer": "a", "delete": 1},
    ):
        assert (await admin.post("/ledger/forget", json=body)).status_code == 400
    answer = await admin.post("/ledger/forget", json={"consumer": "ada", "delete": True})
    assert (answer.status_code, answer.json()) == (200, {"rows": len(wanted), "answers": 1})
    assert (await admin.get("/ledger/export?consumer=ada")).content == b""
    for query in (
        "",
        "?consumer=",
        "?consumer=a&limit=0",
        "?consumer=a&limit=x",
        "?consumer=a&consumer=b",
        "?consumer=a&x=1",
    ):
        assert (await admin.get("/ledger/export" + query)).status_code == 400
    assert (await admin.post("/ledger/rebuild", json={})).status_code == 204
    assert (await admin.post("/ledger/rebuild", json=[])).status_code == 400
    assert sources.asked[-1] == "rebuild"


# --- other paths and methods


@pytest.mark.parametrize(
    "path", ["/metrics", "/config", "/usage/", "/console.html", "/usage//", "/..%2f", "/budgets/a/b"]
)
async def test_other_paths_are_a_404(admin, path):
    answer = await admin.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/usage", "/budgets", "/exchanges", "/exchanges/id-1", "/providers"])
async def test_reports_cannot_be_written(admin, path):
    for method in ("PUT", "PATCH", "OPTIONS"):
        answer = await admin.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (await admin.post(path, json={})).status_code == 405


async def test_a_failing_source_gives_its_reason_and_a_bug_gives_none(admin, sources):
    def fail(error):
        def raiser(*_):
            raise error

        return raiser

    sources.budgets = fail(ReportError(503, "the ledger does not answer"))
    answer = await admin.get("/budgets")
    assert (answer.status_code, answer.json()) == (
        503,
        {"error": {"message": "the ledger does not answer", "code": "unavailable"}},
    )
    sources.providers = fail(RuntimeError("sk-canary"))
    answer = await admin.get("/providers")
    assert answer.status_code == 500
    assert "canary" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    sources.grant = fail(ValueError("USD only"))
    assert (await admin.post("/grants", json=GRANT)).json()["error"]["message"] == "USD only"


async def test_a_body_that_is_slow_or_cut_off_is_refused(admin, sources, connect, monkeypatch):
    monkeypatch.setattr("extproc.operate.admin.handling._SLOWEST", 0.05)

    async def slow():
        yield b"{"
        await asyncio.sleep(5)

    answer = await admin.post("/grants", content=slow(), headers=JSON | {"content-length": "100"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "too_slow")

    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/grants", "query_string": b"", "headers": headers}
    await admin_app(sources, None)(scope, receive, send)
    assert sent[0]["status"] == 400
    assert sources.given == []

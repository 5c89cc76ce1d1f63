"""The contract of every ledger: rows in, reports and exchanges out, exactly; in memory, SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from extproc.money.ledger import Row, open_ledger
from extproc.money.ledger.query import ExchangeQuery, Query
from extproc.money.ledger.rows import COLUMNS, MAX_AMOUNT
from extproc.words.tries import FailedTry
from tests.ledger.conftest import NOW, row, write

HOSTILE = [
    "'; DROP TABLE exchanges; --",
    '"',
    "\\",
    "%s %(x)s :name ? {text}",
    "a.b",
    "$[0]",
    '$."a"',
    "a\0b",
    "\ud800",
    "😀é",
    "x" * 65_536,
    "=1+1",
    "a\r\nb,c",
    " ",
]

MONEY = ("cost", "saved", "prompt_saved", "prompt_extra")


def ask(ledger, text="", **parameters):
    given = [tuple(part.split("=", 1)) for part in text.split("&") if part] + list(parameters.items())
    return ledger.usage(Query.parse(given, datetime.fromtimestamp(NOW, UTC)))


def ids(ledger, **parameters):
    return [found["id"] for found in ledger.exchanges(ExchangeQuery.parse(list(parameters.items())))]


def test_a_row_is_returned_unchanged(ledger):
    given = Row(
        id="id-1",
        time=NOW + 0.25,
        request_id="request-1",
        consumer="ci-bot",
        team="platform",
        key="ci-bot/1",
        labels={"agent": "x", "cost center": "42"},
        operation="chat",
        model="fast",
        target="gpt-4o",
        provider="openai",
        provider_model="gpt-4o-2024-08-06",
        attempts=2,
        status=200,
        stream=True,
        complete=False,
        input_tokens=11,
        output_tokens=12,
        cached_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=5,
        usage_source="provider",
        cost=1_234_567_891,
        price_version="2026-11-01",
        duration_ms=1500,
        first_token_ms=200,
        guardrails=["pii: redacted"],
        charges={"team-month:team=platform": 1_234_567_891, "rpm:consumer=ci-bot": 1},
        levels={"team-month:team=platform": (5, 9_000_000_000, 2_000_000_000), "rpm:consumer=ci-bot": (0, 60, 1)},
        cache="hit",
        saved=25_000_000,
        prompt_saved=9,
        prompt_extra=3,
        tries=[FailedTry("gpt-4o", "openai", 503, 1200, "connect")],
    )
    write(ledger, given)
    fields = {name: getattr(given, name) for name in COLUMNS if name not in MONEY}
    wanted = fields | {"time": "2026-11-18T11:06:40.250000Z", "cost_usd": "1.234567891", "saved_usd": "0.025"}
    wanted |= {"prompt_saved_usd": "0.000000009", "prompt_extra_usd": "0.000000003"}
    wanted["tries"] = [{"target": "gpt-4o", "provider": "openai", "status": 503, "ms": 1200, "outcome": "connect"}]
    wanted["levels"] = {
        "team-month:team=platform": {"before": 5, "limit": 9_000_000_000, "asked": 2_000_000_000},
        "rpm:consumer=ci-bot": {"before": 0, "limit": 60, "asked": 1},
    }
    assert ledger.exchange("id-1") == ledger.exchange("request-1") == wanted
    assert ledger.exchange("id-2") is None
    assert list(ledger.exchanges(ExchangeQuery())) == [wanted]


def test_unknown_values_stay_unknown(ledger):
    write(ledger, Row(id="id-1", time=NOW))
    found = ledger.exchange("id-1")
    assert (found["cost_usd"], found["first_token_ms"], found["charges"]) == (None, None, None)
    assert (found["labels"], found["guardrails"], found["tries"]) == ({}, [], [])


def test_a_report_has_the_groups_and_sums_asked_for(ledger):
    write(
        ledger,
        row(
            "a",
            team="x",
            model="m",
            cache="hit",
            saved=7,
            input_tokens=5,
            output_tokens=7,
            cached_tokens=1,
            prompt_saved=40,
            prompt_extra=2,
            cost=2_000_000_000,
        ),
        row("b", team="x", status=429, error="budget_exceeded", outcome="refused", attempts=0),
        row("c", team="x", status=429, error="rate_limited", outcome="error", attempts=2, cost=1),
        row(
            "d",
            team="y",
            cache="shadow",
            saved=3,
            status=0,
            outcome="error",
            cost=None,
            cache_write_tokens=2,
            reasoning_tokens=3,
        ),
        row("e", team="y", status=400, outcome="error", attempts=0, cost=None),
        row("f", team="z", time=NOW - 40 * 86_400),
    )
    assert ask(ledger, "group_by=team&resolution=day").json() == {
        "object": "usage",
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-12-01T00:00:00Z",
        "resolution": "day",
        "group_by": ["team"],
        "data": [
            {
                "start": "2026-11-18T00:00:00Z",
                "end": "2026-11-19T00:00:00Z",
                "group": {"team": "x"},
                "requests": 3,
                "refused": 1,
                "errors": 1,
                "input_tokens": 5,
                "output_tokens": 7,
                "cached_tokens": 1,
                "cache_write_tokens": 0,
                "reasoning_tokens": 0,
                "cost_usd": "2.000000001",
                "unpriced": 0,
                "cache_hits": 1,
                "saved_usd": "0.000000007",
                "shadow_hits": 0,
                "would_save_usd": "0",
                "prompt_saved_usd": "0.00000004",
                "prompt_extra_usd": "0.000000002",
            },
            {
                "start": "2026-11-18T00:00:00Z",
                "end": "2026-11-19T00:00:00Z",
                "group": {"team": "y"},
                "requests": 2,
                "refused": 0,
                "errors": 2,
                "input_tokens": 0,
                "output_tokens": 0,
                "cached_tokens": 0,
                "cache_write_tokens": 2,
                "reasoning_tokens": 3,
                "cost_usd": "0",
                "unpriced": 2,
                "cache_hits": 0,
                "saved_usd": "0",
                "shadow_hits": 1,
                "would_save_usd": "0.000000003",
                "prompt_saved_usd": "0",
                "prompt_extra_usd": "0",
            },
        ],
        "total": {
            "requests": 5,
            "refused": 1,
            "errors": 3,
            "input_tokens": 5,
            "output_tokens": 7,
            "cached_tokens": 1,
            "cache_write_tokens": 2,
            "reasoning_tokens": 3,
            "cost_usd": "2.000000001",
            "unpriced": 2,
            "cache_hits": 1,
            "saved_usd": "0.000000007",
            "shadow_hits": 1,
            "would_save_usd": "0.000000003",
            "prompt_saved_usd": "0.00000004",
            "prompt_extra_usd": "0.000000002",
        },
        "truncated": False,
        "capacity": {},
    }


def test_an_empty_period_has_an_empty_report(ledger):
    for text in ("", "resolution=hour", "group_by=team", "group_by=label.x&resolution=month"):
        assert (ask(ledger, text).buckets, ask(ledger, text).total.requests) == ([], 0)
    assert ledger.charges_by_scope("x") == {}


def test_the_start_is_inclusive_and_the_end_exclusive(ledger):
    first, last = datetime(2026, 11, 1, tzinfo=UTC).timestamp(), datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    write(ledger, *[row(f"{time}", time=time) for time in (first - 0.0001, first, last - 0.0001, last)])
    buckets = ask(ledger, "resolution=hour").buckets
    assert [bucket.start.isoformat()[:13] for bucket in buckets] == ["2026-11-01T00", "2026-11-30T23"]
    assert ask(ledger, "start=2026-10-31T23:59:59.9999Z&end=2026-12-01T00:00:00.000001Z").total.requests == 4


def test_months_follow_the_calendar_in_any_year(ledger):
    moments = ["1970-01-01T00:00:00", "2024-02-29T23:59:59", "2024-03-01T00:00:00", "2100-12-31T23:59:59"]
    write(ledger, *[row(moment, time=datetime.fromisoformat(f"{moment}+00:00").timestamp()) for moment in moments])
    months = ask(ledger, "start=1970-01-01&end=9999-01-01&resolution=month").json()["data"]
    assert [(month["start"][:10], month["end"][:10]) for month in months] == [
        ("1970-01-01", "1970-02-01"),
        ("2024-02-01", "2024-03-01"),
        ("2024-03-01", "2024-04-01"),
        ("2100-12-01", "2101-01-01"),
    ]
    write(ledger, row("late", time=float("inf")))
    for resolution, found in {"hour": 4, "day": 4, "month": 4, "total": 1}.items():
        text = f"start=1970-01-01&end=9999-01-01&group_by=team&resolution={resolution}"
        assert len(ask(ledger, text).buckets) == found


def test_the_most_expensive_groups_come_first_in_each_period(ledger):
    spent = [("a", 0, 1), ("b", 0, 3), ("c", 0, None), ("d", 0, 3), ("e", 86_400, 9), ("f", 0, MAX_AMOUNT)]
    write(ledger, *[row(team, team=team, time=NOW + later, cost=cost) for team, later, cost in spent])
    buckets = ask(ledger, "group_by=team&resolution=day").buckets
    assert [bucket.group[0] for bucket in buckets] == ["f", "b", "d", "a", "c", "e"]


def test_sums_beyond_64_bits_are_exact(ledger):
    write(
        ledger, *[row(str(number), cost=MAX_AMOUNT - number, charges={"b": MAX_AMOUNT - number}) for number in range(9)]
    )
    assert ask(ledger).total.cost == sum(MAX_AMOUNT - number for number in range(9))
    assert ledger.charges_by_scope("b") == {"b": sum(MAX_AMOUNT - number for number in range(9))}
    write(ledger, *[row(f"t{number}", input_tokens=1 << 40) for number in range(9)])
    assert ask(ledger).total.input_tokens == 9 * ((1 << 32) - 1)


def test_filters_select_rows(ledger):
    write(
        ledger,
        row("a", team="x", labels={"agent": "1"}),
        row("b", team="x", stream=True),
        row("c", team="y", status=503, outcome="error", labels={"agent": ""}),
    )
    for text, count in {
        "team=x": 2,
        "team=x&team=y": 3,
        "team=": 0,
        "label.agent=1": 1,
        "label.agent=": 2,
        "label.agent=&label.agent=1": 3,
        "label.nobody=": 3,
        "stream=true": 1,
        "stream=false&team=x": 1,
        "status=503": 1,
        "status=200&status=503": 3,
    }.items():
        assert ask(ledger, text).total.requests == count, text
    everybody = Query.parse([("team", "y")], datetime.fromtimestamp(NOW, UTC))
    assert ledger.usage(everybody.only("team", "x")).total.requests == 0


@pytest.mark.parametrize("hostile", HOSTILE, ids=[repr(text[:16]) for text in HOSTILE])
def test_hostile_names_and_values_are_only_text(ledger, hostile):
    write(
        ledger,
        row("a", consumer=hostile, model=hostile, labels={hostile: "1", "agent": hostile}, charges={"b": 2}),
        row("b", labels={"agent": "x", "a": "2", "b": "3"}),
        row(hostile, charges={hostile: 1}, guardrails=[hostile]),
    )
    name = f"label.{hostile}"
    by_name = ask(ledger, group_by=name) if "," not in hostile else ask(ledger, **{name: "1"})
    assert sum(bucket.numbers.requests for bucket in by_name.buckets if bucket.group != ("",)) == 1
    assert ask(ledger, **{name: "1"}).total.requests == 1
    assert ask(ledger, **{name: ""}).total.requests == 2
    assert ask(ledger, **{"label.agent": hostile}).total.requests == 1
    assert ask(ledger, consumer=hostile).total.requests == 1
    assert ledger.exchange(hostile)["guardrails"] == ledger.exchange(hostile)["guardrails"][:1]
    assert ids(ledger, consumer=hostile) == ["a"]
    assert ids(ledger, before=hostile) in ([], ["a"], ["b"], ["b", "a"], ["a", "b"])
    assert ledger.charges_by_scope(hostile) == ledger.charges_by_scope(hostile, NOW)
    assert ledger.charges_by_scope("b") == {"b": 2}
    assert ask(ledger).total.requests == 3


def test_the_number_of_buckets_is_limited_and_the_answer_says_so(ledger, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.usage.MAX_BUCKETS", 10)
    write(
        ledger, *[row(f"{number}", team=f"{number:02}", time=NOW + number * 3600, cost=number) for number in range(11)]
    )
    for text, first in (("group_by=team&resolution=hour", ["00", "01"]), ("group_by=team", ["10", "09"])):
        report = ask(ledger, text)
        assert (report.truncated, len(report.buckets), report.total.requests, report.total.cost) == (True, 10, 11, 55)
        assert [bucket.group[0] for bucket in report.buckets[:2]] == first
    assert not ask(ledger, "group_by=team&team=01&team=02").truncated
    ledger_of_ten = ask(ledger, "group_by=team&end=2026-11-18T21:00:00Z&resolution=hour")
    assert (ledger_of_ten.truncated, len(ledger_of_ten.buckets)) == (False, 10)


def test_the_exchanges_own_row_replaces_the_row_of_its_expired_lease(ledger):
    expired = row("id-1", usage_source="expired", consumer="x", cost=9, charges={"b": 9, "c": 1})
    write(ledger, expired)
    assert ledger.exchange("id-1")["usage_source"] == "expired"
    write(ledger, row("id-1", consumer="me", cost=4, charges=None))
    found = ledger.exchange("id-1")
    assert (found["consumer"], found["cost_usd"], found["charges"]) == ("me", "0.000000004", {"b": 9, "c": 1})
    write(ledger, expired)
    write(ledger, row("id-1", consumer="another", cost=5, charges={"b": 5}))
    assert ledger.exchange("id-1") == found
    assert ask(ledger).total.requests == 1


def test_a_charge_that_was_corrected_replaces_the_row_of_its_expired_lease(ledger):
    for charge in (9, 4, 4):
        write(ledger, row("id-1", usage_source="expired", charges={"b": charge}))
    assert ledger.charges_by_scope("b") == {"b": 4}
    assert ask(ledger).total.requests == 1


def test_a_stated_charge_replaces_the_cost(ledger):
    write(ledger, ended(9), row("id-1", charges={"b": 5}))
    assert ledger.charges_by_scope("b") == {"b": 5}


def ended(charge, *, settled=False):
    """The row of a lease's end, with the charge of a settle or of the reservation."""
    return row("id-1", usage_source="expired", charges={"b": charge}, complete=settled)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("rows", "charge"),
    [
        ([row("id-1"), ended(9)], 9),  # such as a refusal
        ([ended(9), row("id-1")], 9),
        ([row("id-1"), ended(9), ended(9)], 9),
        ([row("id-1"), ended(9), ended(4, settled=True)], 4),
        ([row("id-1", charges={"b": 5}), ended(9)], 5),
        ([row("id-1", charges={"b": 5}), ended(5, settled=True)], 5),
        ([ended(9), ended(4, settled=True), ended(9)], 4),
        ([ended(9), ended(4, settled=True), row("id-1", charges={"b": 4})], 4),
    ],
)
def test_an_exchange_has_the_charge_that_the_counters_have(ledger, rows, charge, together):
    """Whoever writes its row first, and whether the lease ended meanwhile."""
    for batch in [rows] if together else [[each] for each in rows]:
        write(ledger, *batch)
    assert ledger.charges_by_scope("b") == {"b": charge}
    assert len(ids(ledger)) == 1


def test_a_batch_may_hold_the_same_row_twice(ledger):
    write(ledger, row("id-1", charges={"b": 5}), row("id-1", charges={"b": 5}), ended(9))
    assert ledger.charges_by_scope("b") == {"b": 5}


def test_charges_are_summed_by_scope(ledger):
    write(
        ledger,
        row("a", charges={"b": 1, "b:team=x": 2, "bb:team=x": 4, "b_:x": 8, "B:x": 16}),
        row("b", charges={"b:team=x": 32, "b:team=y": 64}),
        row("c", time=NOW - 10, charges={"b:team=x": 128}),
        row("d", charges=None),
    )
    assert ledger.charges_by_scope("b", NOW) == {"b": 1, "b:team=x": 34, "b:team=y": 64}
    assert ledger.charges_by_scope("b")["b:team=x"] == 162
    assert ledger.charges_by_scope("b:team=x") == {"b:team=x": 162}


def test_the_latest_exchanges_are_paged(ledger):
    write(ledger, *[row(f"{number:02}", time=NOW + number // 2, consumer=f"{number % 3}") for number in range(10)])
    assert ids(ledger, limit="3") == ["09", "08", "07"]
    assert ids(ledger, limit="3", before="07") == ["06", "05", "04"]
    assert ids(ledger, limit="3", before="00") == ids(ledger, before="unknown") == []
    assert ids(ledger, consumer="1") == ["07", "04", "01"]
    assert ids(ledger, start="2026-11-18T11:06:41Z", end="2026-11-18T11:06:42Z") == ["03", "02"]


def test_exchanges_are_filtered_by_outcome(ledger):
    write(ledger, row("ok"), row("no", outcome="refused"), row("bad", outcome="error"), row("gone", outcome="error"))
    found = {outcome: sorted(ids(ledger, outcome=outcome)) for outcome in ("ok", "refused", "error")}
    assert found == {"ok": ["ok"], "refused": ["no"], "error": ["bad", "gone"]}


def test_findings_of_guardrails_are_counted(ledger):
    write(
        ledger,
        row("a", consumer="x", guardrails=["pii: redacted", "no-keys: refused"]),
        row("b", guardrails=["pii: redacted"], time=NOW + 1),
        row("c"),
        row("d", guardrails=["pii: redacted"], time=NOW - 90 * 86_400),
    )
    month = Query.parse([], datetime.fromtimestamp(NOW, UTC))
    pii = {"finding": "pii: redacted", "exchanges": 2, "latest": "2026-11-18T11:06:41Z"}
    assert [dict(found) for found in ledger.findings(month)] == [
        pii,
        {"finding": "no-keys: refused", "exchanges": 1, "latest": "2026-11-18T11:06:40Z"},
    ]
    assert [found["exchanges"] for found in ledger.findings(month.only("consumer", "x"))] == [1, 1]
    assert ids(ledger, findings="true") == ["b", "a", "d"]
    assert ids(ledger, findings="false", consumer="") == ["b", "c", "d"]


def timed(ledger, **more):
    given = [("group_by", "model"), *more.items()]
    report = ledger.latency(Query.parse(given, datetime.fromtimestamp(NOW, UTC)))
    return {each["group"]["model"]: each for each in report["data"]}


def test_times_of_a_few_answers_are_exact_percentiles(ledger):
    """Answers of 2 to 4 ms have a median of 3 ms, whatever the parts of histograms are."""
    rows = [row(f"a{number}", duration_ms=2 + number % 3, first_token_ms=1, model="m") for number in range(99)]
    rows += [row(f"b{number}", duration_ms=7 * number, team="b", model="n") for number in range(21)]
    write(ledger, *rows, row("refused", outcome="refused", duration_ms=1, model="none"))
    found = timed(ledger)
    names = ("answers", "p50_ms", "p95_ms", "first_p50_ms", "first_p95_ms")
    assert [found["m"][name] for name in names] == [99, 3.0, 4.0, 1.0, 1.0]
    assert [found["n"][name] for name in names] == [21, 70.0, 133.0, None, None]
    assert [found["none"][name] for name in names] == [0, None, None, None, None]
    assert timed(ledger, team="b").keys() == {"n"}
    for resolution in ("hour", "day", "month"):
        each = timed(ledger, resolution=resolution)["m"]
        assert (each["answers"], each["p50_ms"]) == (99, 3.0)


@pytest.mark.parametrize("rolled", [False, True])
def test_times_of_many_answers_are_read_from_histograms_with_fine_parts(ledger, monkeypatch, rolled):
    monkeypatch.setattr("extproc.money.ledger.latency.EXACT", 5)
    day = 86400 * 2
    fast = [row(f"f{number}", time=NOW - day, duration_ms=2 + number % 3, model="m") for number in range(90)]
    slow = [row(f"s{number}", time=NOW - day, duration_ms=100_000, model="m") for number in range(10)]
    middle = [row(f"n{number}", time=NOW - day, duration_ms=100, first_token_ms=10, model="n") for number in range(90)]
    write(ledger, *fast, *slow, *middle, row("refused", time=NOW - day, outcome="refused", duration_ms=1, model="none"))
    if rolled and ledger.roll_up(NOW) == 0:
        pytest.skip("a ledger in memory has none")
    found = timed(ledger)
    assert found["m"]["answers"] == 100
    assert 2 <= found["m"]["p50_ms"] <= 4
    assert found["m"]["p95_ms"] == 64_000.0  # beyond the last bound
    assert 64 <= found["n"]["p50_ms"] <= 125
    assert 8 <= found["n"]["first_p95_ms"] <= 16
    assert (found["none"]["answers"], found["none"]["p50_ms"]) == (0, None)


def test_old_rows_are_deleted_in_batches(ledger, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.ledger.PRUNE_BATCH", 4)
    monkeypatch.setattr("extproc.money.ledger.ledger.PRUNE_PAUSE", 0)
    write(ledger, *[row(str(number), time=NOW - number) for number in range(20)])
    assert ledger.prune(NOW - 9.5) == 10
    assert (ledger.prune(NOW - 9.5), ask(ledger).total.requests) == (0, 10)


def test_reports_are_read_while_rows_are_written(ledger):
    ledger.writer.start()
    done = threading.Event()
    counts = []

    def read():
        while not done.is_set():
            counts.append(ask(ledger, "group_by=team&resolution=day").total.requests)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(3000):
        ledger.writer.add(row(str(number)))
    assert ledger.writer.stop() == 0
    done.set()
    reader.join()
    assert counts == sorted(counts)
    assert ask(ledger).total.requests == 3000


def test_processes_can_share_a_ledger(shared_url):
    ledgers = [open_ledger(shared_url) for _ in range(3)]
    for number, ledger in enumerate(ledgers):
        ledger.writer.start()
        for each in range(500):
            ledger.writer.add(row(f"{number}-{each}"))
            ledger.writer.add(row(f"shared-{each}"))
    assert [ledger.writer.stop() for ledger in ledgers] == [0, 0, 0]
    assert ask(ledgers[0]).total.requests == 2000
    for ledger in ledgers:
        ledger.close()

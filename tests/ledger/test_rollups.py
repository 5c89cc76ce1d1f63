"""Sums of hours and days: reports with them equal reports over the rows, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import sqlite3
import threading
from datetime import UTC, datetime

import pytest

from extproc.money.ledger import LedgerError, open_ledger, rollups
from extproc.money.ledger.cover import cover
from extproc.money.ledger.measures import DAY
from extproc.money.ledger.query import Query
from tests.ledger.conftest import row, write

MIDNIGHT = datetime(2026, 11, 18, tzinfo=UTC).timestamp()
END = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
REPORTS = [
    "",
    "group_by=team&resolution=day",
    "group_by=consumer,model&resolution=hour",
    "group_by=team&resolution=hour",
    "start=2026-11-18T10:00:00Z&end=2026-11-19T10:00:00Z&group_by=team&resolution=minute",
    "group_by=label.agent",
    "group_by=label.agent,team&resolution=day",
    "label.agent=a&group_by=model",
    "label.agent=&group_by=team",
    "group_by=label.rare,consumer&resolution=month",
    "group_by=label.agent,label.run",
    "group_by=status,error,outcome,stream,usage_source,provider,cache,key",
    "status=429&group_by=consumer",
    "start=2026-11-18T03:30:00Z&end=2026-11-20T05:00:00Z&group_by=team",
    "start=2026-11-18T23:59:59Z&group_by=team&resolution=day",
]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.rollups.PAUSE", 0)


@pytest.fixture
def kept(shared_url):
    """A ledger that keeps sums."""
    ledger = open_ledger(shared_url)
    yield ledger
    ledger.writer.stop()
    ledger.close()


@pytest.fixture
def file(tmp_path):
    """The same in SQLite, for cases that are alike in both."""
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    yield ledger
    ledger.writer.stop()
    ledger.close()


def some(count=300, seed=1):
    chance = random.Random(seed)
    for number in range(count):
        outcome = chance.choice(["ok", "ok", "refused", "error"])
        labels = {"agent": chance.choice("ab"), "run": str(number)} if chance.random() < 0.8 else {}
        yield row(
            f"{number}",
            time=MIDNIGHT + chance.choice([0, 0, 2]) * 86_400 + chance.randrange(6 * 3600),  # nobody works at night
            consumer=chance.choice("xyz"),
            team=chance.choice(["red", ""]),
            model=chance.choice("mn"),
            outcome=outcome,
            status={"ok": 200, "refused": 429, "error": 503}[outcome],
            stream=chance.random() < 0.5,
            labels=labels | ({"rare": "1"} if number == 7 else {}),
            cost=chance.choice([None, 0, 5, 1 << 62]),
            input_tokens=chance.randrange(1000),
            cache=chance.choice(["", "hit"]),
            duration_ms=chance.randrange(90_000),
            first_token_ms=chance.choice([None, 100, 900]),
            saved=3,
        )


def ask(ledger, text, kind="usage"):
    given = [tuple(part.split("=", 1)) for part in text.split("&") if part]
    query = Query.parse(given, datetime.fromtimestamp(MIDNIGHT, UTC))
    if kind == "usage":
        return ledger.usage(query).json()
    report = ledger.latency(query)
    return report | {"data": sorted(report["data"], key=str)}


def reports(ledger):
    found = {text: ask(ledger, text) for text in REPORTS}
    return found | {f"latency {text}": ask(ledger, text, "latency") for text in REPORTS[1:6]}


def sql(ledger, statement, *given):
    with ledger._database.change() as cursor:
        return cursor.rows(statement, given) if statement.startswith("SELECT") else cursor.execute(statement, given)


def of_rows(ledger):
    """The reports without any sums."""
    sql(ledger, "DELETE FROM rollup_units")
    return reports(ledger)


def reads(ledger, *names, resolution="total"):
    """The tables that a report over these fields reads, of the whole time."""
    with ledger._database.read() as cursor:
        whole = (int(MIDNIGHT) * 10**6, int(END) * 10**6)
        return {source.table for source in cover(cursor, set(names), whole, resolution=resolution)}


def test_reports_of_sums_equal_reports_of_rows(kept):
    write(kept, *some())
    wanted = reports(kept)
    assert kept.roll_up(END) == 50  # 24 hours and the day itself, twice
    assert reads(kept, "consumer") == reads(kept, "label.agent") == reads(kept, "label.agent", "team") == {"rollups"}
    assert reads(kept, "label.rare", "team") == reads(kept, "team", resolution="hour") == {"rollups"}
    assert reads(kept, "label.agent", "label.run") == reads(kept, "label.agent", resolution="hour") == {"exchanges"}
    assert reports(kept) == wanted
    assert kept.roll_up(END) == 0  # nothing is made twice
    assert of_rows(kept) == wanted


def test_hours_that_have_not_passed_are_read_from_rows(kept):
    write(kept, *some())
    wanted = reports(kept)
    noon = MIDNIGHT + 12.5 * 3600
    kept.roll_up(noon)
    assert sql(kept, "SELECT cube, count(*) FROM rollup_units GROUP BY cube") == [("hour", 12)]
    kept.roll_up(MIDNIGHT + 13 * 3600 + rollups.GRACE - 1)
    assert sql(kept, "SELECT count(*) FROM rollup_units WHERE cube = 'hour'") == [(12,)]
    assert reports(kept) == wanted


def test_late_rows_and_corrections_are_in_the_next_report(kept):
    write(kept, *some(), row("lease", time=MIDNIGHT + 9, usage_source="expired", cost=5))
    kept.roll_up(END)
    write(kept, row("late", time=MIDNIGHT + 3600, team="red", labels={"agent": "a"}, cost=7))
    write(kept, row("lease", time=MIDNIGHT + 86_400, team="red", cost=6))  # the exchange's own row, of another day
    assert reads(kept, "team") == {"rollups", "exchanges"}
    before = reports(kept)
    assert before["group_by=team&resolution=day"]["total"]["requests"] == 302
    assert kept.roll_up(END) > 0
    assert reads(kept, "team") == {"rollups"}
    assert reports(kept) == before == of_rows(kept)


def test_deleted_rows_are_in_no_report(kept):
    write(kept, *some())
    kept.roll_up(END)
    kept.prune(MIDNIGHT + 5 * 3600 + 1)
    assert ask(kept, "")["total"]["requests"] < 300
    found = reports(kept)
    kept.roll_up(END)
    assert reports(kept) == found == of_rows(kept)
    kept.prune(END)
    assert ask(kept, "")["total"]["requests"] == 0
    assert sql(kept, "SELECT count(*) FROM rollups") == [(0,)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_row_that_arrives_while_its_hour_is_added_up_is_not_lost(kept, monkeypatch, when):
    write(kept, *some(40))
    inner, late = rollups._sum, iter(["one", "two", "three"])

    def arrive():
        for name in itertools.islice(late, 1):
            write(kept, row(name, time=MIDNIGHT + 1800, labels={"agent": "a"}))

    def interrupted(*given):
        if when == "before":
            arrive()
        found = inner(*given)
        if when == "after":
            arrive()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(rollups, "_sum", interrupted)
        for _ in range(3):
            kept.roll_up(END)
    assert list(late) == []
    for text in ("", "group_by=team&resolution=hour", "group_by=label.agent", "group_by=model&resolution=day"):
        assert ask(kept, text)["total"]["requests"] == 43
    found = reports(kept)
    kept.roll_up(END)
    assert reports(kept) == found == of_rows(kept)


def test_reports_are_exact_while_writers_and_two_processes_add_up(kept, shared_url):
    write(kept, *some(100))
    other, errors = open_ledger(shared_url), []

    def again(ledger):
        try:
            for _ in range(3):
                ledger.roll_up(END)
        except LedgerError as error:
            errors.append(error)

    threads = [threading.Thread(target=again, args=(each,)) for each in (kept, other)]
    for thread in threads:
        thread.start()
    for number in range(30):
        write(kept, row(f"w{number}", time=MIDNIGHT + number * 5000, labels={"agent": "w"}))
        assert ask(kept, "group_by=label.agent")["total"]["requests"] == 101 + number
    for thread in threads:
        thread.join()
    assert errors == []
    kept.roll_up(END)
    found = reports(kept)
    assert found == of_rows(kept)
    other.close()


def test_what_has_too_many_combinations_is_left_to_the_rows(file, monkeypatch):
    write(file, *some())
    wanted = reports(file)
    monkeypatch.setattr("extproc.money.ledger.rollups.MAX_LABEL_ROWS", 50)
    file.roll_up(END)
    states = set(sql(file, "SELECT cube, state FROM rollup_units"))
    assert {("hour", ""), ("day", ""), ("names", "left")} == states
    assert reads(file, "consumer") == {"rollups"}
    assert reads(file, "label.agent") == {"exchanges"}
    assert reports(file) == wanted
    assert file.roll_up(END) == 0  # and not tried again


def test_an_hour_and_a_day_with_too_many_combinations_are_left_to_the_rows(file, monkeypatch):
    write(file, *some())
    wanted = reports(file)
    for cube in (rollups.HOURS, rollups.DAYS):
        small = dataclasses.replace(cube, most=20)
        monkeypatch.setattr(rollups, cube.name.upper() + "S", small)
        monkeypatch.setitem(rollups._UNIT, small, rollups._UNIT[cube])
    file.roll_up(END)
    states = set(sql(file, "SELECT cube, state FROM rollup_units"))
    assert {("hour", "left"), ("hour", ""), ("day", "left"), ("names", "left")} == states
    assert reads(file, "consumer") == {"exchanges"}
    assert reads(file, "team", resolution="hour") == {"exchanges", "rollups"}
    assert reports(file) == wanted
    assert file.roll_up(END) == 0  # and not tried again


def test_sums_can_be_made_anew_and_an_abandoned_claim_ends(file):
    write(file, *some(50))
    wanted = reports(file)
    file.roll_up(END)
    sql(file, "UPDATE rollups SET requests = requests + 1")
    assert reports(file) != wanted
    file.rebuild()
    assert reads(file, "team", resolution="hour") == {"rollups"}  # a report of a million rows stays fast meanwhile
    file.roll_up(END)
    assert reports(file) == wanted
    sql(file, "UPDATE rollup_units SET state = 'dead', claimed = 1 WHERE cube = 'hour'")
    file.roll_up(END)
    assert reads(file, "team", resolution="hour") == {"rollups"}
    assert reports(file) == wanted


def test_a_report_with_too_many_gaps_reads_the_rows(file, monkeypatch):
    write(file, *some())
    file.roll_up(END)
    monkeypatch.setattr("extproc.money.ledger.cover.MAX_RANGES", 1)
    sql(file, f"UPDATE rollup_units SET state = 'stale' WHERE start = {int(MIDNIGHT) * 10**6 + DAY} OR cube = 'hour'")
    assert reads(file, "team") == {"exchanges"}
    found = reports(file)
    assert found == of_rows(file)


def test_a_stopped_ledger_adds_up_no_more(tmp_path):
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    write(ledger, *some(50))
    ledger.writer.stop()
    with contextlib.suppress(LedgerError):
        assert ledger.roll_up(END) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        assert db.execute("SELECT count(*) FROM rollups").fetchone() == (0,)
    ledger.close()

"""Queries, read from the parameters of a URL."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.ledger.query import FIELDS, ExchangeQuery, Query

NOW = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)


def parse(text=""):
    return Query.parse([tuple(part.split("=", 1)) for part in text.split("&") if part], NOW)


def test_the_default_is_the_current_month():
    assert parse() == Query(datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def test_one_end_of_the_time_is_enough():
    assert parse("start=2026-02-05").end == datetime(2027, 1, 1, tzinfo=UTC)
    assert parse("end=2026-03-01").start == datetime(2026, 2, 1, tzinfo=UTC)
    assert parse("end=1970-01-02").start == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T09:30:00Z", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01t09:30:00.25z", datetime(2026, 11, 1, 9, 30, 0, 250_000, tzinfo=UTC)),
        ("2026-11-01T01:30:00+05:30", datetime(2026, 10, 31, 20, tzinfo=UTC)),
    ],
)
def test_times_are_read(text, meant):
    assert Query.parse([("start", text)], NOW).start == meant


@pytest.mark.parametrize(
    "text",
    [
        *("yesterday", "", "2026-11", "20261101", "2026-W45-1", "2026-02-30", "2026-11-01T09:30:00", "1e9", "NaN"),
        *("2026-11-01T24:00:01Z", "2026-11-01T09:30:60Z", "2026-11-01T09:30:00+99:00", "0001-01-01T00:00:00+14:00"),
        *("1969-12-31", "9999-12-31T23:59:59-14:00", "٢٠٢٦-١١-٠١", "2026-11-01\n", "2026-11-01T00:00:00 00:00"),
    ],
)
def test_invalid_times_are_refused(text):
    with pytest.raises(ValueError, match=r"start (is|must)"):
        Query.parse([("start", text)], NOW)


def test_groups_and_filters_are_read():
    query = parse("group_by=team,label.agent&group_by=model&team=a&team=b&label.run=&status=429")
    assert query.group_by == ("team", "label.agent", "model")
    assert query.filters == {"team": ["a", "b"], "label.run": [""], "status": ["429"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("group_by=cost", "group_by must be one of"),
        ("group_by=label.", "group_by must be one of"),
        ("group_by=team,team", "once"),
        ("group_by=" + ",".join(f"label.{number}" for number in range(9)), "at most 8"),
        ("resolution=week", "resolution must be one of"),
        ("resolution=", "resolution must be one of"),
        ("resolution=minute&start=2026-01-01&end=2026-01-03", "at most a day"),
        ("format=xml", "not 'format'"),
        ("start=2026-01-01&start=2026-01-02", "twice"),
        ("start=2026-01-02&end=2026-01-02", "before"),
        ("id;DROP TABLE exchanges=1", "a filter must be one of"),
        ("label.=1", "a filter must be one of"),
        ("status=4xx", "status"),
        ("status=٤٢٩", "status"),
        ("status=99999999999999999999", "status"),
        ("stream=1", "stream"),
        ("&".join(["team=x"] * 201), "at most 200"),
    ],
)
def test_invalid_queries_are_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse(text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "end", "group_by", "label.x", "team", "status"]) | st.text(), st.text())
    )
)
def test_any_parameters_give_a_query_or_a_short_reason(parameters):
    for parse_ in (lambda: Query.parse(parameters, NOW), lambda: ExchangeQuery.parse(parameters)):
        assert len(reason(parse_)) < 500


def reason(parse_):
    try:
        parse_()
    except ValueError as error:
        return str(error)
    return ""


def test_a_consumers_query_is_limited_to_itself():
    query = parse("team=x")
    assert query.only("consumer", "me").filters == {"team": ["x"], "consumer": ("me",)}
    assert query.only("team", "x").filters == {"team": ("x",)}
    assert query.only("team", "y").filters == {"team": ()}


def test_queries_of_exchanges_are_read():
    query = ExchangeQuery.parse([("outcome", "refused"), ("before", "id"), ("limit", "5"), ("consumer", "x")])
    assert query == ExchangeQuery(filters={"outcome": ["refused"], "consumer": ["x"]}, before="id", limit=5)
    assert ExchangeQuery.parse([]).limit == 100


@pytest.mark.parametrize(
    "parameters", [[("limit", value)] for value in ("0", "1001", "-1", "", "x", "1e2", "٣", "9" * 5000)]
)
def test_the_limit_must_be_a_number(parameters):
    with pytest.raises(ValueError, match="limit"):
        ExchangeQuery.parse(parameters)


def test_the_outcome_must_be_known():
    with pytest.raises(ValueError, match="outcome"):
        ExchangeQuery.parse([("outcome", "")])


def test_every_field_of_a_query_is_a_field_of_a_row():
    from extproc.money.ledger import Row

    assert set(FIELDS) <= {*Row.__struct_fields__, "outcome"}

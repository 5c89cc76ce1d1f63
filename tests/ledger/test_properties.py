"""Random rows and queries: every database gives the report that a few lines of Python compute."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.money.ledger.query import FIELDS, Query, label_of, next_month
from extproc.money.ledger.rows import MAX_COUNT
from extproc.money.ledger.usage import Numbers
from extproc.words.exchange import OUTCOMES
from tests.ledger.conftest import row, write
from tests.samples import examples

START = datetime(2026, 10, 30, tzinfo=UTC)
TEXTS = st.sampled_from(["", "a", "A", "é", "😀", "'\"\\%$.[0]", "z\n"])
LABELS = st.sampled_from(["agent", "", 'x"y', "a.b", "$[0]", "%"])
AMOUNTS = st.sampled_from([0, 1, 999_999_999, 1 << 32, (1 << 63) - 1]) | st.integers(0, 10**9)
ROWS = st.builds(
    row,
    time=st.integers(0, 4 * 86_400 * 10).map(lambda tenths: START.timestamp() + tenths / 10),
    **{name: TEXTS for name in FIELDS if name not in ("status", "outcome", "stream")},
    labels=st.dictionaries(LABELS, TEXTS, max_size=3),
    attempts=st.integers(0, 2),
    status=st.sampled_from([0, 200, 400, 429, 503]),
    outcome=st.sampled_from(OUTCOMES),
    stream=st.booleans(),
    input_tokens=AMOUNTS,
    output_tokens=AMOUNTS,
    cached_tokens=AMOUNTS,
    cache_write_tokens=AMOUNTS,
    reasoning_tokens=AMOUNTS,
    cost=st.none() | AMOUNTS,
)
NAMES = st.sampled_from(FIELDS) | LABELS.filter(bool).map("label.{}".format)
MOMENTS = st.sampled_from([START + timedelta(hours=hours) for hours in range(0, 97, 7)])


@st.composite
def queries(draw):
    start, end = sorted(draw(st.lists(MOMENTS, min_size=2, max_size=2, unique=True)))
    groups = draw(st.lists(NAMES, max_size=4, unique=True))
    filters = {name: draw(st.lists(values(name), min_size=1, max_size=4)) for name in draw(st.sets(NAMES, max_size=2))}
    return Query(start, end, draw(st.sampled_from(["hour", "day", "month", "total"])), tuple(groups), filters)


def values(name):
    return st.sampled_from(
        {"status": ["200", "429"], "stream": ["true", "false"], "outcome": ["error"]}.get(
            name, ["", "a", "A", "é", "z\n"]
        )
    )


def field(given, name):
    label = label_of(name)
    value = getattr(given, name) if label is None else given.labels.get(label, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def bounds(query, given):
    minute = datetime.fromtimestamp(given.time, UTC).replace(second=0, microsecond=0)
    if query.resolution == "minute":
        return minute, minute + timedelta(minutes=1)
    moment = minute.replace(minute=0)
    if query.resolution == "hour":
        return moment, moment + timedelta(hours=1)
    if query.resolution == "day":
        return moment.replace(hour=0), moment.replace(hour=0) + timedelta(days=1)
    if query.resolution == "month":
        return moment.replace(day=1, hour=0), next_month(moment)
    return query.start, query.end


def numbers(given):
    refused, failed = given.outcome == "refused", given.outcome == "error"
    tokens = (given.input_tokens, given.output_tokens, given.cached_tokens, given.cache_write_tokens)
    counted = [min(count, MAX_COUNT) for count in (*tokens, given.reasoning_tokens)]
    return Numbers(1, refused, failed, *counted, given.cost or 0, given.cost is None)


def oracle(rows, query):
    found = defaultdict(Numbers)
    for given_ in rows:
        inside = query.start.timestamp() <= given_.time < query.end.timestamp()
        if inside and all(field(given_, name) in wanted for name, wanted in query.filters.items()):
            group = tuple(field(given_, name) for name in query.group_by)
            found[*bounds(query, given_), group] += numbers(given_)
    return found


@pytest.mark.parametrize("first_part", [1, 16])
@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(ROWS, max_size=40), asked=st.lists(queries(), min_size=5, max_size=20))
def test_a_report_equals_the_computed_one(ledger, monkeypatch, first_part, rows, asked):
    monkeypatch.setattr("extproc.money.ledger.usage.FIRST_PART", first_part)
    rows = [
        row(**{**{name: getattr(each, name) for name in each.__struct_fields__}, "id": f"{number}"})
        for number, each in enumerate(rows)
    ]
    ledger.prune(1e12)
    write(ledger, *rows)
    for query in asked:
        report, wanted = ledger.usage(query), oracle(rows, query)
        assert {(each.start, each.end, each.group): each.numbers for each in report.buckets} == wanted
        assert report.total == sum(wanted.values(), Numbers())
        order = [(each.start, -each.numbers.cost, each.group) for each in report.buckets]
        if "status" not in query.group_by:  # a number, ordered as a number
            assert order == sorted(order)

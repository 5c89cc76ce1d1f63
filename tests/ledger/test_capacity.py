"""Own hardware in the ledger: whatever happens, what requests used and what was idle add up to hours times price."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.money.ledger import open_ledger
from extproc.money.ledger.capacity import MINUTE, MOST_GAP, Minute
from extproc.money.ledger.query import Query
from tests.ledger.conftest import NOW, row, write

FIRST = int(NOW) // 3600 * 3600 * 1_000_000
NANO = 10**9


def minutes(*numbers, replicas=2, provider="llama"):
    """Minutes of replicas that cost 3 USD an hour each."""
    return [Minute(provider, FIRST + number * MINUTE, replicas * 1000, replicas * 3 * NANO // 60) for number in numbers]


def capacity(ledger, **parameters):
    given = [("start", text(FIRST)), ("end", text(FIRST + 60 * MINUTE)), *parameters.items()]
    return ledger.usage(Query.parse(given, datetime.fromtimestamp(NOW, UTC))).json()["capacity"]


def text(micros):
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat()


def at(number):
    return FIRST / 1e6 + 60 * number


def test_what_requests_do_not_use_of_the_hours_is_idle(ledger):
    assert capacity(ledger) == {}
    ledger.keep_capacity(minutes(*range(60)))
    ledger.keep_capacity(minutes(*range(30), provider="sql"))
    used = [row(f"id-{n}", time=at(n), provider="llama", team="a" if n % 2 else "b", cost=NANO // 10) for n in range(9)]
    write(ledger, *used, row("other", time=at(5), provider="openai", cost=NANO))
    llama = {"usd": "6", "used_usd": "0.9", "idle_usd": "5.1"}
    assert capacity(ledger) == {"llama": llama, "sql": {"usd": "3", "used_usd": "0", "idle_usd": "3"}}
    assert capacity(ledger, group_by="team", resolution="minute", provider="llama") == {"llama": llama}
    assert capacity(ledger, team="a") == {}, "the part of a team has no idle share"
    write(ledger, row("late", time=at(3), provider="llama", cost=6 * NANO))
    assert capacity(ledger)["llama"]["idle_usd"] == "-0.9"


def test_the_first_process_counts_a_minute_and_the_latest_known_fills_a_gap(shared_url):
    one, other = open_ledger(shared_url), open_ledger(shared_url)
    one.keep_capacity(minutes(0, 1))
    other.keep_capacity(minutes(1, 2, replicas=9))
    assert capacity(one)["llama"]["usd"] == "0.65"  # 2 + 2 + 9 replicas
    one.keep_capacity(minutes(12, replicas=1))
    assert capacity(one)["llama"]["usd"] == "4.75"  # 13 + 9 * 9 + 1
    for each in (one, other):
        each.writer.stop()
        each.close()


def test_hardware_without_a_gateway_for_a_week_was_switched_off(ledger):
    ledger.keep_capacity(minutes(-MOST_GAP - 1))
    ledger.keep_capacity(minutes(0))
    assert capacity(ledger)["llama"]["usd"] == "0.1"
    assert ledger.prune(FIRST / 1e6 + 30) == 0
    assert capacity(ledger) == {}, "minutes are kept as long as rows"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 8)), max_size=80),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, NANO)), max_size=20),
)
def test_rows_and_the_idle_share_are_the_hours(counted, used):
    """Replicas come and go, processes die and count again: each minute costs what was counted first, or before it."""
    ledger, paid = open_ledger("memory:"), dict[int, int]()
    for number, replicas in counted:
        ledger.keep_capacity(minutes(number, replicas=replicas))
        before = max((each for each in paid if each < number), default=None)
        for missed in range(number if before is None else before + 1, number):
            paid.setdefault(missed, paid[before])
        paid.setdefault(number, replicas)
    write(ledger, *[row(f"id-{n}", time=at(m), provider="llama", cost=cost) for n, (m, cost) in enumerate(used)])
    found = capacity(ledger)
    ledger.writer.stop()
    ledger.close()
    if not paid:
        assert found == {}
        return
    shares = {name: Decimal(value) for name, value in found["llama"].items()}
    assert shares["used_usd"] + shares["idle_usd"] == shares["usd"] == Decimal(sum(paid.values())) * 3 / 60
    assert shares["used_usd"] == Decimal(sum(cost for _, cost in used)) / NANO

import math
from email.utils import format_datetime, formatdate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.history import FORGET, MAX_COOLED, MAX_PLACES, History, Speed, retry_after
from extproc.routing.streaks import CoolDownRule
from extproc.words.tries import OUTCOMES

KB, MB = 1 << 10, 1 << 20
RULE = CoolDownRule(failures=5, pause=15, longest=40, probe=5)


@pytest.fixture
def clock(clocks):
    return clocks()


@pytest.fixture
def history(clock):
    return History(clock)


def learn(history, seconds, *deployments, times=1, outcome="ok", **more):
    """Teach the history answers that took so many seconds."""
    for _ in range(times):
        for deployment in deployments:
            history.learn(deployment, outcome, first_byte=seconds, **more)


def expected(history, deployment, size=0, *, streamed=False):
    return history.expected(deployment, size, streamed=streamed)


# --- failures of one consumer


def test_one_consumers_failures_make_a_deployment_slow_for_that_consumer_alone(history):
    learn(history, 0.5, "a", consumer="bob")
    before = expected(history, "a")
    learn(history, None, "a", outcome="5xx", consumer="eve", times=50)
    assert expected(history, "a") == history.expected("a", 0, streamed=False, consumer="bob") == pytest.approx(before)
    assert history.expected("a", 0, streamed=False, consumer="eve") > 4 * before
    assert history.deployments()["a"]["failing"] == 0
    learn(history, 0.5, "a", consumer="eve", times=20)
    assert history.expected("a", 0, streamed=False, consumer="eve") == pytest.approx(before, rel=0.1)


def test_failures_of_several_consumers_count_for_everybody_each_for_half_of_them(history):
    learn(history, 0.5, "a", consumer="bob")
    learn(history, None, "a", outcome="5xx", consumer="eve", times=50)
    learn(history, None, "a", outcome="5xx", consumer="bob")
    assert history.deployments()["a"]["failing"] == pytest.approx(0.2)
    learn(history, None, "a", outcome="5xx", consumer="eve", times=50)
    assert history.deployments()["a"]["failing"] == pytest.approx(0.2)
    learn(history, 0.5, "a", consumer="ann")  # a success between them: they are not in a row
    share = history.deployments()["a"]["failing"]
    learn(history, None, "a", outcome="5xx", consumer="eve", times=50)
    assert history.deployments()["a"]["failing"] == share
    for _ in range(20):
        learn(history, None, "a", outcome="5xx", consumer="ann")
        learn(history, None, "a", outcome="5xx", consumer="bob")
    assert history.deployments()["a"]["failing"] > 0.9


@pytest.mark.parametrize("outcome", ["connect", "429"])
def test_failures_that_no_request_causes_count_for_everybody(history, outcome):
    learn(history, None, "a", outcome=outcome, consumer="eve")
    assert history.deployments()["a"]["failing"] == pytest.approx(0.2)


# --- cool-downs


def test_a_deployment_cools_down_for_as_long_as_it_asked(history, clock):
    assert history.cooling("a") == 0
    history.cool("a", 5)
    assert history.cooling("a") == pytest.approx(5)
    clock.now += 4
    assert history.cooling("a") == pytest.approx(1)
    assert history.cooling("b") == 0
    clock.now += 1
    assert history.cooling("a") == 0


@pytest.mark.parametrize(("first", "second"), [(5, 60), (60, 5)])
def test_the_longest_cool_down_counts(history, first, second):
    history.cool("a", first)
    history.cool("a", second)
    assert history.cooling("a") == pytest.approx(60)


@pytest.mark.parametrize("seconds", [0, -1])
def test_an_invalid_time_is_no_cool_down(history, seconds):
    history.cool("a", seconds)
    assert history.cooling("a") == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("007", 7),
        ("999999999999", 999999999999),
        *(
            (value, None)
            for value in ("", " ", "-1", "soon", "1e9", "inf", "nan", "7 s", "1,5", "1.2.3", ".", "٣", "²")
        ),
        ("9" * 5000, None),
        ("Thu, 99 Jan 2026 00:00:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after(value, 1000.0) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(90, 90), (0, 0), (-90, 0)])
def test_retry_after_as_a_date(ahead, seconds):
    now = 1_700_000_000
    assert retry_after(formatdate(now + ahead, usegmt=True), now) == seconds


@given(st.text(max_size=60) | st.dates().map(str) | st.datetimes().map(format_datetime), st.floats(0, 4e9))
def test_any_retry_after_is_a_time_or_nothing(value, now):
    found = retry_after(value, now)
    assert found is None or 0 <= found < math.inf


# --- learning how fast deployments are


def test_an_unknown_deployment_has_no_expectation(history):
    assert expected(history, "a") is None
    learn(history, 0.5, "a")
    assert expected(history, "a") == pytest.approx(0.5)
    assert expected(history, "b") is None
    assert expected(history, "a", streamed=True) is None


def test_the_writing_speed_of_a_stream_counts(history):
    """Two deployments begin to answer equally fast; one writes ten times as fast."""
    history.learn("fast", "ok", streamed=True, first_byte=0.5, rest=1, answer=20_000)
    history.learn("slow", "ok", streamed=True, first_byte=0.5, rest=10, answer=20_000)
    assert expected(history, "fast", streamed=True) == pytest.approx(1.5)
    assert expected(history, "slow", streamed=True) == pytest.approx(10.5)


def test_the_length_of_an_answer_does_not_count_against_a_deployment(history):
    history.learn("a", "ok", streamed=True, first_byte=0.5, rest=1, answer=1000)
    history.learn("b", "ok", streamed=True, first_byte=0.5, rest=100, answer=100_000)
    assert expected(history, "a", streamed=True) == pytest.approx(expected(history, "b", streamed=True))


def test_a_deployment_that_became_slow_is_left_within_a_few_samples(history):
    learn(history, 0.1, "a", "b", times=20)
    learn(history, 2.0, "a", times=3)
    assert expected(history, "a") > 2 * expected(history, "b")


def test_a_deployment_that_became_fast_is_found_within_a_few_samples(history):
    learn(history, 2.0, "a", times=20)
    learn(history, 1.0, "b", times=20)
    learn(history, 0.1, "a", times=5)
    assert expected(history, "a") < expected(history, "b")


def test_one_outlier_does_not_decide(history):
    learn(history, 0.1, "a", times=20)
    learn(history, 0.2, "b", times=20)
    learn(history, 300.0, "a")
    assert expected(history, "a") < expected(history, "b")


@pytest.mark.parametrize("outcome", ["429", "5xx", "timeout", "connect", "reset", "cut"])
def test_a_deployment_that_fails_is_left_within_a_few_tries(history, outcome):
    learn(history, 0.1, "a", times=20)
    learn(history, 0.15, "b", times=20)
    learn(history, None, "a", times=3, outcome=outcome)
    assert expected(history, "a") > expected(history, "b")
    learn(history, 0.1, "a", times=10)
    assert expected(history, "a") < expected(history, "b")


def test_failures_do_not_make_a_deployment_look_fast(history):
    learn(history, None, "bad", times=10, outcome="5xx")
    learn(history, 0.5, "good", times=10)
    assert expected(history, "bad") > expected(history, "good")
    learn(history, 0.5, "bad")  # its first answer is the only sample of its speed
    assert expected(history, "bad") > expected(history, "good")


@pytest.mark.parametrize("outcome", sorted({"client_left", "credential", "other", "401", "403", "4xx"}))
def test_errors_of_the_client_or_the_gateway_teach_nothing(history, outcome):
    assert outcome in OUTCOMES
    learn(history, 0.001, "a", outcome=outcome)
    assert expected(history, "a") is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(OUTCOMES),
            st.booleans(),
            st.none() | st.floats(0, 1e5),
            st.floats(0, 1e5),
            st.integers(0, MB),
        )
    )
)
def test_any_history_gives_a_finite_expectation(clocks, tries):
    history = History(clocks())
    for outcome, streamed, first_byte, rest, answer in tries:
        history.learn("a", outcome, streamed=streamed, first_byte=first_byte, rest=rest, answer=answer)
    for streamed in (False, True):
        found = expected(history, "a", streamed=streamed)
        assert found is None or 0 <= found < math.inf


def test_knowledge_fades(history, clock):
    learn(history, 10.0, "a", times=5)
    clock.now += FORGET
    assert expected(history, "a") == pytest.approx(10 / math.e)
    clock.now += 10 * FORGET
    assert expected(history, "a") < 0.001


# --- exploring a deployment


def test_an_unknown_deployment_is_explored_by_one_request_at_a_time(history, clock):
    history.chosen("a", 0, streamed=False)
    assert expected(history, "a") == math.inf  # another request is exploring it
    clock.now += 1.1  # and has not returned
    assert expected(history, "a") is None
    history.chosen("a", 0, streamed=False)
    learn(history, 0.5, "a")
    assert expected(history, "a") == pytest.approx(0.5)


def test_a_faded_deployment_is_explored_by_one_request(history, clock):
    learn(history, 10.0, "a", times=5)
    clock.now += 3 * FORGET
    assert expected(history, "a") < 1
    history.chosen("a", 0, streamed=False)
    assert expected(history, "a") == pytest.approx(10)


def test_choosing_a_deployment_in_use_does_not_count_as_exploring(history, clock):
    learn(history, 10.0, "a")
    clock.now += 20
    history.chosen("a", 0, streamed=False)
    assert expected(history, "a") < 10


# --- sizes of requests


def test_large_requests_are_a_separate_class(history):
    learn(history, 0.1, "a", size=KB)
    learn(history, 5.0, "a", size=MB)
    assert expected(history, "a", KB) == pytest.approx(0.1)
    assert expected(history, "a", 2 * MB) == pytest.approx(5.0)


def test_samples_of_another_size_are_used_where_there_are_none(history):
    learn(history, 0.1, "a", size=KB)
    learn(history, 5.0, "a", size=MB)
    assert expected(history, "a", 10 * KB) == pytest.approx(0.1)
    assert expected(history, "a", 100 * KB) == pytest.approx(5.0)


# --- clock changes


def test_a_clock_set_back_does_no_harm(history, clock):
    learn(history, 0.5, "a", times=5)
    history.chosen("b", 0, streamed=False)
    clock.now -= 3600
    assert expected(history, "a") == pytest.approx(0.5)
    assert expected(history, "b") is None  # requests do not wait an hour for the one that explores
    learn(history, 0.5, "a")
    history.cool("a", 5)
    clock.now += 5
    assert history.cooling("a") == 0


def test_a_clock_set_ahead_ends_cool_downs(history, clock):
    history.cool("a", 60)
    clock.now += 3600
    assert history.cooling("a") == 0


# --- memory


def test_the_oldest_deployments_are_forgotten(history):
    for number in range(MAX_PLACES + 500):
        learn(history, 0.1, f"p{number}")
        history.cool(f"p{number}", 60)
        history.chosen(f"q{number}", 0, streamed=False)
    assert len(history.deployments()) == MAX_PLACES
    assert (expected(history, "p0"), history.cooling("p0")) == (None, 0)
    assert expected(history, "q0") is None
    last = f"p{MAX_PLACES + 499}"
    assert (expected(history, last), history.cooling(last)) == (pytest.approx(0.1), pytest.approx(60))


def test_a_deployment_in_use_is_not_the_oldest(history):
    learn(history, 0.1, "used")
    for number in range(MAX_PLACES - 1):
        learn(history, 0.1, f"p{number}")
    learn(history, 0.1, "used", "new")
    assert expected(history, "used") is not None
    assert expected(history, "p0") is None


# --- notes between processes


@pytest.fixture
def other(clock):
    return History(clock)


def test_a_note_carries_all_knowledge_to_another_process(history, other):
    history.cool("a", 30)
    history.learn("b", "ok", streamed=True, first_byte=0.5, rest=1, answer=20_000, size=MB)
    learn(history, 0.1, "c", times=3)
    learn(history, None, "c", outcome="429")
    other.merge([history.note()])
    assert other.cooling("a") == pytest.approx(30)
    assert expected(other, "b", MB, streamed=True) == expected(history, "b", MB, streamed=True)
    assert expected(other, "c") == expected(history, "c")


def test_an_empty_history_has_an_empty_note(history, other, clock):
    assert history.note() == b""
    other.merge([b""])
    history.cool("a", 5)
    learn(history, 0.1, "b")
    assert history.note()
    clock.now += 2 * FORGET
    assert history.note() == b""


def test_the_latest_knowledge_counts(history, other, clock):
    learn(history, 1.0, "a")
    clock.now += 1
    learn(other, 2.0, "a")
    other.merge([history.note()])
    history.merge([other.note()])
    assert expected(other, "a") == expected(history, "a") == pytest.approx(2.0)


def test_a_merge_replaces_the_previous_one_but_cool_downs_stay(history, other):
    learn(history, 1.0, "a")
    history.cool("a", 30)
    other.merge([history.note()])
    other.merge([])
    assert expected(other, "a") is None
    assert other.cooling("a") == pytest.approx(30)


def test_the_longest_cool_down_of_all_processes_counts(history, other):
    history.cool("a", 5)
    history.cool("b", 50)
    other.cool("a", 50)
    other.cool("b", 5)
    other.merge([history.note()])
    assert (other.cooling("a"), other.cooling("b")) == (pytest.approx(50), pytest.approx(50))


def test_notes_of_many_processes_merge_into_one_history(clocks):
    clock = clocks()
    histories = [History(clock) for _ in range(5)]
    for number, one in enumerate(histories):
        clock.now += 1
        learn(one, float(number + 1), "shared", f"own-{number}")
    fresh = History(clock)
    fresh.merge([one.note() for one in histories])
    assert expected(fresh, "shared") == pytest.approx(5.0)
    assert all(expected(fresh, f"own-{number}") is not None for number in range(5))


def test_a_note_is_short(history):
    for number in range(MAX_PLACES):
        learn(history, 0.1, f"provider/{'model' * 10}-{number}")
        history.cool(f"provider/{'model' * 10}-{number}", 60)
    assert len(history.note()) < 128 * KB


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NEARLY = st.tuples(
    st.dictionaries(st.text(max_size=3), st.floats()),
    st.lists(
        st.tuples(
            st.text(max_size=3),
            st.booleans(),
            st.integers(-9, 9),
            st.lists(st.floats() | st.integers(-9, 9), max_size=6),
        ),
        max_size=3,
    ),
)


@given(st.binary(max_size=100) | (JSON | NEARLY).map(msgspec.msgpack.encode))
def test_an_unreadable_note_is_ignored(clocks, data):
    clock = clocks()
    good, history = History(clock), History(clock)
    learn(good, 0.1, "good-deployment")
    history.merge([data, good.note(), data])
    assert expected(history, "good-deployment") == pytest.approx(0.1)
    history.note()
    history.deployments()


# --- shown to operators


def test_deployments_are_shown_with_their_knowledge(history, clock):
    history.cool("a", 30)
    learn(history, 0.25, "a")
    history.learn("a", "ok", streamed=True, first_byte=0.125)
    learn(history, None, "b", outcome="5xx")
    assert history.deployments() == {
        "a": {
            "cooling_down_s": 30.0,
            "plain_s": 0.25,
            "streamed_first_byte_s": 0.125,
            "ttft_p95_s": 0.125,
            "failing": 0.0,
            "cooled": [(clock.now, clock.now + 30)],
        },
        "b": {"plain_s": 0.0, "failing": 0.2},
    }
    began, clock.now = clock.now, clock.now + 2 * FORGET
    assert history.deployments() == {"a": {"cooled": [(began, began + 30)]}}
    clock.now += 86_400
    assert history.deployments() == {}


def test_cool_downs_of_the_last_day_are_shown_each_once(history, clock):
    """A longer one that follows within a cool-down is the same; one that a success ended early is as long as it was."""
    began = clock.now
    history.cool("p/m", 30)
    clock.now += 20
    history.cool("p/m", 40)
    other = History(clock)
    other.merge([history.note()])
    assert history.deployments()["p/m"]["cooled"] == [(began, began + 60)]
    assert other.deployments()["p/m"]["cooled"] == [(began + 20, began + 60)]
    clock.now += 100
    for _ in range(5):
        history.unreachable("p/m", RULE)
    clock.now += 5
    history.reached("p/m", "alice", 0.0, served=True)
    history.cool("p/m\nalice", 60)  # a cool-down of one consumer is not the deployment's
    again = began + 120
    assert history.deployments()["p/m"]["cooled"] == [(began, began + 60)]
    assert history.deployments()["p/"]["cooled"] == [(again, again + 5)]
    for number in range(2 * MAX_COOLED):
        history.cool(f"q/{number}", 1)
    assert sum(len(facts.get("cooled", ())) for facts in history.deployments().values()) == MAX_COOLED


def test_the_expectation_of_a_new_deployment_is_a_time():
    assert Speed().expected(0.0) > 0

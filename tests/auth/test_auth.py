import traceback
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.auth import (
    AttributionSettings,
    Authenticate,
    Authorize,
    AuthSettings,
    ConsumerSettings,
    Grants,
    TeamSettings,
    credential,
    hash_key,
    make_key,
)
from extproc.errors import Refusal
from extproc.exchange import Consumer, Exchange, Request, Target
from extproc.values import Secret

KEY = "sk-gw-alice"


def request(**headers):
    return Request("POST", "/v1/chat/completions", {name.replace("_", "-"): value for name, value in headers.items()})


def refusal(call, *arguments):
    with pytest.raises(Refusal) as refused:
        call(*arguments)
    return refused.value.kind.status, refused.value.kind.code


@pytest.fixture
def door(monkeypatch, clocks):
    """Authenticate for consumers as they stand in the filter YAML; alice has KEY."""
    monkeypatch.setenv("ALICE", KEY)
    clock = clocks()

    def build(*consumers, teams=None, auth=None, **attribution):
        stage = Authenticate(
            AuthSettings(**auth or {}),
            [ConsumerSettings(**{"name": "alice", "keys": [{"env": "ALICE"}]} | given) for given in consumers or ({},)],
            Grants({name: TeamSettings(**team) for name, team in (teams or {}).items()}, {}),
            AttributionSettings(**attribution),
            clock,
        )

        def enter(**headers):
            exchange = Exchange("id", request(**headers))
            stage(exchange)
            return exchange

        enter.clock = clock
        return enter

    return build


# --- where the key is


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER   {KEY} "},
        {"x_api_key": KEY},
        {"api_key": KEY},
        {"authorization": f"Bearer {KEY}", "x_api_key": KEY, "api_key": KEY},
    ],
)
def test_a_key_is_found(headers):
    assert credential(request(**headers)) == KEY


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}", "x_api_key": "other"},
        {"x_api_key": KEY, "api_key": KEY + "x"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer  "},
        {"x_api_key": ""},
        {"authorization": "Bearer ", "x_api_key": KEY},
    ],
)
def test_no_key_or_two_that_differ_are_refused(headers):
    assert refusal(credential, request(**headers)) == (401, "invalid_key")


def test_no_header_is_no_key():
    assert credential(request(cookie="a")) is None


# --- whose it is


def test_a_key_opens(door):
    assert door()(authorization=f"Bearer {KEY}").consumer.name == "alice"


@pytest.mark.parametrize(
    "key",
    [
        "x",
        KEY.upper(),
        KEY + " x",
        KEY[:-1],
        KEY + "\0",
        f"{KEY},{KEY}",
        f"{KEY},Bearer {KEY}",
        "' OR '1'='1",
        "'; DROP TABLE keys; --",
        '{"$gt": ""}',
        "*\r\nFLUSHALL\r\n",
        "${jndi:ldap://x}",
        "%s%s%s%n",
        "é" * 100,
        "k" * 4097,
        "k" * 1_000_000,
    ],
)
def test_another_key_does_not_open(door, key):
    assert refusal(lambda: door()(authorization=f"Bearer {key}")) == (401, "invalid_key")


def test_every_refused_key_gets_the_same_answer(door):
    said = set()
    for key in ("x", "k" * 1_000_000, KEY):
        with pytest.raises(Refusal) as refused:
            door({"disabled": True})(x_api_key=key)
        said.add((refused.value.kind, refused.value.message))
    assert len(said) == 1


def test_no_key_is_another_refusal(door):
    assert refusal(door()) == (401, "missing_key")


def test_without_a_key_one_is_anonymous_where_none_is_required(door):
    enter = door(auth={"required": False})
    assert enter().consumer.name == "anonymous"
    assert enter(x_api_key=KEY).consumer.name == "alice"
    assert refusal(lambda: enter(x_api_key="wrong")) == (401, "invalid_key")


def test_keys_may_be_in_files_and_several(door, tmp_path, monkeypatch):
    monkeypatch.setenv("BOB", "sk-gw-bob")
    (tmp_path / "key").write_text("sk-gw-file\n")
    enter = door({"keys": [{"env": "BOB"}, {"file": str(tmp_path / "key")}, {"env": "UNSET_FOR_SURE"}]})
    assert enter(x_api_key="sk-gw-bob").consumer is enter(x_api_key="sk-gw-file").consumer


def test_a_hash_opens_with_the_key_it_was_made_of(door, monkeypatch):
    monkeypatch.setenv("SALT", "pepper")
    key = make_key()
    hashed = hash_key(key, "pepper")
    enter = door({"keys": [{"hash": hashed}]}, auth={"key_secret": Secret("env", "SALT")})
    assert enter(x_api_key=key).consumer.name == "alice"
    assert refusal(lambda: enter(x_api_key=hashed)) == (401, "invalid_key")
    assert refusal(lambda: enter(x_api_key=hashed.removeprefix("hmac-sha256:"))) == (401, "invalid_key")


def test_a_hash_depends_on_the_secret():
    assert hash_key("k", "a") != hash_key("k", "b")
    assert make_key() != make_key()


def test_the_empty_value_of_a_variable_is_no_key(door, monkeypatch):
    monkeypatch.setenv("EMPTY", " ")
    enter = door({"keys": [{"env": "EMPTY"}]})
    assert refusal(lambda: enter(x_api_key=" ")) == (401, "invalid_key")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_no_text_opens_by_chance(settings, clocks, text):
    stage = Authenticate(
        AuthSettings(), [ConsumerSettings(name="alice")], Grants({}, {}), AttributionSettings(), clocks()
    )
    assert refusal(stage, Exchange("id", request(x_api_key=text))) == (401, "invalid_key")


# --- until when


@pytest.mark.parametrize(
    ("moment", "good"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), True),
        (datetime(2027, 1, 1, tzinfo=UTC), False),
        (datetime(2030, 1, 1, tzinfo=UTC), False),
    ],
)
def test_a_key_is_good_until_its_day_begins(door, moment, good):
    enter = door({"expires": date(2027, 1, 1)})
    enter.clock.now = moment.timestamp()
    if good:
        assert enter(x_api_key=KEY).consumer.name == "alice"
    else:
        assert refusal(lambda: enter(x_api_key=KEY)) == (401, "expired_key")


def test_a_disabled_consumer_does_not_enter(door):
    assert refusal(lambda: door({"disabled": True})(x_api_key=KEY)) == (401, "invalid_key")


# --- labels


def test_labels_are_what_stands_after_the_prefix(door):
    labels = door()(x_api_key=KEY, x_ai_agent="planner", x_ai_run="7", x_other="no", x_ai_="no", x_ai_empty="").labels
    assert labels == {"agent": "planner", "run": "7"}


def test_the_prefix_is_a_setting(door):
    assert door(prefix="x-acme-")(x_api_key=KEY, x_acme_a="1", x_ai_b="2").labels == {"a": "1"}


def test_a_consumers_own_labels_cannot_be_overridden(door):
    enter = door({"labels": {"team": "red"}})
    assert enter(x_api_key=KEY, x_ai_team="blue", x_ai_a="1").labels == {"team": "red", "a": "1"}


def test_labels_are_bounded_in_number_and_size(door):
    flood = {f"x_ai_{number}": "v" for number in range(1000)}
    assert len(door()(x_api_key=KEY, **flood).labels) == 32
    labels = door()(x_api_key=KEY, **{"x_ai_" + "n" * 10_000: "v" * 10_000}).labels
    assert labels == {"n" * 64: "v" * 256}


# --- grants

TEAMS = {"red": TeamSettings(models=["gpt-*", "claude-1"]), "open": TeamSettings(), "closed": TeamSettings(models=[])}


@pytest.mark.parametrize(
    ("models", "team", "model", "granted"),
    [
        (None, None, "anything", True),
        ([], None, "anything", False),
        (["*"], None, "anything", True),
        (["gpt-4o"], None, "gpt-4o", True),
        (["gpt-4o"], None, "gpt-4o-mini", False),
        (["claude-*"], None, "claude-sonnet", True),
        (["openai/*"], None, "openai/gpt-4o", True),
        (["gpt-4o"], None, "GPT-4o", False),
        (None, "red", "gpt-4o", True),
        (None, "red", "llama", False),
        (["llama", "gpt-4o"], "red", "gpt-4o", True),
        (["llama", "gpt-4o"], "red", "llama", False),
        (["gpt-4o"], "red", "claude-1", False),
        (["gpt-4o"], "open", "gpt-4o", True),
        (["gpt-4o"], "closed", "gpt-4o", False),
        (None, "closed", "gpt-4o", False),
    ],
)
def test_a_model_must_be_granted_by_consumer_and_team(models, team, model, granted):
    assert Grants(TEAMS, {}).consumer(ConsumerSettings(name="a", team=team, models=models)).may_use(model) is granted


def authorize(exchange, model, targets, may_use):
    sent = exchange({"model": model, "messages": [{}]}, consumer=Consumer("a", may_use=may_use), targets=targets)
    Authorize()(sent)
    return sent.targets


BOTH = (Target("one", "a", "1"), Target("two", "b", "2"))


def test_targets_are_narrowed_to_those_granted(exchange):
    assert authorize(exchange, "v", BOTH, lambda model: model in ("v", "two")) == BOTH[1:]


@pytest.mark.parametrize("granted", [("one", "two"), ("v",), ()])
def test_a_model_not_granted_or_with_no_target_granted_is_a_403(exchange, granted):
    assert refusal(authorize, exchange, "v", BOTH, lambda model: model in granted) == (403, "model_not_allowed")


# --- what must not be told


def test_no_key_is_in_what_is_raised(door):
    canary = make_key()
    for headers in ({"x_api_key": canary}, {"authorization": f"Basic {canary}"}, {"api_key": canary, "x_api_key": "b"}):
        with pytest.raises(Refusal) as refused:
            door()(**headers)
        shown = [*traceback.format_exception(refused.value), repr(refused.value), refused.value.message]
        assert canary not in "".join(shown)


def test_no_key_is_in_memory_as_text(door, monkeypatch):
    monkeypatch.setenv("ALICE", "canary-key")
    stage = Authenticate(
        AuthSettings(),
        [ConsumerSettings(name="alice", keys=[{"env": "ALICE"}])],
        Grants({}, {}),
        AttributionSettings(),
        lambda: 0.0,
    )
    assert "canary" not in repr(vars(stage))

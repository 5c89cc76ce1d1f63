import traceback
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.access.auth import (
    Access,
    AttributionSettings,
    Authenticate,
    Authorize,
    AuthSettings,
    ConsumerSettings,
    GroupSettings,
    IssuedKey,
    JWTSettings,
    TeamSettings,
    credential,
    hash_key,
    make_key,
)
from extproc.dialects import serving
from extproc.words import contract
from extproc.words.errors import Refusal
from extproc.words.exchange import NOTHING_VERIFIED, Consumer, RequestHead, Target, Verified
from extproc.words.values import Secret
from tests.exchanges import new_exchange

KEY = "sk-gw-alice"


def request(**headers):
    return RequestHead(
        "POST", "/v1/chat/completions", {name.replace("_", "-"): value for name, value in headers.items()}
    )


def classified(asked):
    exchange = new_exchange("id", asked)
    exchange.request.dialect = serving("/v1beta/models/m:generateContent" if "v1beta" in asked.path else "/v1/messages")
    return exchange


def refusal(call, *arguments):
    with pytest.raises(Refusal) as refused:
        call(*arguments)
    return refused.value.kind.status, refused.value.kind.code


@pytest.fixture
def door(monkeypatch, clocks):
    """Authenticate for the consumers of a filter YAML. alice has KEY."""
    monkeypatch.setenv("ALICE", KEY)
    clock = clocks()

    def build(*consumers, teams=None, auth=None, issued=(), **attribution):
        stage = Authenticate(
            AuthSettings(**auth or {}),
            [ConsumerSettings(**{"name": "alice", "keys": [{"env": "ALICE"}]} | given) for given in consumers or ({},)],
            Access({name: TeamSettings(**team) for name, team in (teams or {}).items()}, {}),
            AttributionSettings(**attribution),
            clock,
            issued=issued,
        )

        def enter(*, verified=NOTHING_VERIFIED, **headers):
            exchange = classified(replace(request(**headers), verified=verified))
            stage(exchange)
            return exchange

        enter.clock = clock
        return enter

    return build


# --- the place of the key


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER   {KEY} "},
        {"x_api_key": KEY},
        {"api_key": KEY},
        {"x_goog_api_key": KEY},
        {"authorization": f"Bearer {KEY}", "x_api_key": KEY, "api_key": KEY, "x_goog_api_key": KEY},
    ],
)
def test_a_key_is_found_in_each_header(headers):
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
def test_a_request_without_a_key_or_with_two_different_ones_is_refused(headers):
    assert refusal(credential, request(**headers)) == (401, "invalid_key")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/v1beta/models/m:generateContent?alt=sse&key={KEY}", KEY),
        (f"/v1beta/models/m:generateContent?key={KEY}&key={KEY}", KEY),
        ("/v1beta/models/m:generateContent?key=a%2Fb", "a/b"),
        ("/v1beta/models/m:generateContent?alt=sse", None),
        (f"/v1/messages?key={KEY}", None),  # no client of this API sends one there
    ],
)
def test_a_key_stands_in_the_query_where_the_api_has_it_there(path, found):
    asked = RequestHead("POST", path, {})
    assert credential(asked, classified(asked).request.dialect.endpoints.key_parameter) == found


@pytest.mark.parametrize(
    ("query", "headers"), [("key=a&key=b", {}), (f"key={KEY}", {"x-goog-api-key": "other"}), ("key=a", {"api-key": ""})]
)
def test_two_keys_of_which_one_is_in_the_query_are_refused(query, headers):
    asked = RequestHead("POST", f"/v1beta/models/m:generateContent?{query}", headers)
    assert refusal(credential, asked, "key") == (401, "invalid_key")


def test_a_request_without_headers_has_no_key():
    assert credential(request(cookie="a")) is None


# --- the consumer of a key


def test_a_valid_key_is_accepted(door):
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
def test_another_key_is_refused(door, key):
    assert refusal(lambda: door()(authorization=f"Bearer {key}")) == (401, "invalid_key")


def test_every_refused_key_gets_the_same_answer(door):
    said = set()
    for key in ("x", "k" * 1_000_000, KEY):
        with pytest.raises(Refusal) as refused:
            door({"disabled": True})(x_api_key=key)
        said.add((refused.value.kind, refused.value.message))
    assert len(said) == 1


def test_a_missing_key_has_its_own_refusal(door):
    assert refusal(door()) == (401, "missing_key")


def test_a_request_without_a_key_is_anonymous_where_none_is_required(door):
    enter = door(auth={"required": False})
    assert enter().consumer.name == "anonymous"
    assert enter(x_api_key=KEY).consumer.name == "alice"
    assert refusal(lambda: enter(x_api_key="wrong")) == (401, "invalid_key")


def test_keys_may_be_in_files_and_a_consumer_may_have_several(door, tmp_path, monkeypatch):
    monkeypatch.setenv("BOB", "sk-gw-bob")
    (tmp_path / "key").write_text("sk-gw-file\n")
    enter = door({"keys": [{"env": "BOB"}, {"file": str(tmp_path / "key")}, {"env": "UNSET_FOR_SURE"}]})
    assert enter(x_api_key="sk-gw-bob").consumer is enter(x_api_key="sk-gw-file").consumer


def test_a_hash_accepts_the_key_it_was_made_of(door, monkeypatch):
    monkeypatch.setenv("SALT", "pepper")
    key = make_key()
    hashed = hash_key(key, "pepper")
    enter = door({"keys": [{"hash": hashed}]}, auth={"key_secret": Secret("env", "SALT")})
    assert enter(x_api_key=key).consumer.name == "alice"
    assert refusal(lambda: enter(x_api_key=hashed)) == (401, "invalid_key")
    assert refusal(lambda: enter(x_api_key=hashed.removeprefix("hmac-sha256:"))) == (401, "invalid_key")


def test_hashed_keys_work_while_the_file_of_their_secret_is_away(tmp_path):
    file = tmp_path / "secret"
    file.write_text("pepper")
    settings = AuthSettings(key_secret=f"file:{file}")
    consumer = ConsumerSettings(name="alice", keys=[{"hash": hash_key(KEY, "pepper")}])

    def enter():
        stage = Authenticate(settings, [consumer], Access({}, {}), AttributionSettings(), lambda: 0.0)
        stage(exchange := classified(request(x_api_key=KEY)))
        return exchange.consumer.name

    assert enter() == "alice"
    file.unlink()
    assert enter() == "alice"
    file.write_text("another")
    assert refusal(enter) == (401, "invalid_key")


def test_a_hash_depends_on_the_secret():
    assert hash_key("k", "a") != hash_key("k", "b")
    assert make_key() != make_key()


def test_an_empty_variable_is_not_a_key(door, monkeypatch):
    monkeypatch.setenv("EMPTY", " ")
    enter = door({"keys": [{"env": "EMPTY"}]})
    assert refusal(lambda: enter(x_api_key=" ")) == (401, "invalid_key")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_no_random_text_is_accepted(settings, clocks, text):
    stage = Authenticate(
        AuthSettings(), [ConsumerSettings(name="alice")], Access({}, {}), AttributionSettings(), clocks()
    )
    assert refusal(stage, classified(request(x_api_key=text))) == (401, "invalid_key")


# --- expiry


@pytest.mark.parametrize(
    ("moment", "good"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), True),
        (datetime(2027, 1, 1, tzinfo=UTC), False),
        (datetime(2030, 1, 1, tzinfo=UTC), False),
    ],
)
def test_a_key_is_valid_until_its_expiry_day_begins(door, moment, good):
    enter = door({"expires": date(2027, 1, 1)})
    enter.clock.now = moment.timestamp()
    if good:
        assert enter(x_api_key=KEY).consumer.name == "alice"
    else:
        assert refusal(lambda: enter(x_api_key=KEY)) == (401, "expired_key")


def test_a_disabled_consumer_is_refused(door):
    assert refusal(lambda: door({"disabled": True})(x_api_key=KEY)) == (401, "invalid_key")


@pytest.mark.parametrize(
    ("consumer", "key", "moment", "code"),
    [
        (None, "2027-01-01", "2026-12-31", None),
        (None, "2027-01-01", "2027-01-01", "expired_key"),
        ("2027-01-01", "2028-01-01", "2027-01-01", "expired_key"),
        ("2028-01-01", "2027-01-01", "2027-01-01", "expired_key"),
        ("2028-01-01", "2027-01-01", "2026-12-31", None),
    ],
)
def test_the_earlier_expiry_of_key_and_consumer_applies(door, consumer, key, moment, code):
    enter = door({"expires": consumer, "keys": [{"env": "ALICE", "expires": key}]})
    enter.clock.now = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    if code is None:
        assert enter(x_api_key=KEY).consumer.name == "alice"
    else:
        assert refusal(lambda: enter(x_api_key=KEY)) == (401, code)


def test_each_key_has_its_own_name_disabled_flag_and_labels(door, monkeypatch):
    monkeypatch.setenv("NEXT", "sk-gw-next")
    monkeypatch.setenv("LOST", "sk-gw-lost")
    lost, following = (
        {"env": "LOST", "disabled": True},
        {"env": "NEXT", "name": "2027", "labels": {"a": "key", "c": ""}},
    )
    enter = door({"labels": {"a": "own", "b": "own"}, "keys": [{"env": "ALICE"}, lost, following]})
    first, second = enter(x_api_key=KEY), enter(x_api_key="sk-gw-next", x_ai_a="x", x_ai_c="x", x_ai_d="x")
    assert (first.money.key, second.money.key) == ("alice#0", "alice#2027")
    assert (first.money.labels, second.money.labels) == ({"a": "own", "b": "own"}, {"a": "key", "b": "own", "d": "x"})
    assert refusal(lambda: enter(x_api_key="sk-gw-lost")) == (401, "invalid_key")


# --- identities that Envoy verified

URI, DNS, SUBJECT = (f"connection.{kind}_peer_certificate" for kind in ("uri_san", "dns_san", "subject"))
AGENT = {"name": "agent", "keys": [], "certificates": ["spiffe://acme/ci", "ci.acme.example", "CN=ci,O=Acme"]}
JWT = {"jwt": [{"issuer": "i", "audiences": ["x"], "jwks": "file:/keys"}]}
MARK = JWTSettings(**JWT["jwt"][0]).mark


def shown(**names):
    return Verified(connection={f"connection.{kind}_peer_certificate": name for kind, name in names.items()})


def token(**claims):
    return Verified({contract.claims_key(MARK): {"iss": "i", **claims}})


@pytest.mark.parametrize(
    "names",
    [
        {"uri_san": "spiffe://acme/ci"},
        {"dns_san": "ci.acme.example", "uri_san": ""},
        {"subject": "CN=ci,O=Acme"},
        {"uri_san": "spiffe://other", "subject": "CN=ci,O=Acme"},
    ],
)
def test_a_known_certificate_is_accepted(door, names):
    entered = door(AGENT)(verified=shown(**names))
    assert (entered.consumer.name, entered.money.key) == ("agent", "agent#certificate")


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"uri_san": "spiffe://acme/ci/x"},
        {"uri_san": "ci.acme.example"},  # a name counts only in its own field
        {"dns_san": "spiffe://acme/ci"},
        {"dns_san": "CN=ci,O=Acme"},
        {"subject": "ci.acme.example"},
        {"subject": "CN=ci,O=Acme,C=X"},
        {"subject": "O=Acme,CN=ci"},
        {"uri_san": 1.0},
    ],
)
def test_another_certificate_is_refused(door, names):
    assert refusal(lambda: door(AGENT)(verified=shown(**names))) == (401, "missing_key")
    assert door(AGENT, {})(verified=shown(**names), x_api_key=KEY).consumer.name == "alice"
    assert door(AGENT, auth={"required": False})(verified=shown(**names)).consumer.name == "anonymous"


@pytest.mark.parametrize(
    ("more", "code"), [({"disabled": True}, "invalid_key"), ({"expires": "2020-01-01"}, "expired_key")]
)
def test_a_disabled_consumer_is_refused_with_every_credential(door, more, code):
    enter = door(AGENT | {"subjects": ["bob"]} | more, auth=JWT)
    for verified in (shown(uri_san="spiffe://acme/ci"), token(sub="bob")):
        assert refusal(lambda: enter(verified=verified)) == (401, code)  # noqa: B023 - called at once


def test_all_credentials_must_belong_to_one_consumer(door, monkeypatch):
    monkeypatch.setenv("AGENT", "sk-gw-agent")
    agent = AGENT | {"subjects": ["bob"], "keys": [{"env": "AGENT"}]}
    enter = door(agent, {}, auth=JWT)
    certificate, both = (
        shown(uri_san="spiffe://acme/ci"),
        replace(token(sub="bob"), connection={URI: "spiffe://acme/ci"}),
    )
    assert enter(verified=both, x_api_key="sk-gw-agent").money.key == "agent#0"
    assert enter(verified=both).money.key == "agent#jwt"
    for verified, headers in (
        (certificate, {"x_api_key": KEY}),
        (token(sub="bob"), {"x_api_key": KEY}),
        (token(sub="carol"), {"x_api_key": KEY}),
        (replace(both, token=token(sub="carol").token), {}),
        (certificate, {"x_api_key": "wrong"}),
    ):
        assert refusal(lambda: enter(verified=verified, **headers)) == (401, "invalid_key")  # noqa: B023 - called at once


def test_a_token_is_accepted_only_where_an_issuer_is_set(door):
    assert door(auth=JWT)(verified=token(sub="carol")).consumer.name == "carol"
    assert refusal(lambda: door()(verified=token(sub="carol"))) == (401, "missing_key")


def test_a_token_still_in_its_header_was_not_verified(door):
    header = JWT["jwt"][0] | {"header": "x-identity"}
    enter = door(auth={"required": False, "jwt": [header]})
    expired = Verified({contract.failure_key(JWTSettings(**header).mark): {"code": 3, "message": "Jwt is expired"}})
    assert refusal(lambda: enter(verified=expired, x_identity="a.b.c")) == (401, "expired_key")
    for value in ("", "x", KEY, "a.b.c"):
        assert refusal(lambda: enter(x_identity=value, x_api_key=KEY)) == (401, "invalid_key")  # noqa: B023 - called at once
    assert enter().consumer.name == "anonymous"


def test_an_expired_token_is_reported_as_expired_and_a_wrong_key_is_not(door):
    enter, failed = door(auth=JWT), Verified({contract.failure_key(MARK): {"code": 3, "message": "Jwt is expired"}})
    assert refusal(lambda: enter(verified=failed, authorization="Bearer a.b.c")) == (401, "expired_key")
    assert refusal(lambda: enter(verified=failed, authorization="Bearer abc")) == (401, "invalid_key")


# --- labels


def test_labels_are_named_by_the_text_after_the_prefix(door):
    labels = door()(
        x_api_key=KEY, x_ai_agent="planner", x_ai_run="7", x_other="no", x_ai_="no", x_ai_empty=""
    ).money.labels
    assert labels == {"agent": "planner", "run": "7"}


def test_the_prefix_of_labels_is_a_setting(door):
    assert door(prefix="x-acme-")(x_api_key=KEY, x_acme_a="1", x_ai_b="2").money.labels == {"a": "1"}


def test_a_consumers_own_labels_cannot_be_overridden(door):
    enter = door({"labels": {"team": "red"}})
    assert enter(x_api_key=KEY, x_ai_team="blue", x_ai_a="1").money.labels == {"team": "red", "a": "1"}


def test_labels_are_bounded_in_number_and_size(door):
    flood = {f"x_ai_{number}": "v" for number in range(1000)}
    assert len(door()(x_api_key=KEY, **flood).money.labels) == 32
    labels = door()(x_api_key=KEY, **{"x_ai_" + "n" * 10_000: "v" * 10_000}).money.labels
    assert labels == {"n" * 64: "v" * 256}
    emoji = "\N{GRINNING FACE}"
    assert door()(x_api_key=KEY, x_ai_a=f"v{emoji * 300}").money.labels == {"a": f"v{emoji * 63}"}  # of UTF-8


# --- grants

GROUPS = {"small": GroupSettings(models=["*-mini"]), "big": GroupSettings(models=["*-4o"]), "idle": GroupSettings()}
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
def test_a_model_needs_a_grant_of_consumer_and_team(models, team, model, granted):
    assert Access(TEAMS, {}).consumer(ConsumerSettings(name="a", team=team, models=models)).may_use(model) is granted


@pytest.mark.parametrize(
    ("models", "team", "groups", "granted"),
    [
        (None, None, ["small"], {"gpt-mini", "llama-mini"}),
        (None, None, ["small", "big"], {"gpt-mini", "llama-mini", "gpt-4o"}),
        (None, None, ["idle"], {"gpt-mini", "llama-mini", "gpt-4o"}),
        (None, None, ["idle", "big"], {"gpt-4o"}),
        (None, "red", ["small"], {"gpt-mini"}),
        (["gpt-*"], None, ["big"], {"gpt-4o"}),
        (["llama-mini"], "red", ["small"], set()),
    ],
)
def test_a_model_needs_a_grant_of_one_of_the_groups(models, team, groups, granted):
    who = Access(TEAMS, GROUPS).consumer(ConsumerSettings(name="a", team=team, models=models, groups=groups))
    assert who.groups == tuple(groups)
    assert {model for model in ("gpt-mini", "llama-mini", "gpt-4o") if who.may_use(model)} == granted


def authorize(exchange, model, targets, may_use):
    sent = exchange({"model": model, "messages": [{}]}, consumer=Consumer("a", may_use=may_use), targets=targets)
    Authorize()(sent)
    return sent.route.targets


BOTH = (Target("one", "a", "1"), Target("two", "b", "2"))


def test_targets_are_narrowed_to_those_granted(exchange):
    assert authorize(exchange, "v", BOTH, lambda model: model in ("v", "two")) == BOTH[1:]


@pytest.mark.parametrize("granted", [("one", "two"), ("v",), ()])
def test_a_model_without_a_granted_target_is_a_403(exchange, granted):
    assert refusal(authorize, exchange, "v", BOTH, lambda model: model in granted) == (403, "model_not_allowed")


# --- secrecy


def test_no_key_appears_in_an_exception(door):
    canary = make_key()
    for headers in ({"x_api_key": canary}, {"authorization": f"Basic {canary}"}, {"api_key": canary, "x_api_key": "b"}):
        with pytest.raises(Refusal) as refused:
            door()(**headers)
        shown = [*traceback.format_exception(refused.value), repr(refused.value), refused.value.message]
        assert canary not in "".join(shown)


def test_no_key_stays_in_memory_as_text(door, monkeypatch):
    monkeypatch.setenv("ALICE", "canary-key")
    stage = Authenticate(
        AuthSettings(),
        [ConsumerSettings(name="alice", keys=[{"env": "ALICE"}])],
        Access({}, {}),
        AttributionSettings(),
        lambda: 0.0,
    )
    assert "canary" not in repr(vars(stage))


def test_a_key_that_an_operator_made_is_its_consumers_until_it_expires_or_is_revoked(door, monkeypatch):
    monkeypatch.setenv("SECRET", "s" * 32)
    names = {"alice": {}, "carol": {"disabled": True}}

    def made(name, consumer="alice", **more):
        return IssuedKey(name, hash_key(name, "s" * 32), consumer, name, 0.0, **more)

    issued = [
        made("good"),
        made("gone", revoked=1.0),
        made("c", "carol"),
        made("d", "nobody"),
        made("short", expires=2e9),
    ]
    consumers = [{"name": name, **more, "keys": []} for name, more in names.items()]
    enter = door(*consumers, auth={"key_secret": "env:SECRET"}, issued=issued)
    found = enter(x_api_key="good")
    assert (found.consumer.name, found.money.key) == ("alice", "alice#good")
    assert enter(x_api_key="short").money.key == "alice#short"
    enter.clock.now = 2e9
    assert refusal(lambda: enter(x_api_key="short")) == (401, "expired_key")
    for name in ("gone", "c", "d"):
        assert refusal(lambda key=name: enter(x_api_key=key)) == (401, "invalid_key")

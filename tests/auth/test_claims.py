"""From the claims of a verified token to a consumer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.access.auth import Access, GroupSettings, JWTSettings, TeamSettings
from extproc.access.auth.access import Identity
from extproc.access.auth.claims import Tokens, _claim
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer

ISSUER = "https://idp.example"
ACCESS = Access(
    {"red": TeamSettings(models=["gpt-*"], labels={"division": "r"}), "blue": TeamSettings()},
    {"small": GroupSettings(models=["*-mini"]), "big": GroupSettings(models=["*-4o"]), "idle": GroupSettings()},
)
KNOWN = {"bob": Identity(Consumer("robert", labels={"tier": "gold"}), "robert#jwt")}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc.") | st.text(), inner, max_size=4),
    max_leaves=12,
)


def issuer(**settings):
    return JWTSettings(**{"issuer": ISSUER, "audiences": ["ai"], "jwks": "file:/keys"} | settings)


def tokens(*issuers):
    return Tokens(issuers, KNOWN, frozenset({"alice", "robert", "anonymous"}), ACCESS)


def identity(claims, **settings):
    entry = issuer(**settings)
    [found] = tokens(entry).find({f"claims-{entry.mark}": {"iss": ISSUER, **claims}})
    return found


def refusal(call, *arguments):
    with pytest.raises(Refusal) as refused:
        call(*arguments)
    return refused.value.kind.code, refused.value.message


@pytest.mark.parametrize(
    ("claims", "path", "expected"),
    [
        ({"sub": "a"}, "sub", "a"),
        ({"realm_access": {"roles": ["x"]}}, "realm_access.roles", ["x"]),
        ({"https://acme.example/team": "t"}, "https://acme.example/team", "t"),
        ({"https://acme.example/app": {"team": "t"}}, "https://acme.example/app.team", "t"),
        ({"a": {"b.c": {"d": 1}}}, "a.b.c.d", 1),
        ({"a.b": "whole", "a": {"b": "parts"}}, "a.b", "whole"),
        ({"a": {"x": 1}, "a.b": {"c": 2}}, "a.b.c", 2),
        ({"a": "b"}, "a.b", None),
        ({"a": ["b"]}, "a.b", None),
        ({"a": {"b": None}}, "a.b", None),
        ({"": {"": 1}}, ".", 1),
        ({}, "a", None),
        ({}, "..........", None),
    ],
)
def test_dots_in_a_claims_path_lead_into_objects(claims, path, expected):
    assert _claim(claims, path) == expected


@pytest.mark.parametrize("value", ["carol", "Zoë", "a b", "repo:acme/app:ref:refs/heads/main", "k" * 256, "é" * 128])
def test_a_claim_names_the_consumer_unchanged(value):
    found = identity({"sub": value})
    assert (found.consumer.name, found.key) == (value, f"{value}#jwt")
    assert not found.consumer.listed
    assert found.consumer.series == "other"


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", " carol", "carol\n", "car\0ol", "a\x1b[2J", "\u202egro", "k" * 257, "é" * 129, "\ufeffcarol"),
        *([], ["carol"], {}, {"name": "carol"}, True, False, 1.5, float("nan"), float("inf"), 1 << 53, -(1 << 60)),
    ],
)
def test_a_claim_that_cannot_name_a_consumer_is_refused(value):
    assert refusal(identity, {"sub": value})[0] == "invalid_key"


def test_a_whole_number_may_name_a_consumer():
    assert identity({"uid": 42}, consumer="uid").consumer.name == "42"


@pytest.mark.parametrize("name", ["alice", "robert", "anonymous"])
def test_a_token_is_no_consumer_of_the_settings_by_its_name_alone(name):
    code, message = refusal(identity, {"sub": name})
    assert code == "invalid_key"
    assert "subjects" in message
    assert identity({"sub": name}, prefix="idp:").consumer.name == f"idp:{name}"
    assert refusal(lambda: identity({"sub": name[2:]}, prefix=name[:2]))[0] == "invalid_key"


def test_a_listed_subject_is_that_consumer_and_the_settings_win():
    found = identity({"sub": "bob", "t": "iron", "c": "7"}, labels={"tier": "t", "cost": "c"}, team="team")
    assert found.consumer.name == "robert"
    assert found.consumer.labels == {"tier": "gold", "cost": "7"}
    assert found.consumer.may_use("anything")  # its grants are those of the settings
    assert identity({"sub": "b:bob"}).consumer.name == "b:bob"


def test_the_first_known_team_applies():
    assert identity({"sub": "x", "g": ["none", "blue", "red"]}, team="g").consumer.team == "blue"
    found = identity({"sub": "x", "g": "red", "d": "forged"}, team="g", labels={"division": "d"}).consumer
    assert (found.team, found.labels) == ("red", {"division": "r"})


@pytest.mark.parametrize(
    ("team", "groups", "granted"),
    [
        ("red", ["small"], {"gpt-mini"}),
        ("red", ["small", "big"], {"gpt-mini", "gpt-4o"}),
        ("blue", ["big"], {"gpt-4o", "llama-4o"}),
        ("red", ["idle"], {"gpt-mini", "gpt-4o"}),
        ("blue", ["idle"], {"gpt-mini", "gpt-4o", "llama-4o"}),
        ("red", [], set()),
        ("red", ["unknown"], set()),
        ("unknown", ["big"], set()),
        (None, ["big"], set()),
        ("red", None, set()),
        (["red"], "small", {"gpt-mini"}),
        ({"red": True}, ["big"], set()),
        ("red", {"big": 1}, set()),
    ],
)
def test_team_and_groups_grant_models_and_without_them_nothing_is_granted(team, groups, granted):
    consumer = identity({"sub": "x", "t": team, "g": groups}, team="t", groups="g").consumer
    assert {model for model in ("gpt-mini", "gpt-4o", "llama-4o") if consumer.may_use(model)} == granted


def test_without_mapped_claims_every_model_is_granted():
    assert identity({"sub": "x", "groups": []}).consumer.may_use("m")


def test_groups_are_bounded():
    many = Access({}, {f"g{number}": GroupSettings() for number in range(100)})
    entry = issuer(groups="g")
    [found] = Tokens([entry], {}, frozenset(), many).find(
        {f"claims-{entry.mark}": {"iss": ISSUER, "sub": "x", "g": [f"g{number % 100}" for number in range(10_000)]}}
    )
    assert len(found.consumer.groups) == 64


def test_labels_from_claims_are_text_of_bounded_length():
    claims = {"a": 42, "b": True, "c": "x\r\ny\0z", "d": "l" * 1000, "e": ["x"], "sub": "x"}
    labels = identity(claims, labels={name: name for name in "abcdef"}).consumer.labels
    # An empty label keeps a header from setting a label that the token lacks.
    assert labels == {"a": "42", "b": "true", "c": "xyz", "d": "l" * 256, "e": "", "f": ""}


@pytest.mark.parametrize(
    "token",
    [
        {},
        {f"claims-{issuer(audiences=['other']).mark}": {"iss": ISSUER, "sub": "x"}},
        {f"claims-{issuer().mark}": {"sub": "x"}},
        {f"claims-{issuer().mark}": {"iss": ISSUER + "/", "sub": "x"}},
        {f"claims-{issuer().mark}": "x"},
        {"claims": {"iss": ISSUER, "sub": "x"}},
        {f"failure-{issuer().mark}": {"code": 3}},
    ],
)
def test_only_claims_of_the_matching_issuer_count(token):
    assert list(tokens(issuer()).find(token)) == []


@pytest.mark.parametrize(
    ("failures", "code", "text"),
    [
        ([{"code": 3, "message": "Jwt is expired"}], "expired_key", "expired"),
        (
            [{"code": 24, "message": "not configured"}, {"code": 3, "message": "Jwt is expired"}],
            "expired_key",
            "expired",
        ),
        (
            [{"code": 3, "message": "Jwt is expired"}, {"code": 24, "message": "not configured"}],
            "expired_key",
            "expired",
        ),
        ([{"code": 25, "message": "Audiences"}, {"code": 24, "message": "not configured"}], "invalid_key", "Audiences"),
        ([{"code": 24, "message": "not configured"}], "invalid_key", "not configured"),
        ([{}], "invalid_key", "not valid"),
    ],
)
def test_a_refused_token_has_a_reason(failures, code, text):
    issuers = [issuer(issuer=f"{ISSUER}/{number}") for number in range(len(failures))]
    told = {f"failure-{entry.mark}": failure for entry, failure in zip(issuers, failures, strict=True)}
    found = refusal(tokens(*issuers).refuse, told)
    assert found[0] == code
    assert text in found[1]


def test_without_verified_claims_there_is_no_reason():
    tokens(issuer()).refuse({"failure-1": {"code": 3}, f"failure-{issuer().mark}": "x"})


@given(st.dictionaries(st.sampled_from(["sub", "a", "a.b"]) | st.text(), JSON, max_size=5))
def test_any_claims_give_a_consumer_with_a_safe_name_or_a_refusal(claims):
    try:
        found = identity(claims, team="a.b", groups="a", labels={"l": "a.b.c"}).consumer
    except Refusal:
        return
    assert found.name == "robert" or (found.name.isprintable() and 0 < len(found.name.encode()) <= 256)
    assert found.name not in ("alice", "anonymous")
    assert all(isinstance(value, str) and len(value) <= 256 for value in found.labels.values())
    assert found.team in ("", "red", "blue")

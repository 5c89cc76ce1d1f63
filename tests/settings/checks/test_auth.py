"""Errors and lints of the auth settings."""

import pytest

from extproc.access.auth import hash_key
from extproc.settings.checks import doubts
from extproc.words.values import offline

HASH = hash_key("sk-gw-one", "pepper")
JWT = "issuer: https://a, audiences: [x], jwks_uri: https://a/jwks"

BUDGET = "budgets: [{name: b, match: {consumer: t}, unit: requests, limit: 1, window: day}]"
TLS = "listener: {tls: {certificate: file:/c, key: file:/k, client_ca: file:/ca}}"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name, value in (("ONE", "sk-gw-one"), ("SAME", "sk-gw-one"), ("TWO", "sk-gw-two"), ("SALT", "pepper")):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "consumers: [{name: a, keys: [{env: ONE, name: x}, {env: TWO, name: x}]}]",
            "another key of a has the name 'x'",
        ),
        ("consumers: [{name: a, keys: [{env: ONE, name: '1'}, {env: TWO}]}]", "another key of a has the name '1'"),
        ("consumers: [{name: a, keys: [{env: ONE}]}, {name: b, keys: [{env: ONE}]}]", "consumer a has the same key"),
        ("consumers: [{name: a, keys: [{env: ONE}]}, {name: b, keys: [{env: SAME}]}]", "consumer a has the same key"),
        (
            (
                "auth: {key_secret: env:SALT}\n"
                f"consumers: [{{name: a, keys: [{{env: ONE}}]}}, {{name: b, keys: [{{hash: '{HASH}'}}]}}]"
            ),
            "consumer a has the same key",
        ),
        ("consumers: [{name: a, groups: [g]}]", "there is no group 'g' in groups"),
        ("consumers: [{name: a, subjects: [s]}, {name: b, subjects: [s]}]", "consumer a lists the same name"),
        ("consumers: [{name: a, certificates: [s]}, {name: b, certificates: [s]}]", "consumer a lists the same name"),
        ("auth: {jwt: {audiences: [x], jwks_uri: https://a}}", "auth.jwt.0.issuer: this setting is required"),
        ("auth: {jwt: {issuer: https://a, jwks_uri: https://a}}", "auth.jwt.0.audiences: this setting is required"),
        (
            "auth: {jwt: {issuer: a, audiences: [], jwks_uri: https://a}}",
            "auth.jwt.0.audiences: value should have at least 1 item",
        ),
        (
            "auth: {jwt: {issuer: '', audiences: [x], jwks_uri: https://a}}",
            "auth.jwt.0.issuer: string should have at least",
        ),
        ("auth: {jwt: {issuer: a, audiences: [x]}}", "give the issuer's keys as jwks_uri or as jwks"),
        (f"auth: {{jwt: {{{JWT}, jwks: file:/x}}}}", "give the issuer's keys as jwks_uri or as jwks"),
        ("auth: {jwt: {issuer: a, audiences: [x], jwks_uri: ftp://a}}", "jwks_uri must be https://host/path"),
        ("auth: {jwt: {issuer: a, audiences: [x], jwks_uri: https://u:p@a/}}", "jwks_uri must be https://host/path"),
        ("auth: {jwt: {issuer: a, audiences: [x], jwks_uri: 'https://a:99999/'}}", "ort out of range"),
        (f"auth: {{jwt: {{{JWT}, header: X-Token}}}}", "a header's name has lower-case letters, digits and dashes"),
        (f"auth: {{jwt: {{{JWT}, header: x-extproc-token}}}}", "clients cannot send this header: Envoy removes it"),
        (f"auth: {{jwt: {{{JWT}, clock_skew: 1h}}}}", "less than or equal to 600"),
        (f"auth: {{jwt: [{{{JWT}}}, {{{JWT}, prefix: b}}]}}", "auth.jwt.0 has the same issuer"),
        (f"auth: {{jwt: [{{{JWT}}}, {{{JWT.replace('/a', '/b')}, prefix: 'b:'}}]}}", "could name the same consumers"),
        (
            f"auth: {{jwt: [{{{JWT}, prefix: 'bc:'}}, {{{JWT.replace('/a', '/b')}, prefix: b}}]}}",
            "could name the same consumers",
        ),
        (
            "listener: {tls: {certificate: file:/c, key: file:/k, require_client_certificate: true}}",
            "require_client_certificate needs client_ca",
        ),
    ],
)
def test_contradictions_are_refused(errors, text, expected):
    [found] = errors(text)
    assert expected in found
    assert "sk-gw-one" not in found


@pytest.mark.parametrize(
    "text",
    [
        "consumers: [{name: a, keys: [{env: ONE}, {env: SAME}]}]",
        "consumers: [{name: a, keys: [{env: UNSET_FOR_SURE}]}, {name: b, keys: [{env: UNSET_TOO}]}]",
        f"auth: {{jwt: {{{JWT}}}}}",
        f"auth: {{jwt: [{{{JWT}, prefix: 'a:'}}, {{{JWT.replace('/a', '/b')}, prefix: 'b:'}}]}}",
        "groups: {g: {models: []}}\nconsumers: [{name: a, groups: [g]}]",
    ],
)
def test_valid_settings_are_accepted(errors, text):
    assert errors(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("consumers: [{name: a, keys: [{env: ONE}]}, {name: b}]", "consumers.1: has no keys, subjects or certificates"),
        ("consumers: [{name: a, subjects: [s]}]", "consumers.0.subjects: have no effect without auth.jwt"),
        ("consumers: [{name: a, certificates: [s]}]", "consumers.0.certificates: have no effect without listener.tls"),
        (
            "auth: {required: false, jwt: {issuer: a, audiences: [x], jwks_uri: http://idp.example/jwks}}",
            "auth.jwt.0.jwks_uri: http:// is not encrypted",
        ),
        (
            "auth: {required: false, jwt: {issuer: a, audiences: [x], jwks: file:/nowhere/at/all}}",
            "auth.jwt.0.jwks: this file does not exist here",
        ),
        (f"auth: {{required: false, jwt: {{{JWT}, team: groups}}}}", "auth.jwt.0.team: the settings define none"),
        (f"auth: {{required: false, jwt: {{{JWT}, groups: g}}}}", "auth.jwt.0.groups: the settings define none"),
    ],
)
def test_doubtful_settings_get_a_warning(settings, text, expected):
    [found] = [f"{'.'.join(map(str, place))}: {message}" for place, message in doubts(settings(text))]
    assert found.startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "auth: {required: false, jwt: {issuer: a, audiences: [x], jwks_uri: 'http://127.0.0.1:8000/jwks'}}",
        f"auth: {{jwt: {{{JWT}}}}}",  # no consumer has a key, but a token is enough
        f"auth: {{jwt: {{{JWT}}}}}\nconsumers: [{{name: a, models: [], subjects: [s]}}]",
        f"auth: {{jwt: {{{JWT}}}}}\n{BUDGET}",
        f"auth: {{required: true}}\nconsumers: [{{name: a, certificates: [s]}}]\n{TLS}",
    ],
)
def test_good_settings_get_no_warning(settings, text):
    with offline():  # the files are not here
        assert list(doubts(settings(text))) == []

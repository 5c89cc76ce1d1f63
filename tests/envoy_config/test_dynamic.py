"""Envoy's resources for a running Envoy, and the settings they depend on."""

import sys

import betterproto2
import msgspec
import pytest

from extproc.envoy.envoy_config.dynamic import make
from extproc.envoy.resources import Made, ResourceQuery
from extproc.settings import bound
from extproc.settings.config import parse
from extproc.wire.outbound.helper import Helper


@pytest.fixture(autouse=True)
def _not_validated(monkeypatch):
    """The messages are compared here. Other tests validate them, which takes half of the time."""
    monkeypatch.setattr(betterproto2.Message, "_validate", lambda _message: None)


BASE = """
providers: {a: {kind: openai, api_key: env:KEY}, b: {kind: mock, base_url: "http://127.0.0.1:1/v1"}}
models: {m: {provider: a}, n: {provider: b}}
"""
FREE = """
models: {m: {provider: b, timeout: 5s}}
providers:
  a: {kind: openai, api_key: env:KEY, disabled: true, cool_down: {default: 9s}}
  b: {kind: mock, base_url: "http://127.0.0.1:1/v1"}
prices: [{provider: openai, model: x, from: 2026-01-01, input: 1, output: 1}]
unknown_price: refuse
consumers: [{name: c, keys: [{env: KEY}], models: [m]}]
teams: {t: {models: [m]}}
groups: {g: {models: [m]}}
guardrails: [{name: g, kind: regex, patterns: {a: b}}]
attach: {client_headers: [x-a]}
status: {port: 9999}
admin: {port: 9998}
"""
OTHERS = (
    "listener: {port: 1234}",
    "listener: {tls: {certificate: file:/c/c.pem, key: file:/c/k.pem}}",
    "listener: {cors: {origins: ['*']}}",
    "limits: {request_body: 1MiB}",
    "limits: {stream_idle: 77s}",
    "attribution: {prefix: x-ours-}",
    "auth: {jwt: [{issuer: i, audiences: [x], jwks_uri: 'https://i.test/k'}]}",
    "budgets: [{name: b, unit: requests, limit: 1, window: day}]",
    "cache: {rules: [{}]}",
    "telemetry: {traces: {otlp: 'http://127.0.0.1:4317'}}",
    "virtual_models: {v: {targets: [{model: m}], retry: {attempts: 4, per_try_timeout: 1000s}}}",
    "processor: {workers: 3}",
)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY", "sk-x")


def parts(made: Made):
    return made.clusters, made.listeners, made.routes, made.secrets


def test_the_digest_changes_with_everything_that_changes_what_envoy_gets():
    base = parse(BASE)
    first = make(base, BASE, "/s")
    free = parse(FREE)
    assert parts(make(free, FREE, "/s")) == parts(first)
    assert bound.digest(free) == bound.digest(base) == first.digest
    for text in OTHERS:
        other = parse(BASE + text)
        assert parts(make(other, text, "/s")) != parts(first), text
        assert bound.digest(other) != first.digest, text


def test_a_changed_try_gets_a_name_of_its_own_and_the_others_keep_theirs():
    first = make(parse(BASE), BASE, "/s")
    other = make(parse(BASE.replace("127.0.0.1:1", "127.0.0.1:2")), "", "/s", first)
    new = other.places["b"]
    assert (other.places["a"], new) == ("try-a", f"try-b~{other.digests['b']}")
    stem = new.removeprefix("try-")
    assert {new, f"provider-{stem}"} <= other.clusters.keys()
    assert other.listeners["try-a"] == first.listeners["try-a"]
    keyed = make(parse(BASE.replace("kind: openai,", "kind: openai, timeout: 9s,")), "", "/s", first)
    assert f"/s/{keyed.places['a'].removeprefix('try-')}.yaml".encode() in keyed.listeners[keyed.places["a"]]


def test_the_process_that_makes_them_answers_the_same():
    text = BASE + OTHERS[6]
    ask = ResourceQuery(text, BASE + "stores: {counters: 'memory:'}", "/s", None, make(parse(BASE), BASE, "/s"))
    helper = Helper([sys.executable, "-m", "extproc.envoy.server.making"], within=60)
    made = helper.ask(msgspec.json.encode(ask))
    helper.end()
    assert msgspec.json.decode(made, type=Made) == make(parse(text), text, "/s", ask.before)

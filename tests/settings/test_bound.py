"""The parts of a change that apply while Envoy, or the process, stays as it is."""

from extproc.envoy_config.dynamic import make
from extproc.settings.bound import changes_of_fixed, digest, fixed, held_back, without_envoy
from extproc.settings.config import parse

NOW = """
providers:
  a: {kind: mock, base_url: "http://127.0.0.1:1/v1"}
  gone: {kind: mock, base_url: "http://127.0.0.1:2/v1"}
models: {m: {provider: a}, moved: {provider: gone}}
stores: {counters: "memory:"}
"""
NEXT = """
providers:
  a: {kind: mock, base_url: "http://127.0.0.1:9/v1", disabled: true}
  new: {kind: mock, base_url: "http://127.0.0.1:3/v1"}
models: {m: {provider: a, timeout: 3s}, moved: {provider: new}, fresh: {provider: new}}
listener: {port: 1234, max_connections: 7}
auth: {required: false, jwt: [{issuer: i, audiences: [x], jwks: file:/k}]}
attribution: {prefix: x-other-}
telemetry: {access_log: "off", traces: {otlp: "http://127.0.0.1:1"}, log_buffer: 1MiB}
usage: {mode: log, cost_in_response: true}
limits: {exchanges: 5}
stores: {counters: "sqlite:a.db"}
status: {port: 1}
"""


def test_what_binds_at_the_start_stays_and_the_rest_of_its_section_changes():
    now, new = parse(NOW), parse(NEXT)
    found = fixed(new, now)
    assert (found.stores, found.status) == (now.stores, now.status)
    assert (found.usage.mode, found.usage.cost_in_response) == ("body", True)
    assert (found.telemetry.access_log, found.telemetry.log_buffer) == ("off", now.telemetry.log_buffer)
    assert (found.listener.port, found.listener.max_connections) == (1234, 20_000)
    assert changes_of_fixed(new, now) == [
        *("status", "stores", "usage.mode", "listener.max_connections", "telemetry.log_buffer")
    ]
    assert changes_of_fixed(found, now) == []


def test_without_envoy_a_provider_stays_as_it_is_and_models_stay_where_envoy_can_reach_them():
    now, new = parse(NOW), parse(NEXT)
    found = without_envoy(new, now)
    a, gone = found.providers["a"], found.providers["gone"]
    assert (a.base_url, a.disabled) == ("http://127.0.0.1:1/v1", True)
    assert (gone, found.providers["new"].disabled) == (now.providers["gone"], True)
    assert {name: model.provider for name, model in found.models.items()} == {"m": "a", "moved": "gone", "fresh": "new"}
    assert found.models["m"].timeout == 3
    assert (found.listener, found.attribution) == (now.listener, now.attribution)
    assert (found.auth.required, found.auth.jwt, found.telemetry.traces) == (False, (), None)
    assert found.limits.exchanges == 5
    assert held_back(new, found) == [
        *("providers.a", "providers.new", "models.moved", "listener", "attribution", "auth.jwt", "telemetry.traces")
    ]


def test_a_change_of_rules_of_the_cache_needs_no_envoy():
    none, shadow, enforced = [
        parse(NOW + text)
        for text in ("", "cache: {rules: [{mode: shadow}]}", "cache: {rules: [{mode: enforce}, {}], wait: 1s}")
    ]
    assert digest(shadow) == digest(enforced) != digest(none)
    assert make(shadow, "", "/s").listeners == make(enforced, "", "/s").listeners != make(none, "", "/s").listeners

import json
import os
import traceback
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from extproc.settings import config, document
from extproc.settings.config import MAX_FILE, Settings, lint, load, parse
from extproc.settings.document import MAX_DEPTH, MAX_NODES, MAX_TOLD, ConfigError

WORKERS_IN_MEMORY = """stores: {counters: "memory:"}
processor: {workers: 2}
budgets: [{name: b, unit: requests, limit: 6, window: day}]"""
MINIMAL = """\
providers:
  a: {kind: mock}
models:
  m: {provider: a}
"""


def errors(text):
    with pytest.raises(ConfigError) as error:
        parse(text)
    return str(error.value).splitlines()


def added(text):
    """The errors of MINIMAL with `text` added from line 5 on."""
    return errors(MINIMAL + text)


# --- valid settings


def test_the_smallest_settings_have_defaults():
    settings = parse(MINIMAL)
    assert settings.auth.required
    assert (settings.listener.port, settings.status.port, settings.admin.port) == (10000, 9090, 9091)
    assert settings.admin.address == "127.0.0.1"
    assert settings.processor.path == "/run/extproc/extproc.sock"
    assert settings.stores.counters == "sqlite:data/counters.db"
    assert settings.limits.request_body == 20 << 20


FULL = """
listener: {address: 0.0.0.0, port: 10000, tls: {certificate: "file:/etc/tls.crt", key: "file:/etc/tls.key"}}
status:   {address: 0.0.0.0, port: 9090}
admin:    {address: 0.0.0.0, port: 9091, token: env:ADMIN_TOKEN}
processor: {socket: /run/extproc/extproc.sock}
providers:
  openai:  {kind: openai, api_key: env:OPENAI_API_KEY}
  local:   {kind: openai, base_url: "http://vllm.models.svc:8000/v1"}
  sandbox: {kind: mock}
  custom:  {kind: openai, base_url: "https://llm.example.com/v1", api_key: "file:/run/secrets/custom",
            headers: {x-org: acme}, timeout: 120s, connect_timeout: 3s, max_requests: 2000}
models:
  gpt-4o:      {provider: openai}
  llama:       {provider: local, model: meta-llama/Llama-3.3-70B-Instruct, context: 200000, max_output_tokens: 8192}
  "openai/*":  {provider: openai}
  stub:        {provider: sandbox}
virtual_models:
  assistant:
    strategy: fallback
    targets: [{model: gpt-4o}, {model: llama}, {model: openai/o3}]
    retry: {attempts: 3, on: [connect, reset, timeout, 401, 403, 408, 429, 5xx],
            per_try_timeout: 600s, per_try_timeout_stream: 60s}
auth: {required: true}
consumers:
  - {name: ci-bot, team: platform, keys: [{env: CI_BOT_KEY}], expires: 2027-01-01,
     models: [gpt-4o, "claude-*", assistant], labels: {cost_center: "42"}}
teams:
  platform: {models: ["*"]}
attribution: {prefix: x-ai-, strip: true, metrics: [agent, task]}
budgets:
  - {name: rpm, match: {}, per: [consumer], unit: requests, limit: 600, window: minute}
  - {name: tpm, match: {model: "gpt-4o*"}, per: [consumer, label.run], unit: tokens, limit: 200000, window: minute}
  - {name: month, unit: output_tokens, limit: 1000000, window: total, mode: shadow, store_failure: allow}
  - {name: team-month, match: {team: platform}, unit: usd, limit: 500, window: month, alert_at: [0.75, 0.9, 1.0]}
  - {name: per-call, unit: usd, limit: 0.50, window: call}
prices:
  - {model: gpt-4o, provider: openai, input: 2.5, cached_input: 1.25, output: 10, from: 2026-01-01}
unknown_price: warn
guardrails:
  - {name: words, kind: regex, on: [input], action: audit, patterns: {word: "(?i)word"}}
usage: {cost_in_response: true}
stores: {counters: "memory:"}
limits: {request_body: 20MiB, json_depth: 128, buffered_response: 10MiB, stream_idle: 600s}
telemetry: {access_log: stdout}
"""


def test_every_setting_can_be_set():
    settings = parse(FULL)
    assert settings.providers["custom"].timeout == 120.0
    assert settings.consumers[0].labels == {"cost_center": "42"}
    assert settings.virtual_models["assistant"].retry.on[3] == "401"
    assert settings.budgets[1].match == {"model": "gpt-4o*"}


def test_the_number_of_workers_follows_the_environment_where_stores_are_shared(monkeypatch):
    monkeypatch.setenv("EXTPROC_WORKERS", "3")
    for more, wanted in (
        ("", 3),
        ("processor: {workers: auto}", 3),
        ("processor: {workers: 2}", 2),
        ('stores: {ledger: "memory:"}', 1),
        ('stores: {counters: "memory:"}', 1),
        ("processor: {address: '127.0.0.1:9'}", 1),
    ):
        assert parse(MINIMAL + more).processor.workers == wanted, more
    monkeypatch.setenv("EXTPROC_WORKERS", "many")
    with pytest.raises(ConfigError, match="EXTPROC_WORKERS must be a number"):
        parse(MINIMAL)


def test_workers_without_budgets_may_count_in_memory():
    settings = parse(MINIMAL + 'processor: {workers: 2}\nstores: {counters: "memory:"}\n')
    assert settings.processor.sockets() == ["/run/extproc/extproc-0.sock", "/run/extproc/extproc-1.sock"]
    assert settings.processor.sockets("/x/y.sock") == ["/x/y-0.sock", "/x/y-1.sock"]


def test_on_is_a_key_and_off_is_a_word():
    settings = parse(MINIMAL + "guardrails: [{name: g, kind: regex, on: [input], patterns: {a: b}}]")
    assert list(settings.guardrails[0].on) == ["input"]
    assert parse(MINIMAL + "telemetry: {access_log: off}").telemetry.access_log == "off"
    assert parse("providers: {off: {kind: mock}}\nmodels: {yes: {provider: off}}").models["yes"].provider == "off"
    assert parse(MINIMAL + "auth: {required: off}").auth.required is False
    assert parse(MINIMAL + "auth: {required: False}").auth.required is False


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse(MINIMAL).limits.json_depth = 5


def test_the_json_schema_has_every_section():
    schema = Settings.model_json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False


# --- errors, each with its place


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listenr: {}", "5:1: listenr: there is no such setting; did you mean 'listener'?"),
        ("listener: {prt: 1}", "5:12: listener.prt: there is no such setting; did you mean 'port'?"),
        ("listener: {port: abc}", "5:12: listener.port: a whole number is expected"),
        ("listener: {port: 0}", "5:12: listener.port: input should be greater than or equal to 1"),
        ("listener: {port: 65536}", "5:12: listener.port: input should be less than or equal to 65535"),
        (
            "listener: {tls: {certificate: /a, key: 'file:/k'}}",
            "5:18: listener.tls.certificate: string should match pattern '^file:.+'",
        ),
        ("status: {port: 10000}", "5:10: status.port: port 10000 is already the port of listener"),
        ("listener: {port: 9091}", "1:1: admin.port: port 9091 is already the port of listener"),
        (
            "admin: {address: 0.0.0.0}",
            "5:1: admin: an address other than loopback needs a token: env:NAME or file:/path, or oidc",
        ),
        (
            "admin: {token: sk-canary}",
            "5:9: admin.token: a secret is a reference, env:NAME or file:/path, never the secret itself",
        ),
        ("processor: {socket: /a, address: '127.0.0.1:1'}", "5:1: processor: give socket or address, not both"),
        (
            "processor: {address: '127.0.0.1:1', transport: native}",
            "5:1: processor: the native transport needs a socket; an address is served by grpcio",
        ),
        ("processor: {socket: /" + "a" * 100 + "}", "5:1: processor: the path of a unix socket has at most 100 bytes"),
        (
            "processor: {address: '0.0.0.0:9002'}",
            "5:1: processor: an address other than loopback needs tls: the connection has no other protection",
        ),
        ("stores: {object_key: env:UNSET_FOR_SURE}", "5:10: stores.object_key: env:UNSET_FOR_SURE is not set"),
        ("auth: {key_secret: env:UNSET_FOR_SURE}", "5:8: auth.key_secret: env:UNSET_FOR_SURE is not set"),
        (
            "consumers: [{name: a b}]",
            "5:14: consumers.0.name: a name has 1 to 63 letters, digits, dots, dashes or underscores",
        ),
        ("consumers: [{name: a}, {name: a}]", "5:25: consumers.1.name: another entry has the name 'a'"),
        (
            "consumers: [{name: anonymous}]",
            "5:14: consumers.0.name: this name is reserved for requests without a credential",
        ),
        ("consumers: [{name: a, team: t}]", "5:23: consumers.0.team: there is no team 't' in teams"),
        (
            "consumers: [{name: a, keys: [{}]}]",
            "5:30: consumers.0.keys.0: give a key as one of {env: NAME}, {file: /path} or {hash: hmac-sha256:…}",
        ),
        (
            "consumers: [{name: a, keys: [{env: A, file: /b}]}]",
            "5:30: consumers.0.keys.0: give a key as one of {env: NAME}, {file: /path} or {hash: hmac-sha256:…}",
        ),
        (
            "consumers: [{name: a, keys: [{env: sk-canary}]}]",
            "5:30: consumers.0.keys.0: env must be the name of an environment variable, never the key itself",
        ),
        (
            "consumers: [{name: a, keys: [{hash: sk-canary}]}]",
            "5:31: consumers.0.keys.0.hash: string should match pattern '^hmac-sha256:[0-9a-f]{64}$'",
        ),
        (
            "consumers: [{name: a, keys: [{hash: 'hmac-sha256:" + "0" * 64 + "'}]}]",
            "5:30: consumers.0.keys.0: a hash needs auth.key_secret, the secret it was made with",
        ),
        (
            "virtual_models: {m: {targets: [{model: a/m}]}}",
            "5:18: virtual_models.m: models has an entry of this name too",
        ),
        (
            "virtual_models: {'v*': {targets: [{model: m}]}}",
            "5:18: virtual_models.v*: the name of a virtual model cannot contain *",
        ),
        (
            "virtual_models: {v: {targets: [{model: x}]}}",
            "5:33: virtual_models.v.targets.0.model: there is no model 'x' in models or virtual_models",
        ),
        (
            "virtual_models: {v: {targets: []}}",
            "5:22: virtual_models.v.targets: value should have at least 1 item after validation, not 0",
        ),
        (
            "virtual_models: {v: {targets: [{model: m}], retry: {attempts: 17}}}",
            "5:53: virtual_models.v.retry.attempts: input should be less than or equal to 16",
        ),
        (
            "budgets: [{name: b, unit: eur, limit: 1, window: day}]",
            (
                "5:21: budgets.0.unit: one of requests, tokens, input_tokens, output_tokens, usd, concurrency, "
                "tool_calls is expected"
            ),
        ),
        (
            "budgets: [{name: b, unit: tokens, limit: 0.5, window: day}]",
            "5:35: budgets.0.limit: a limit is a whole number below 4611686018427387904; only USD have decimals",
        ),
        (
            "budgets: [{name: b, unit: usd, limit: 0.0000000001, window: day}]",
            "5:32: budgets.0.limit: a limit in USD has at most nine decimals",
        ),
        (
            "budgets: [{name: b, unit: usd, limit: 50000001, window: day}]",
            "5:32: budgets.0.limit: a limit is at most 50000000 USD",
        ),
        (
            "budgets: [{name: b, unit: requests, limit: 1, window: call}]",
            "5:47: budgets.0.window: window: call is one request, so unit: requests limits nothing",
        ),
        (
            "budgets: [{name: b, unit: usd, limit: 1, window: day, alert_at: [1.5]}]",
            "5:66: budgets.0.alert_at.0: a share of the limit is at most 1: write 0.75 for 75 %",
        ),
        (
            "prices: [{model: m, input: 1, output: 1, from: soon}]",
            "5:42: prices.0.from: a date is expected: 2027-01-31",
        ),
        (
            "prices: [{model: m, input: -1, output: 1}]",
            "5:21: prices.0.input: input should be greater than or equal to 0",
        ),
        ("prices: [{model: m, input: 1}]", "5:10: prices.0.output: this setting is required"),
        (
            "budgets: [{name: b, unit: tokens, limit: -1, window: day}]",
            "5:35: budgets.0.limit: input should be greater than or equal to 0",
        ),
        (
            "budgets: [{name: b, unit: tokens, limit: 1, window: day, per: [x]}]",
            (
                "5:58: budgets.0.per: 'x' is not one of consumer, team, key, model, provider, "
                "profile, mcp_server, tool, label.<name>"
            ),
        ),
        (
            "budgets: [{name: b, unit: tokens, limit: 1, window: day, per: [label.]}]",
            (
                "5:58: budgets.0.per: 'label.' is not one of consumer, team, key, model, provider, "
                "profile, mcp_server, tool, label.<name>"
            ),
        ),
        (
            "guardrails: [{name: g, kind: regex, patterns: {a: '(b'}}]",
            "5:37: guardrails.0.patterns: a: RE2 does not know this pattern: missing ): (b",
        ),
        (
            "guardrails: [{name: g, kind: regex, patterns: {}}]",
            "5:37: guardrails.0.patterns: dictionary should have at least 1 item after validation, not 0",
        ),
        ("stores: {counters: 'redis://user:canary@host'}", None),
        ("limits: {request_body: 65MiB}", "5:10: limits.request_body: input should be less than or equal to 67108864"),
        ("limits: {json_depth: 513}", "5:10: limits.json_depth: input should be less than or equal to 512"),
        ("limits: {stream_idle: 0s}", "5:10: limits.stream_idle: must be greater than 0"),
        ("attribution: {prefix: ai}", "5:15: attribution.prefix: string should match pattern '^x-[a-z0-9-]*-$'"),
        (
            "attribution: {metrics: [a, b, c, d, e]}",
            "5:15: attribution.metrics: value should have at most 4 items after validation, not 5",
        ),
        (
            "attribution: {metrics: [a-b, a.b]}",
            "5:15: attribution.metrics: two labels would have the same name in metrics, which write - and . as _",
        ),
        ("telemetry: {access_log: file}", "5:13: telemetry.access_log: one of stdout, off is expected"),
        ("processor: {workers: 0}", "5:13: processor.workers: input should be greater than or equal to 1"),
        ("processor: {workers: 65}", "5:13: processor.workers: input should be less than or equal to 64"),
        (
            "processor: {workers: 2, address: '127.0.0.1:9'}",
            "5:1: processor: several workers need a socket: an address is one worker's",
        ),
        (
            'processor: {workers: 2}\nstores: {ledger: "memory:"}',
            "6:10: stores.ledger: memory: has the rows of one worker alone: use sqlite: or postgresql:",
        ),
        (WORKERS_IN_MEMORY, "5:10: stores.counters: memory: counts in each worker alone: use sqlite: or redis:"),
        ("usgae: {cost_in_response: true}", "5:1: usgae: there is no such setting; did you mean 'usage'?"),
        (
            "consumers: [{name: a, keys: [{evn: K}]}]",
            "5:31: consumers.0.keys.0.evn: there is no such setting; did you mean 'env'?",
        ),
        ("consumers: [{name: a, keys: [sk-1]}]", "5:30: consumers.0.keys.0: a mapping is expected: {env: …}"),
        ("prices: [5]", "5:10: prices.0: a mapping is expected: {input: …, output: …, model: …}"),
        (
            "budgets: [{name: b, per: consumer, unit: requests, limit: 1, window: day}]",
            "5:21: budgets.0.per: a list is expected: put the value in brackets, [ ]",
        ),
        (
            "budgets: [{name: b, unit: requests, limit: 1, window: day, alert_at: [75]}]",
            "5:71: budgets.0.alert_at.0: a share of the limit is at most 1: write 0.75 for 75 %",
        ),
        ("auth:\n\trequired: false", "6:1: file: not YAML: a tab; YAML is indented with spaces"),
        ("1: x", "5:1: file: 1: a key must be a string; put it in quotes"),
        ("providers: {}", "5:1: providers: this key stands here twice"),
        ("auth: {required: true, required: false}", "5:24: auth.required: this key stands here twice"),
        ("auth: {<<: {required: false}}", "5:8: auth: merge keys (<<) are not supported; repeat the settings"),
        ("auth: !!python/object/apply:os.system {args: [x]}", "5:7: auth: tags (!) are not supported"),
        ("auth: !anything {}", "5:7: auth: tags (!) are not supported"),
    ],
)
def test_an_error_has_its_place_and_reason(text, expected):
    found = added(text)
    assert "canary" not in str(found)
    assert len(found) == 1
    if expected is not None:
        assert found == [f"gateway.yaml:{expected}"]


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("{}", "kind: this setting is required"),
        ("{kind: nope}", "kind: unknown kind of provider 'nope'; there are "),
        (
            "{kind: openai, api_key: sk-canary}",
            "api_key: a secret is a reference, env:NAME or file:/path, never the secret itself",
        ),
        *(
            (
                f"{{kind: openai, base_url: '{url}'}}",
                "base_url: base_url must be http(s)://host[:port][/path], without user, query or fragment",
            )
            for url in (
                "ftp://h",
                "h",
                "https://",
                "https://user:canary@h/",
                "https://h/?k=canary",
                "https://h/#x",
                "https://h:0",
                "https://h:99999",
                "https://[::1",
            )
        ),
        ("{kind: mock, timeout: 0s}", "timeout: must be greater than 0"),
        ("{kind: mock, max_requests: 0}", "max_requests: input should be greater than or equal to 1"),
        ("{kind: mock, headers: {X-Org: a}}", "headers: 'X-Org': a header has a lower-case name and a printable value"),
        ("{kind: mock, headers: {'x y': a}}", "headers: 'x y': a header has a lower-case name and a printable value"),
        (
            '{kind: mock, headers: {x-org: "a\\r\\nb"}}',
            "headers: 'x-org': a header has a lower-case name and a printable value",
        ),
        (
            "{kind: mock, headers: {authorization: canary}}",
            "headers: the gateway sets the header 'authorization'; use base_url or api_key",
        ),
        (
            "{kind: mock, headers: {x-extproc-id: a}}",
            "headers: the header 'x-extproc-id' is reserved for the gateway and Envoy",
        ),
        (
            "{kind: mock, headers: {x-envoy-a: a}}",
            "headers: the header 'x-envoy-a' is reserved for the gateway and Envoy",
        ),
    ],
)
def test_errors_of_providers_are_found(provider, message):
    [found] = errors(f"providers:\n  p: {provider}\nmodels:\n  m: {{provider: p}}\n")
    assert "canary" not in found
    assert found.split(": ", 1)[1].startswith(f"providers.p.{message}")
    assert found.startswith("gateway.yaml:2:")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("m: {provider: q}", "4:7: models.m.provider: there is no provider 'q'"),
        (
            "m: {provider: a, api: openai_responses}",
            "4:20: models.m.api: provider 'a' serves openai_chat, openai_embeddings",
        ),
        ("'a b': {provider: a}", "4:3: models.a b: a model name has 1 to 256 printable ASCII characters and no spaces"),
        ("'a*b*': {provider: a}", "4:3: models.a*b*: a name has at most one *"),
        (
            "m: {provider: a, max_output_tokens: 0}",
            "4:20: models.m.max_output_tokens: input should be greater than or equal to 1",
        ),
        ("m: {provider: a, price: {input: 1}}", "4:20: models.m.price.output: this setting is required"),
        (
            "m: {provider: a, supports: [flight]}",
            "4:20: models.m.supports: 'flight' is not one of tools, images, files, audio, json_schema, reasoning",
        ),
        (
            "m: {provider: a, model: 'x y'}",
            "4:20: models.m.model: a model name has 1 to 256 printable ASCII characters and no spaces",
        ),
    ],
)
def test_errors_of_models_are_found(model, expected):
    assert errors(f"providers:\n  a: {{kind: mock}}\nmodels:\n  {model}\n") == [f"gateway.yaml:{expected}"]


LONG, MORE = f"{{a: {'x' * 600}}}", f"{{b: {'x' * 600}}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v: {targets: [{model: v}]}", "5:18: virtual_models.v: leads back to itself: v → v"),
        (
            "v: {targets: [{model: w, tries: 2}]}, w: {targets: [{model: m}]}",
            "5:43: virtual_models.v.targets.0.tries: only a model can have several tries, not a virtual model",
        ),
        (
            "v: {strategy: dice, targets: [{model: m}]}",
            (
                "5:22: virtual_models.v.strategy: 'dice' is not one of complexity, cost, fallback, latency, load, "
                "quality, weighted"
            ),
        ),
        (
            "v: {strategy: [weighted, cost], targets: [{model: m}]}",
            "5:22: virtual_models.v.strategy: weighted leaves no targets alike, so it can only be the last",
        ),
        (
            "v: {canary: {target: m, against: n}, targets: [{model: m}]}",
            "5:18: virtual_models.v: canary.target and canary.against are the models of two targets",
        ),
        (
            "v: {canary: {target: w, against: m}, targets: [{model: m}, {model: w}]}, w: {targets: [{model: m}]}",
            "5:31: virtual_models.v.canary.target: must be a model, not a virtual model",
        ),
        (
            "v: {objectives: {}, targets: [{model: m}]}",
            "5:22: virtual_models.v.objectives: objectives name at least one of ttft_p95, rate and cost",
        ),
        (
            "v: {strategy: weighted, targets: [{model: m, weight: 0}]}",
            "5:18: virtual_models.v: at least one target needs a weight above 0",
        ),
        ("v: {sticky: {by: key}, targets: [{model: m}]}", "5:18: virtual_models.v: sticky needs strategy: weighted"),
        (
            "v: {strategy: weighted, sticky: {by: ip}, targets: [{model: m}]}",
            "5:51: virtual_models.v.sticky.by: 'ip' is not one of consumer, team, key, prefix, label.<name>",
        ),
        (
            "v: {strategy: weighted, sticky: {by: key, ttl: 0s}, targets: [{model: m}]}",
            "5:60: virtual_models.v.sticky.ttl: must be greater than 0",
        ),
        (
            "v: {strategy: complexity, targets: [{model: m, max_complexity: 0.5}, {model: m, max_complexity: 0.4}]}",
            "5:18: virtual_models.v: max_complexity must not fall: list the weakest target first",
        ),
        (
            "v: {targets: [{model: m, match: {model: x}}]}",
            (
                "5:43: virtual_models.v.targets.0.match: 'model' is not one of consumer, team, images, tools, tokens, "
                "complexity, language, time, label.<name>"
            ),
        ),
        (
            "v: {targets: [{model: m, override: {model: x}}]}",
            "5:32: virtual_models.v.targets.0: 'model' cannot be changed by a target",
        ),
        (
            "v: {targets: [{model: m, override: {a: 2026-01-01}}]}",
            "5:32: virtual_models.v.targets.0: 2026-01-01 is not JSON; put it in quotes",
        ),
        (
            "v: {targets: [{model: m, tries: 6}]}",
            "5:43: virtual_models.v.targets.0.tries: input should be less than or equal to 5",
        ),
        (
            "v: {targets: [{model: m, weight: 1000001}]}",
            "5:43: virtual_models.v.targets.0.weight: input should be less than or equal to 1000000",
        ),
        (
            "v: {targets: [{model: m}], retry: {back_off: 6s}}",
            "5:53: virtual_models.v.retry.back_off: input should be less than or equal to 5",
        ),
        (
            f"v: {{targets: [{'{model: m}, ' * 17}]}}",
            "5:22: virtual_models.v.targets: value should have at most 16 items after validation, not 17",
        ),
        (
            f"v: {{targets: [{'{model: w}, ' * 5}]}}, w: {{targets: [{'{model: m}, ' * 13}]}}",
            "5:18: virtual_models.v: leads to more than 64 targets",
        ),
        (
            f"v: {{targets: [{{model: w, override: {LONG}}}]}}, w: {{targets: [{{model: m, default: {MORE}}}]}}",
            "5:18: virtual_models.v: the changes for 'm' have 1235 bytes of JSON, at most 1024",
        ),
    ],
)
def test_errors_of_virtual_models_are_found(text, expected):
    assert added(f"virtual_models: {{{text}}}") == [f"gateway.yaml:{expected}"]


def test_a_circle_is_reported_at_each_of_its_virtual_models():
    text = "{v: {targets: [{model: w}]}, w: {targets: [{model: m}, {model: v}]}, u: {targets: [{model: v}]}}"
    assert [line.split(": ", 1)[1] for line in added(f"virtual_models: {text}")] == [
        "virtual_models.v: leads back to itself: v → w → v",
        "virtual_models.w: leads back to itself: w → v → w",
    ]


@pytest.mark.parametrize(("depth", "fits"), [(8, True), (9, False)])
def test_the_nesting_of_virtual_models_is_limited(depth, fits):
    nested = "".join(f"v{level}: {{targets: [{{model: v{level + 1}}}]}}, " for level in range(1, depth))
    text = f"virtual_models: {{{nested}v{depth}: {{targets: [{{model: m}}]}}}}"
    if fits:
        assert len(parse(MINIMAL + text).virtual_models) == depth
    else:
        assert added(text) == ["gateway.yaml:5:18: virtual_models.v1: virtual models are nested deeper than 8"]


def test_all_errors_are_reported_at_once():
    found = added("listenr: 1\nadmin:\n  token: sk-canary\n  port: x\nbudgets:\n  - {name: b}\n")
    assert [line.split(": ")[1] for line in found] == [
        *("admin.port", "admin.token", "budgets.0.unit", "budgets.0.limit", "listenr"),
    ]


def test_all_contradictions_are_reported_at_once():
    found = errors(
        "providers: {a: {kind: mock}}\nmodels: {m: {provider: q}}\n"
        "status: {port: 9091}\nconsumers: [{name: x, team: t}]"
    )
    assert [line.split(": ")[1] for line in found] == ["models.m.provider", "consumers.0.team", "admin.port"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: providers: this setting is required", "1:1: models: this setting is required"]),
        ("- a", ["1:1: file: the file must be a mapping of settings"]),
        ("a", ["1:1: file: the file must be a mapping of settings"]),
        ("a: [", ["2:1: file: not YAML: did not find expected node content"]),
        ("a: 1\n b: 2", ["2:3: file: not YAML: mapping values are not allowed in this context"]),
        ("a: 1\n---\nb: 2", ["2:1: file: not YAML: but found another document"]),
        ("a: *b", ["1:4: file: not YAML: found undefined alias; put text that begins with * @ % or ` in quotes"]),
        ("a: \x07", ["1:1: file: not YAML: unacceptable character #x0007: control characters are not allowed"]),
        ("a: !!python/name:os.system ''", None),
        ("a: 2026-13-45", None),
        ("a: " + "9" * 5000, None),
    ],
)
def test_a_file_that_is_no_settings_yaml_is_refused(text, expected):
    found = errors(text)
    if expected is not None:
        assert found == [f"gateway.yaml:{line}" for line in expected]
    assert all(len(line) < 300 for line in found)


# --- bombs (T24)


def test_an_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert errors("\n".join(lines)) == [f"gateway.yaml:1:1: file: not YAML: more than {MAX_NODES} values"]


def test_an_alias_of_itself_is_refused():
    assert "nested deeper" in errors("a: &a [*a]")[0]


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "{a: " * 100_000, "- " * 100_000, "a: " + "[" * 65 + "]" * 65])
def test_deep_nesting_is_refused_and_does_not_end_the_process(text):
    [found] = errors(text)
    assert found.endswith(f"not YAML: nested deeper than {MAX_DEPTH} levels")


def test_too_many_values_are_refused():
    assert "more than" in errors("a: [" + "1," * (MAX_NODES + 1) + "]")[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: [" + "1," * 1_900_000 + "]",
        "{a: {b: [" + "{c: d}," * 500_000 + "]}}",
        "- x\n" * 950_000,
        "a: " + "{b: 1, b: 2, " * 60 + "c: [" + "1," * 1_000_000 + "]" + "}" * 60,
        "--- 1\n" * 600_000,
    ],
)
def test_a_file_with_too_many_values_is_read_no_further_than_the_limit(text, monkeypatch):
    """A file of 4 MB has two million of them: no node of it is made."""
    monkeypatch.setattr(yaml.CSafeLoader, "get_single_node", None)
    events = []
    parse = yaml.parse
    monkeypatch.setattr(
        yaml, "parse", lambda *given, **options: (events.append(e) or e for e in parse(*given, **options))
    )
    assert len(text) < MAX_FILE
    [found] = errors(text)
    assert f"more than {MAX_NODES} values" in found
    assert len(events) < 3 * MAX_NODES + 5


def test_keys_do_not_count_as_values(monkeypatch):
    """As many entries as values are allowed. Of many errors the first are reported."""
    monkeypatch.setattr(document, "MAX_NODES", 1000)
    text = "{" + ", ".join(f"k{number}: 1" for number in range(999)) + "}"
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert "there is no such setting" in str(refused.value)
    assert len(refused.value.problems) == MAX_TOLD
    assert str(refused.value).endswith(": and more")
    assert "more than" in errors(text.replace("k0: 1", "k0: [1]"))[0]


@pytest.mark.parametrize(("size", "message"), [(MAX_FILE, None), (MAX_FILE + 1, "the file is larger than 4MiB")])
def test_the_size_of_the_file_has_a_limit(tmp_path, size, message):
    file = tmp_path / "gateway.yaml"
    file.write_text(MINIMAL + "#" * (size - len(MINIMAL)))
    if message is None:
        load(file)
        return
    with pytest.raises(ConfigError, match=message):
        load(file)


def test_an_unreadable_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file; `extproc init` writes one"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="the file is not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_environment_variables_are_not_expanded(monkeypatch):
    monkeypatch.setenv("KIND", "mock")
    assert "unknown kind of provider" in errors("providers: {a: {kind: $KIND}}\nmodels: {m: {provider: a}}")[0]


# --- secrets


def test_a_literal_secret_does_not_appear_in_the_error():
    text = MINIMAL.replace("{kind: mock}", "{kind: openai, api_key: sk-canary}") + "admin: {token: [sk-canary]}\n"
    with pytest.raises(ConfigError) as error:
        parse(text)
    shown = [str(error.value), repr(error.value), repr(error.value.problems), *traceback.format_exception(error.value)]
    assert "sk-canary" not in "".join(shown)


def test_settings_contain_no_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    settings = parse(FULL)
    assert "sk-canary" not in repr(settings)
    assert "sk-canary" not in TypeAdapter(dict).dump_json(dict(settings), fallback=str).decode()


# --- lints


def lints(tmp_path, text):
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return [problem.show("g") for problem in lint(file)]


def test_good_settings_get_no_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("ALICE", "sk-alice")
    assert lints(tmp_path, MINIMAL + "consumers: [{name: alice, keys: [{env: ALICE}]}]") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "g:1:1: consumers: no consumer has a credential and auth.required is true: every request is refused"),
        (
            "auth: {required: false}\nconsumers: [{name: a, keys: [{env: UNSET_FOR_SURE}]}]",
            "g:6:30: consumers.0.keys.0: env:UNSET_FOR_SURE is not set: requests with this key are refused",
        ),
        (
            "auth: {required: false}\nbudgets: [{name: b, unit: tokens, limit: 1, window: day, match: {consumer: x}}]",
            "g:6:66: budgets.0.match.consumer: there is no consumer 'x': this budget never applies",
        ),
        (
            "auth: {required: false}\nbudgets: [{name: b, unit: tokens, limit: 1, window: day, match: {team: red}}]",
            "g:6:66: budgets.0.match.team: there is no team 'red': this budget never applies",
        ),
        (
            "auth: {required: false}\nbudgets: [{name: b, unit: tokens, limit: 1, window: day, store_failure: allow}]",
            "g:6:58: budgets.0.store_failure: while the store is down this budget limits nothing",
        ),
        (
            "auth: {required: false}\nbudgets: [{name: b, unit: usd, limit: 1, window: day}]",
            "g:6:11: budgets.0: the price of 'm' is unknown, so its requests count as free: give a `price`",
        ),
        (
            "auth: {required: false}\nunknown_price: refuse\nbudgets: [{name: b, unit: usd, limit: 1, window: day}]",
            "g:7:11: budgets.0: the price of 'm' is unknown, so it is skipped: give a `price`",
        ),
        (
            "auth: {required: false}\nbudgets: [{name: b, unit: tokens, limit: 1, window: day, reserve: worst}]",
            (
                "g:6:58: budgets.0.reserve: the longest answer of 'm' is unknown, so requests without a limit are "
                "capped at 4096 tokens: give a `max_output_tokens`"
            ),
        ),
        (
            "auth: {required: false}\nprices: [{model: m, provider: gone, input: 1, output: 1}]",
            "g:6:21: prices.0.provider: there is no provider 'gone': this price never applies",
        ),
    ],
)
def test_doubtful_settings_get_a_warning(tmp_path, text, expected):
    assert lints(tmp_path, MINIMAL + text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "limits: {output_tokens: 700}",
        "models: {m: {provider: a, max_output_tokens: 5}}",
        "models: {m: {provider: a, model: gpt-5}}",
        "models: {m: {provider: a, context: 9000}}",
    ],
)
def test_a_budget_that_knows_the_worst_gets_no_warning(tmp_path, text):
    budget = "budgets: [{name: b, unit: tokens, limit: 1, window: day, reserve: worst}]"
    models = "" if text.startswith("models") else "models: {m: {provider: a}}"
    lines = ["providers: {a: {kind: mock}}", models, "auth: {required: false}", budget, text]
    assert lints(tmp_path, "\n".join(lines)) == []


@pytest.mark.parametrize(
    "text",
    [
        "budgets: [{name: b, unit: usd, limit: 1, window: day, match: {provider: other}}]",
        "budgets: [{name: b, unit: usd, limit: 1, window: day, match: {model: 'gpt-*'}}]",
        "budgets: [{name: b, unit: usd, limit: 1, window: day}]\nprices: [{model: '*', input: 1, output: 1}]",
    ],
)
def test_usd_budgets_over_known_prices_get_no_warning(tmp_path, text):
    assert not any("price" in doubt for doubt in lints(tmp_path, MINIMAL + "auth: {required: false}\n" + text))


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("{kind: openai}", "g:2:3: providers.a: has no api_key: its models answer 503"),
        (
            "{kind: openai, api_key: env:UNSET_FOR_SURE}",
            "g:2:3: providers.a: env:UNSET_FOR_SURE is not set: its models answer 503",
        ),
        (
            "{kind: mock, base_url: 'http://llm.example.com/v1'}",
            "g:2:19: providers.a.base_url: http:// is not encrypted: others on the network can read keys and prompts",
        ),
        ("{kind: mock}\n  b: {kind: mock}", "g:3:3: providers.b: no model uses this provider"),
        (
            "{kind: vllm, base_url: 'http://127.0.0.1:8000'}",
            "g:2:19: providers.a.base_url: it has no path; most services of the kind vllm want http://127.0.0.1:8000/v1",
        ),
        (
            "{kind: vllm, base_url: 'http://127.0.0.1:8000/v1/chat/completions'}",
            "g:2:19: providers.a.base_url: the path of the request follows it: leave /chat/completions out",
        ),
    ],
)
def test_doubtful_providers_get_a_warning(tmp_path, provider, expected):
    text = f"providers:\n  a: {provider}\nmodels:\n  m: {{provider: a}}\nauth: {{required: false}}\n"
    assert lints(tmp_path, text) == [expected]


def test_the_settings_in_the_repository_load():
    load(Path(config.__file__).parents[2] / "gateway.yaml")


def numbers(schema, definitions, path=()):
    """Every number in the JSON Schema without an upper bound."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in path:
            yield from numbers(definitions[name], definitions, (*path, name))
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(key, ()):
            yield from numbers(one, definitions, path)
    for name, one in schema.get("properties", {}).items():
        yield from numbers(one, definitions, (*path, name))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from numbers(schema[key], definitions, path)
    if schema.get("type") in ("integer", "number") and not {"maximum", "exclusiveMaximum"} & schema.keys():
        yield ".".join(path)


def test_every_number_has_an_upper_bound():
    schema = config.Settings.model_json_schema()
    assert sorted(set(numbers(schema, schema["$defs"]))) == []


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "too large"])
def test_only_a_regular_file_of_limited_size_is_read(tmp_path, kind):
    file = {"device": Path("/dev/zero"), "folder": tmp_path}.get(kind, tmp_path / "gateway.yaml")
    if kind == "fifo":
        os.mkfifo(file)
    if kind == "too large":
        file.write_bytes(b"#" * (config.MAX_FILE + 1))
    with pytest.raises(ConfigError):
        config.load(file)
    assert len(config.content(file)) <= config.MAX_FILE + 1

"""`explain`: it agrees with the gateway, and its text is enough to act on."""

from __future__ import annotations

import json

import pytest

from extproc.cli._explain import ExplainedRequest, explain
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.pipeline import build
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.stores.memory import MemoryCounters

SETTINGS = """
providers:
  a: {kind: mock}
  b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1', timeout: 30s}
  keyless: {kind: openai, api_key: env:UNSET_FOR_SURE}
models:
  m: {provider: a, max_output_tokens: 100}
  n: {provider: b, model: vendor/n, supports: [tools]}
  small: {provider: a, context: 10}
  keyless: {provider: keyless}
  off: {provider: a, disabled: true}
  priced: {provider: a, price: {input: 1, output: 2}}
virtual_models:
  chain: {targets: [{model: m}, {model: n}]}
  split:
    strategy: weighted
    targets: [{model: m, weight: 100, override: {temperature: 0.2, stop: secret-word}}, {model: n, weight: 0}]
  again: {targets: [{model: m, tries: 2}, {model: n}], retry: {attempts: 4, on: [429, timeout], back_off: 20ms}}
  short: {targets: [{model: m}, {model: n}, {model: small}], retry: {attempts: 2}}
  picky: {targets: [{model: keyless}, {model: off}, {model: n}, {model: small}, {model: m}]}
  labelled: {targets: [{model: m, match: {label.data: public}}, {model: n}]}
  cheap: {strategy: cost, targets: [{model: priced}, {model: n}]}
  outer: {targets: [{model: cheap}, {model: chain, remove: [tools]}], retry: {attempts: 16}}
  quick: {strategy: latency, targets: [{model: m}, {model: n}]}
  stuck: {strategy: weighted, sticky: {by: key}, targets: [{model: m, weight: 50}, {model: n, weight: 50}]}
  broken: {targets: [{model: keyless}]}
auth: {required: true}
consumers:
  - {name: ci-bot, team: platform, keys: [{env: CI_KEY}], labels: {cost_center: "42"}}
  - {name: eve, keys: [{env: EVE_KEY}], models: [n, chain, split]}
  - {name: old, keys: [{env: OLD_KEY}], expires: 2020-01-01}
  - {name: shut, keys: [{env: SHUT_KEY}], disabled: true}
  - {name: keyless}
teams: {platform: {}}
"""
PRIVATE = "AKIA" + "ABCDEFGHIJKLMNOP"
GUARDED = """
guardrails:
  - {name: no-keys, kind: regex, patterns: {aws: 'AKIA[A-Z]{16}'}}
  - {name: words, kind: regex, action: audit, patterns: {word: 'blue'}}
"""
LIMITED = """
budgets:
  - {name: rpm, per: [consumer], unit: requests, limit: 5, window: minute}
  - {name: tpm, unit: tokens, limit: 5000, window: day}
  - {name: seen, unit: output_tokens, limit: 10, window: total, mode: shadow}
  - {name: others, match: {consumer: eve}, unit: requests, limit: 1, window: minute}
"""
TOO_MUCH = "too much, but shadow never refuses"
ALWAYS = "counts and findings of the running gateway: here budgets begin at zero, no target is cooling down"


def chat(model="chain", text="Hello", **fields):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}]} | fields).encode()


async def told(settings, body, text="", **question):
    """The rows of the explanation as (label, text), and whether the request is forwarded."""
    if not {"consumer", "key"} & set(question):
        question["consumer"] = "ci-bot"
    explanation = await explain(settings(SETTINGS + text), ExplainedRequest(body, **question))
    rows, label = [], ""
    for line in explanation.lines:
        label = line[:11].strip() or label
        rows.append((label, line[11:]))
    return rows, explanation.forwarded


def of(rows, label):
    return [text for name, text in rows if name == label]


def words(lines):
    return [" ".join(line.split()) for line in lines]


# --- forwarded


async def test_a_forwarded_request_is_explained(settings):
    body = chat("split", stream=True, tools=[{"type": "function"}], n=2, max_tokens=50)
    explanation = await explain(
        settings(SETTINGS + GUARDED + LIMITED), ExplainedRequest(body, consumer="ci-bot", labels={"Run": "r1"})
    )
    assert explanation.forwarded
    assert list(explanation.lines) == [
        (
            "request    split, chat, streamed, about 49 input tokens, at most 50 output tokens, 2 choices, "
            "needs tools and choices"
        ),
        "consumer   ci-bot of team platform: may use it",
        "labels     run=r1, cost_center=42",
        "strategy   split: weighted",
        "targets    1. m  a/m         weight 100, sets stream_options, temperature=0.2, stop",
        "           2. n  b/vendor/n  weight 0, sets stream_options",
        "guardrails no-keys (regex, input, block): nothing found",
        "           words (regex, input, audit): nothing found",
        "budgets    rpm (consumer=ci-bot): holds at most 1 of 5 requests per minute",
        "           tpm (shared by all): holds at most 1269 of 5000 tokens per day",
        f"           seen (shared by all): holds at most 100 of 10 output_tokens in all, {TOO_MUCH}",
        "envoy      up to 2 tries, at clusters try-a, then try-b",
        "           moves on at connect, reset, timeout, 401, 403, 408, 429, 5xx",
        "           a streamed answer must begin within 600 s",
        "           that of provider b within 30 s, its timeout",
        "           the body leaves changed",
        "           the attempt attachment changes the body of try 2",
        "           takes off x-ai-run, authorization",
        "answer     forwarded to a first",
        f"not known  {ALWAYS}",
        "           the draw: each request that is not sticky is given an order of its own, this is one of them",
    ]
    assert "secret-word" not in str(explanation)


async def test_the_part_of_the_cache_is_explained(settings):
    rules = "cache: {rules: [{match: {model: n}, mode: 'off'}, {match: {consumer: eve}}, {scope: team, mode: shadow}]}"
    stored = json.dumps({"model": "m", "input": "Hello"}).encode()
    for body, question, wanted in (
        (chat("n"), {}, "rule 1: off"),
        (chat("m"), {}, "rule 3: kept for 1h, for equal requests of team platform, of any API, plain or streamed; sh"),
        (chat(logit_bias={}), {"consumer": "eve"}, "rule 2: kept for 1h, for equal requests of consumer eve, of the"),
        (chat("m", temperature=1), {}, "rule 3: its answer is not kept: it asks for variety (`sampled`)"),
        (stored, {"path": "/v1/responses"}, "rule 3: its answer is not kept: its provider keeps the answer"),
    ):
        rows, _ = await told(settings, body, rules, **question)
        [text] = of(rows, "cache")
        assert text.startswith(wanted), text
    rows, _ = await told(settings, chat("m"))
    assert of(rows, "cache") == []


async def test_a_single_model_is_one_try(settings):
    rows, forwarded = await told(settings, chat("m"))
    assert forwarded
    assert of(rows, "strategy") == ["none: m is one model"]
    assert of(rows, "targets") == ["1. m  a/m"]
    assert of(rows, "guardrails") == of(rows, "budgets") == ["none"]
    assert of(rows, "envoy") == [
        "one try, at cluster try-a",
        "a plain answer must begin within 600 s",
        "the body leaves as the client sent it",
        "takes off authorization",
    ]
    assert of(rows, "answer") == ["forwarded to a"]
    assert of(rows, "not known") == [ALWAYS]


async def test_the_endpoints_of_pools_are_shown_in_the_order_of_the_tries(settings):
    pools = """
providers:
  llama: {kind: vllm, base_url: 'http://a:8000/v1', pool: {endpoints: ['10.0.0.7:8000', '10.0.0.8:8000']}}
  pods: {kind: vllm, base_url: 'http://b:8000/v1', pool: {service: models/vllm, scorers: {queue: 0}}}
  asked: {kind: vllm, base_url: 'http://c:8000/v1', pool: {picker: 'grpc://epp:9002'}}
models: {llama: {provider: llama}, pods: {provider: pods}, asked: {provider: asked}}
virtual_models: {v: {targets: [{model: llama}, {model: pods}, {model: asked}], retry: {attempts: 5}}}
"""
    lines = (await explain(settings(pools), ExplainedRequest(chat("v")))).lines
    shown = [line[11:] for line in lines if "score" in line or "chooses" in line]
    assert {line.partition(",")[0] for line in shown[:2]} in (
        {"llama 1. 10.0.0.7:8000", "llama 2. 10.0.0.8:8000"},
        {"llama 1. 10.0.0.8:8000", "llama 2. 10.0.0.7:8000"},
    )
    assert shown[2].startswith("pods 1. models/vllm, score ")
    assert all("running 1.00 (0 in the server)" in line for line in shown[:3])
    assert [("queue" in line) for line in shown[:3]] == [True, True, False]
    assert shown[3:] == ["asked: grpc://epp:9002 chooses"]
    assert "load and caches of the servers of pools" in lines[-1]


async def test_the_api_of_a_model_that_reasons_is_shown(settings):
    text = SETTINGS.replace("a: {kind: mock}", "a: {kind: openai, base_url: 'http://127.0.0.1:8091/v1'}")
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    for model, told in (
        ("gpt-5.4", "is made a request of openai_responses (it reasons: `api` of the model sets another)"),
        ("gpt-4o", "is made a request of openai_chat"),
        ("gpt-5.4, api: openai_chat", "is made a request of openai_chat"),
    ):
        found = settings(text.replace("{provider: a, max_output_tokens: 100}", f"{{provider: a, model: {model}}}"))
        question = ExplainedRequest(json.dumps(body).encode(), path="/v1/messages", consumer="ci-bot")
        lines = words((await explain(found, question)).lines)
        assert [line for line in lines if line.endswith(told)], lines


async def test_tries_in_a_row_and_retry_conditions_are_shown(settings):
    rows, _ = await told(settings, chat("again"))
    assert words(of(rows, "targets")) == [
        "1. m a/m place 1 in the settings",
        "2. m a/m once more, after a pause",
        "3. n b/vendor/n place 2 in the settings",
    ]
    envoy = of(rows, "envoy")
    assert "up to 3 tries, at clusters try-a, then try-b" in envoy
    assert "moves on at 429, timeout" in envoy
    assert "about 20 ms before a second try in a row at one target, doubled for each further" in envoy
    assert "the attempt attachment changes the body of try 3" in envoy


async def test_targets_that_are_skipped_or_not_tried_are_shown(settings):
    question = [{"type": "image_url", "image_url": {"url": "http://a/b"}}, {"type": "text", "text": "long " * 20}]
    rows, forwarded = await told(settings, chat("picky", question))
    assert forwarded
    assert words(of(rows, "targets")) == ["1. m a/m place 5 in the settings"]
    assert words(of(rows, "skipped")) == [
        "keyless keyless/keyless its key env:UNSET_FOR_SURE is not set",
        "off a/off it is disabled",
        "n b/vendor/n it does not support images",
        "small a/small about 63 tokens do not fit into its context of 10",
    ]
    assert "images: 1, needs images" in of(rows, "request")[0]
    assert "the gateway's environment: keys were read from this command's" in of(rows, "not known")
    rows, _ = await told(settings, b'{"model":"short","messages":[{}]}')
    assert words(of(rows, "not tried")) == ["small a/small retry.attempts is 2"]


async def test_nested_virtual_models_are_shown(settings):
    rows, _ = await told(settings, chat("outer", tools=[1], max_tokens=10))
    assert of(rows, "strategy") == ["outer: fallback", "  cheap: cost", "  chain: fallback"]
    assert words(of(rows, "targets")) == [
        "1. priced a/priced outer: place 1 in the settings, cheap: about 0.000046 USD",
        "2. n b/vendor/n outer: place 1 in the settings, cheap: its price is unknown",
        "3. m a/m outer: place 2 in the settings, chain: place 1 in the settings, removes tools",
        "4. n b/vendor/n outer: place 2 in the settings, chain: place 2 in the settings, removes tools",
    ]


async def test_a_target_reached_in_two_ways_is_shown_once(settings):
    text = "virtual_models: {one: {targets: [{model: m}]}, two: {targets: [{model: one}, {model: m}, {model: n}]}}"
    rest = "\n".join(line for line in SETTINGS.splitlines() if not line.startswith(("virtual_models", "auth")))
    rest = rest[: rest.index("  chain:")] + "auth: {required: false}\n" + text
    explanation = await explain(settings(rest), ExplainedRequest(chat("two")))
    assert any(
        line.split() == ["not", "tried", "m", "a/m", "the", "same", "as", "one", "above"] for line in explanation.lines
    )


@pytest.mark.parametrize(("label", "first"), [("public", "a"), ("private", "b")])
async def test_labels_affect_the_decision(settings, label, first):
    rows, _ = await told(settings, chat("labelled"), labels={"data": label, "cost_center": "7"})
    assert of(rows, "labels") == [f"data={label}, cost_center=42"]
    assert of(rows, "answer")[0].split()[2] == first
    assert bool(of(rows, "skipped")) == (label == "private")


async def test_facts_that_only_the_running_gateway_knows_are_named(settings):
    rows, _ = await told(settings, chat("quick"))
    assert all(text.endswith("not measured yet") for text in of(rows, "targets"))
    assert "how fast targets are: nothing is measured here" in of(rows, "not known")
    rows, _ = await told(settings, chat("stuck"))
    assert "the key in use: sticky by key is shown for the first one" in of(rows, "not known")
    assert all("sticky by key" in text for text in [*of(rows, "targets"), *of(rows, "strategy")])


async def test_embeddings_are_explained(settings):
    rows, forwarded = await told(settings, b'{"model": "m", "input": "Hello"}', path="/v1/embeddings")
    assert forwarded
    assert of(rows, "request") == ["m, embeddings, plain, about 11 input tokens"]


async def test_attach_mode_is_explained(settings):
    rows, _ = await told(settings, chat("m"), attached=True)
    assert of(rows, "envoy")[0] == "your own routes go by x-extproc-provider: a; they decide about tries and timeouts"


async def test_an_audit_guardrail_refuses_nothing(settings):
    rows, forwarded = await told(settings, chat(text="a blue bird"), GUARDED)
    assert forwarded
    assert of(rows, "guardrails")[1] == (
        "words (regex, input, audit): finds something in 'messages[0].content' and refuses nothing"
    )


# --- refused


@pytest.mark.parametrize(
    ("body", "question", "text", "answer"),
    [
        (chat(), {"path": "/v1/nowhere"}, "", ("404 path_not_found", "Classify")),
        (chat(), {"path": "/v1/models"}, "", ("405 method_not_allowed", "Classify")),
        (chat(), {"key": "sk-gw-wrong"}, "", ("401 invalid_key", "Authenticate")),
        (chat(), {"consumer": "old"}, "", ("401 expired_key", "Authenticate")),
        (chat(), {"consumer": "shut"}, "", ("401 invalid_key", "Authenticate")),
        (b"{", {}, "", ("400 invalid_json", "Parse")),
        (b"", {}, "", ("400 invalid_json", "Parse")),
        (b"[]", {}, "", ("400 invalid_request", "Parse")),
        (b'{"model": 1}', {}, "", ("400 invalid_request", "Parse")),
        (b"{" + b" " * 1024 + b"}", {}, "limits: {request_body: 1KiB}", ("413 body_too_large", "Parse")),
        (chat("nobody"), {}, "", ("404 model_not_found", "Route")),
        (chat("again"), {"consumer": "eve"}, "", ("403 model_not_allowed", "Authorize")),
        (chat("broken"), {}, "", ("503 no_provider_available", "Select")),
        (chat("n", [{"image_url": "x"}]), {}, "", ("400 unsupported_by_targets", "Select")),
        (chat(text=PRIVATE), {}, GUARDED, ("400 guardrail_blocked", "GuardInput")),
        (chat(text="x" * 6000), {}, LIMITED, ("402 budget_exceeded", "Reserve")),
        (chat(), {}, LIMITED.replace("limit: 5,", "limit: 0,"), ("429 rate_limited", "Reserve")),
    ],
)
async def test_each_refusal_is_explained(settings, body, question, text, answer):
    rows, forwarded = await told(settings, body, text, **question)
    assert not forwarded
    [said] = of(rows, "answer")
    assert said.startswith(f"{answer[0]}: ")
    assert said.endswith(f"(stage {answer[1]})")
    assert not of(rows, "envoy")
    assert "sk-gw-wrong" not in str(rows)


async def test_a_refusal_shows_the_stages_before_it(settings):
    rows, _ = await told(settings, chat("again"), consumer="eve")
    assert of(rows, "consumer") == ["eve: may not use it"]
    rows, _ = await told(settings, chat("split"), consumer="eve")
    assert words(of(rows, "skipped")) == ["m a/m consumer eve may not use it"]
    rows, _ = await told(settings, chat("broken"))
    assert words(of(rows, "skipped")) == ["keyless keyless/keyless its key env:UNSET_FOR_SURE is not set"]
    rows, _ = await told(settings, b"{")
    assert of(rows, "request") == ["/v1/chat/completions, 1 bytes"]


async def test_the_text_that_a_guardrail_found_is_not_shown(settings):
    hidden = {"metadata": {PRIVATE: PRIVATE}, PRIVATE: PRIVATE}
    for body, where in ((chat(text=f"key {PRIVATE}"), "messages[0].content"), (chat(**hidden), "…")):
        rows, _ = await told(settings, body, GUARDED)
        assert PRIVATE not in str(rows)
        assert of(rows, "guardrails") == [
            f"no-keys (regex, input, block): finds something in '{where}' and blocks it",
            "words (regex, input, audit): nothing found",
        ]
        assert where in of(rows, "answer")[0]


async def test_input_that_guardrails_cannot_read_is_reported(settings):
    rows, forwarded = await told(settings, b'{"model": "m", "input": [1, 2]}', GUARDED, path="/v1/embeddings")
    assert not forwarded
    assert of(rows, "guardrails")[1] == "words (regex, input, audit): cannot read 'input'"


# --- the consumer


async def test_a_key_selects_its_consumer(settings, monkeypatch):
    monkeypatch.setenv("EVE_KEY", "sk-gw-eve")
    rows, forwarded = await told(settings, chat("n"), key="sk-gw-eve")
    assert (of(rows, "consumer"), forwarded) == (["eve: may use it"], True)


async def test_a_consumer_without_a_credential_is_reported(settings):
    rows, _ = await told(settings, chat("m"), consumer="keyless")
    assert of(rows, "consumer")[1] == "it has no credential in the settings: no request can come from it"


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"consumer": None}, "auth.required is on: name a consumer with --consumer NAME or --key env:NAME"),
        ({"consumer": "anonymous"}, "auth.required is on"),
        ({"consumer": "nobody"}, "there is no consumer 'nobody'; there are ci-bot, eve, old, shut, keyless"),
    ],
)
async def test_a_question_without_a_valid_consumer_is_refused(settings, question, message):
    with pytest.raises(ValueError, match=message):
        await told(settings, chat(), **question)


@pytest.mark.parametrize("consumer", [None, "anonymous"])
async def test_the_consumer_is_anonymous_where_no_key_is_required(settings, consumer):
    open_door = SETTINGS.replace("required: true", "required: false")
    explanation = await explain(settings(open_door), ExplainedRequest(chat("m"), consumer=consumer))
    assert "consumer   anonymous: may use it" in explanation.lines


async def test_lines_contain_no_control_characters(settings):
    rows, _ = await told(settings, chat("\x1b[31m\u202em\n"), labels={"a": "\x1b]0;x\x07"})
    assert all(text.isprintable() for _, text in rows)


# --- agreement with the gateway


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["chain", "again", "short", "picky", "labelled", "cheap", "outer", "broken", "m"])
async def test_explain_agrees_with_the_gateway(settings, monkeypatch, model, stream):
    monkeypatch.setenv("CI_KEY", "sk-gw-ci")
    body = chat(model, stream=stream, tools=[{"type": "function"}])
    compiled = settings(SETTINGS + LIMITED)
    telemetry = Telemetry(compiled, lambda _line: None)
    gateway = GatewayStream(build(compiled, Services(MemoryCounters(), telemetry)))
    headers = {":method": "POST", ":path": "/v1/chat/completions", "authorization": "Bearer sk-gw-ci"}
    await gateway.on_request_headers(headers, end=False)
    answer = await gateway.on_request_body(body)
    rows, forwarded = await told(settings, body, LIMITED, key="sk-gw-ci")
    assert forwarded == hasattr(answer, "order")
    if forwarded:
        clusters = [f"try-{line.split('.', 1)[1].split()[1].partition('/')[0]}" for line in of(rows, "targets")]
        assert clusters == list(answer.order)
    await gateway.on_end()


MONEY = """
models: {m: {provider: a, price: {input: 1, output: 2}}}
budgets:
  - {name: month, unit: usd, limit: 500, window: month}
  - {name: call, unit: usd, limit: 0.5, window: call}
"""


async def test_money_is_shown_in_usd(settings):
    found = await explain(settings(MONEY), ExplainedRequest(chat("m", max_tokens=1000)))
    held = (len(chat("m", max_tokens=1000)) + 2000) / 1e6
    assert [line for line in found.lines if " USD " in line] == [
        f"budgets    month (shared by all): holds at most {held:f} USD of 500 USD per month",
        f"           call (shared by all): holds at most {held:f} USD of 0.5 USD per call",
    ]


async def test_a_refused_unknown_price_is_reported(settings):
    text = MONEY.replace(", price: {input: 1, output: 2}", "") + "unknown_price: refuse\n"
    found = await explain(settings(text), ExplainedRequest(chat("m")))
    assert not found.forwarded
    assert any("it needs a `price`" in line for line in found.lines)


async def test_the_limit_of_the_output_is_told(settings):
    tokens = "budgets: [{name: tpm, unit: tokens, limit: 50000, window: day}]"
    rows, _ = await told(settings, chat("n"), tokens)
    assert of(rows, "output") == ["without a limit, as the client sent it"]
    [line] = of(rows, "budgets")
    assert line.endswith("the usual output, and more while the answer streams")
    rows, _ = await told(settings, chat("n"), tokens + "\nlimits: {output_tokens: 700}")
    assert of(rows, "output") == ["n: capped at 700 tokens, and the answer says x-ai-capped: 700"]
    rows, _ = await told(settings, chat("n", max_tokens=5), tokens)
    assert of(rows, "output") == []


MEETING = """
guardrails:
  - {name: mask, kind: regex, action: mask, patterns: {word: 'blue'}}
  - {name: tell, kind: regex, action: annotate, patterns: {word: 'blue'}}
  - {name: answers, kind: regex, on: [output], patterns: {word: 'blue'}}
  - {name: others, kind: regex, patterns: {word: 'blue'}, applies_to: {models: [another]}}
"""


async def test_the_guardrails_that_a_request_meets_are_explained(settings):
    rows, forwarded = await told(settings, chat(text="it is blue"), MEETING)
    assert forwarded
    assert of(rows, "guardrails") == [
        "mask (regex, input, mask): finds something in 'messages[0].content' and masks it",
        "tell (regex, input, annotate): finds something in 'messages[0].content' and tells the client",
        "answers (regex, output, block): checks the answer",
        "others (regex, input, block): does not apply",
    ]


async def test_a_guardrail_that_asks_a_service_is_shown_and_asks_nothing(settings, monkeypatch):
    monkeypatch.setattr("extproc.wire.outbound.pool.ConnectionPool.post", lambda *_: 1 / 0)
    hook = "guardrails: [{name: hook, kind: webhook, url: 'https://hook.test/check', on: [input, output]}]"
    rows, forwarded = await told(settings, chat(), hook)
    assert forwarded
    assert of(rows, "guardrails") == [
        "hook (webhook, input and output, mask): asks https://hook.test/check; not asked here"
    ]


async def test_a_guardrail_that_fails_is_explained(settings, monkeypatch):
    monkeypatch.setattr("extproc.guardrails.regex.Regex.find", lambda *_: 1 / 0)
    rows, forwarded = await told(settings, chat(text=f"AKIA{'A' * 16}"), GUARDED)
    assert not forwarded
    assert of(rows, "guardrails")[0] == "no-keys (regex, input, block): fails, so it is refused"

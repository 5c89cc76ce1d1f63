import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.access.auth import AttributionSettings
from extproc.access.kept import Ids
from extproc.dialects import output_limits
from extproc.exchange.forward import Forward
from extproc.routing.adaptation import adapt
from extproc.routing.catalog import Catalog
from extproc.routing.parameters import compile_changes
from extproc.routing.retries import retry_headers
from extproc.settings.config import parse
from extproc.wire.framing.patch import patch
from extproc.words import contract
from extproc.words.chain import RetrySettings
from extproc.words.contract import Edit, Service
from extproc.words.exchange import Consumer, Target

SETTINGS = parse("""
providers: {a: {kind: mock}, b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1'}}
models: {m: {provider: a}}
""")
CATALOG = Catalog(SETTINGS.providers, SETTINGS.models, {})

ONE = Target("m", "a", "m")
OTHER = Target("n", "b", "vendor/n")


def target(name="m", provider="a", model="m", **changes):
    given = {"override": {}, "default": {}, "remove": ()} | changes
    return Target(name, provider, model, changes=compile_changes(**given))


def question(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields


def adapted(exchange, catalog=CATALOG):
    """The exchange as Select leaves it: each of its targets adapted to the request."""
    exchange.route.targets = tuple(adapt(each, catalog, exchange) for each in exchange.route.targets)
    return exchange


def forward(exchange, attribution=None):
    Forward(attribution or AttributionSettings(), CATALOG.providers)(adapted(exchange))
    assert exchange.route.forwarded
    return exchange.route.onward


def arrives(exchange, attempt):
    """The body that the provider of a try gets: the forwarded body, changed by the attempt attachment if it is used."""
    onward = exchange.route.onward
    body = onward.body or exchange.request.body
    attend, edits = (onward.set_headers.get(name) for name in (contract.ATTEND, contract.EDITS))
    if edits is not None and (attend == contract.ATTEND_ALL or attempt > 1):
        edit = contract.decode_edits(edits)[attempt - 1]
        body = patch(body, edit.fields, edit.removed)
    return json.loads(body)


# --- patch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e300, 1e300) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=8), JSON, max_size=6),
    st.dictionaries(
        st.sampled_from(["model", "max_tokens", "a", ""]), st.text(max_size=4) | st.integers(0, 9), max_size=3
    ),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_a_patch_sets_fields_and_keeps_the_others_byte_for_byte(body, edits, indent, ascii_only):
    before = {key: json.dumps(value, indent=indent, ensure_ascii=ascii_only) for key, value in body.items()}
    text = (
        "{" + ", ".join(f"{json.dumps(key, ensure_ascii=ascii_only)} : {value}" for key, value in before.items()) + "}"
    )
    after = patch(text.encode("utf-8", "surrogatepass"), edits)
    assert json.loads(after) == body | edits
    for key in body.keys() - edits.keys():
        assert before[key].encode() in after


@pytest.mark.parametrize("number", ["1.50", "1e3", "1E+2", "-0", "-0.0", "0.1000", "123456789012345678901234567890"])
def test_numbers_keep_their_spelling(number):
    assert patch(f'{{"model":"m","x":{{"y":[{number}]}}}}'.encode(), {"model": "n"}) == (
        f'{{"model":"n","x":{{"y":[{number}]}}}}'.encode()
    )


def test_text_keeps_its_escapes_and_order_is_kept():
    body = rb'{"b":"\u00e9\/","model":"m","a":{ "z" : 1, "y":2 }}'
    assert patch(body, {"model": "n"}) == rb'{"b":"\u00e9\/","model":"n","a":{ "z" : 1, "y":2 }}'


@given(
    st.dictionaries(st.sampled_from("abcd"), JSON),
    st.dictionaries(st.sampled_from("abce"), JSON),
    st.sets(st.sampled_from("abcf")),
)
def test_a_patch_removes_fields_even_those_it_sets(body, edits, removed):
    after = patch(json.dumps(body).encode(), edits, removed)
    assert strict(json.loads(after)) == strict(
        {key: value for key, value in {**body, **edits}.items() if key not in removed}
    )


def strict(value):
    """A comparison that tells 1, 1.0 and true apart, as JSON does and Python does not."""
    return json.dumps(value, sort_keys=True)


# --- one target, several targets


def test_one_target_of_the_same_name_leaves_the_body_unchanged(exchange):
    onward = forward(exchange(question(), targets=(ONE,)))
    assert onward.body is None
    assert onward.order == ("try-a",)
    assert onward.reroute
    assert onward.set_headers == {
        contract.ID: "id-1",
        contract.TARGETS: "m;alice",
        "x-envoy-upstream-rq-per-try-timeout-ms": "600000",
        "x-extproc-timeout": "600000",
    }


@pytest.mark.parametrize(
    "targets",
    [
        (OTHER,),
        (Target("x", "a", "vendor/n"), Target("y", "b", "vendor/n")),
        (OTHER, OTHER),
    ],
)
def test_changes_common_to_all_tries_are_made_once(exchange, targets):
    onward = forward(exchange(question(), targets=targets))
    assert json.loads(onward.body)["model"] == "vendor/n"
    assert not {contract.ATTEND, contract.EDITS} & set(onward.set_headers)
    assert onward.order == tuple(f"try-{target.provider}" for target in targets)


def test_the_body_leaves_as_the_first_target_needs_it(exchange):
    onward = forward(exchange(question(), targets=(ONE, OTHER)))
    assert onward.body is None
    assert onward.set_headers[contract.ATTEND] == contract.ATTEND_LATER
    assert contract.decode_targets(onward.set_headers[contract.TARGETS])[0] == ("m", "n")
    assert contract.decode_edits(onward.set_headers[contract.EDITS]) == [
        Edit({}, []),
        Edit({"model": "vendor/n"}, []),
    ]


def test_a_later_try_starts_from_the_clients_body(exchange):
    first = target(override={"temperature": 0, "seed": 1}, remove=["user"])
    sent = exchange(question(temperature=0.5, user="u"), targets=(first, OTHER))
    forward(sent)
    assert arrives(sent, 1) == question(temperature=0, seed=1)
    assert arrives(sent, 2) == question(temperature=0.5, user="u", model="vendor/n")


@pytest.mark.parametrize(("client", "name"), [({}, "max_completion_tokens"), ({"max_tokens": 9}, "max_tokens")])
@pytest.mark.parametrize("given", output_limits())
def test_the_output_limit_keeps_the_clients_field_name(exchange, client, name, given):
    sent = exchange(question(**client), targets=(target(override={given: 5}),))
    forward(sent)
    assert arrives(sent, 1) == question(**{name: 5})


def test_embeddings_have_no_output_limit(exchange):
    body = {"model": "m", "input": "x"}
    sent = exchange(body, path="/v1/embeddings", targets=(target(override={"max_tokens": 5, "dimensions": 8}),))
    forward(sent)
    assert arrives(sent, 1) == body | {"dimensions": 8}


def test_a_limit_that_a_budget_needs_is_written_even_if_the_target_removes_the_field(exchange):
    sent = exchange(question(max_tokens=9), targets=(target(remove=["max_tokens"]),))
    sent.money.output_limits = (100,)
    forward(sent)
    assert arrives(sent, 1) == question(max_tokens=100)


@pytest.mark.parametrize(("first", "second"), [(1, True), (False, 0), ({"a": 1}, {"a": True}), ([0], [False])])
def test_numbers_and_booleans_are_not_the_same(exchange, first, second):
    sent = exchange(question(), targets=(target(override={"logprobs": first}), target(override={"logprobs": second})))
    forward(sent)
    assert [strict(arrives(sent, attempt)["logprobs"]) for attempt in (1, 2)] == [strict(first), strict(second)]


def test_edits_that_are_too_long_restart_from_the_clients_body(exchange):
    """The second try needs the tools back, and they do not fit into a header."""
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 9000}}]
    lean = target(remove=["tools"])
    sent = exchange(question(tools=tools), targets=(lean, OTHER))
    onward = forward(sent)
    assert onward.set_headers[contract.ATTEND] == contract.ATTEND_ALL
    assert len(onward.set_headers[contract.EDITS]) < 1000
    assert onward.body is None
    assert arrives(sent, 1) == question()
    assert arrives(sent, 2) == question(tools=tools, model="vendor/n")


SHORT_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1e300, 1e300) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
LONG = st.integers(8100, 8300).map("x".__mul__)
PLAIN = ("temperature", "seed", "tools", "user")


@st.composite
def questions(draw):
    fields = draw(st.dictionaries(st.sampled_from(PLAIN), SHORT_JSON | LONG))
    limit = draw(st.none() | st.sampled_from(output_limits()[:2]))
    if limit is not None:
        fields[limit] = draw(st.none() | st.integers(1, 3))
    if draw(st.booleans()):
        fields["stream"] = draw(st.booleans())
    return question(model=draw(st.sampled_from(["m", "n", "v"])), **fields)


@st.composite
def changed_targets(draw):
    changes = {"override": {}, "default": {}, "remove": []}
    names = draw(st.lists(st.sampled_from((*PLAIN, draw(st.sampled_from(output_limits())))), unique=True))
    for name in names:
        action = draw(st.sampled_from(list(changes)))
        if action == "remove":
            changes[action].append(name)
        else:
            changes[action][name] = draw(st.integers(1, 3) if name in output_limits() else SHORT_JSON)
    return target(draw(st.sampled_from("mn")), "a", draw(st.sampled_from("mn")), **changes)


def made_for(target, limit, sent):
    """The body that a try should get, as the settings read."""
    body = dict(sent.request.json)
    for name, action, value in target.changes:
        here = sent.request.ask.output_field if name in output_limits() else name
        if action == "remove":
            body.pop(here, None)
        elif action == "set" or body.get(here) is None:
            body[here] = value
    if limit is not None:
        body[sent.request.ask.output_field] = limit
    if sent.request.ask.stream:
        body["stream_options"] = {"include_usage": True}
    return body | {"model": target.model}


@given(questions(), st.lists(st.tuples(changed_targets(), st.none() | st.integers(1, 3)), min_size=1, max_size=4))
def test_every_try_gets_the_clients_body_as_its_target_needs_it(exchange, body, tries):
    sent = exchange(body, targets=tuple(target for target, _ in tries))
    sent.money.output_limits = tuple(limit for _, limit in tries)
    forward(sent)
    for attempt, (target_, limit) in enumerate(tries, 1):
        assert strict(arrives(sent, attempt)) == strict(made_for(target_, limit, sent))


# --- number and duration of tries


def test_the_tries_follow_the_targets(exchange):
    onward = forward(exchange(question(), targets=(ONE, ONE, OTHER)))
    assert onward.order == ("try-a", "try-a", "try-b")
    assert onward.set_headers["x-envoy-max-retries"] == "2"
    assert contract.decode_targets(onward.set_headers[contract.TARGETS])[0] == ("m", "m", "n")


def test_a_single_try_has_no_retry_headers(exchange):
    headers = forward(exchange(question(), targets=(OTHER,))).set_headers
    assert not {"x-envoy-max-retries", "x-envoy-retry-on", contract.BACK_OFF, contract.ATTEND} & set(headers)


@pytest.mark.parametrize(
    ("tries", "back_off", "told"), [(2, "25ms", "25"), (2, "0s", None), (1, "25ms", None), (5, "5s", "5000")]
)
def test_further_tries_at_one_target_have_a_back_off(exchange, tries, back_off, told):
    targets = (Target("m", "a", "m", tries=tries),) * 2
    headers = forward(exchange(question(), targets=targets, retry=RetrySettings(back_off=back_off))).set_headers
    assert headers.get(contract.BACK_OFF) == told
    assert headers.get(contract.ATTEND) == (contract.ATTEND_LATER if told else None)


@pytest.mark.parametrize(("stream", "milliseconds"), [(False, "1500"), (True, "250")])
def test_the_timeout_of_a_try_depends_on_the_kind_of_answer(exchange, stream, milliseconds):
    retry = RetrySettings(per_try_timeout="1500ms", per_try_timeout_stream="250ms")
    headers = forward(exchange(question(stream=stream), retry=retry)).set_headers
    assert headers["x-envoy-upstream-rq-per-try-timeout-ms"] == milliseconds


@pytest.mark.parametrize(("stream", "milliseconds"), [(False, "900000"), (True, "900000")])
def test_a_try_may_take_as_long_as_the_slowest_target(exchange, stream, milliseconds):
    """Models that reason think for minutes before a stream begins."""
    targets = (Target("m", "a", "m", timeout=30.0), Target("n", "b", "n", timeout=900.0))
    headers = forward(exchange(question(stream=stream), targets=targets)).set_headers
    assert headers["x-envoy-upstream-rq-per-try-timeout-ms"] == milliseconds


# --- usage


@pytest.mark.parametrize(
    ("fields", "options", "hidden"),
    [
        ({"stream": True}, {"include_usage": True}, True),
        ({"stream": True, "stream_options": None}, {"include_usage": True}, True),
        ({"stream": True, "stream_options": {"x": 1}}, {"x": 1, "include_usage": True}, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, {"include_usage": True}, True),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"include_usage": True}, False),
        ({"stream": False}, None, False),
        ({}, None, False),
    ],
)
def test_usage_is_asked_for_in_streams_and_hidden_from_clients_that_did_not_ask(exchange, fields, options, hidden):
    sent = exchange(question(**fields))
    onward = forward(sent)
    assert sent.answer.usage_hidden is hidden
    assert json.loads(onward.body or sent.request.body).get("stream_options") == options


def test_embeddings_are_never_asked_for_a_stream_of_usage(exchange):
    assert forward(exchange({"model": "m", "input": "x"}, path="/v1/embeddings")).body is None


# --- headers that must not leave

SENT = {
    "authorization": "Bearer k",
    "x-api-key": "k",
    "api-key": "k",
    "x-ai-agent": "a",
    "x-acme-run": "1",
    "accept": "*/*",
}


@pytest.mark.parametrize(
    ("attribution", "removed"),
    [
        ({}, {"authorization", "x-api-key", "api-key", "x-ai-agent"}),
        ({"strip": False}, {"authorization", "x-api-key", "api-key"}),
        ({"prefix": "x-acme-"}, {"authorization", "x-api-key", "api-key", "x-acme-run"}),
    ],
)
@pytest.mark.parametrize("attached", [True, False])
def test_keys_and_labels_are_removed(exchange, attribution, removed, attached):
    sent = exchange(headers=SENT)
    sent.attached = attached
    assert set(forward(sent, AttributionSettings(**attribution)).remove_headers) == removed


def test_attach_mode_names_the_providers_in_order(exchange):
    sent = exchange(question(), targets=(ONE, Target("x", "b", "m")))
    sent.attached = True
    onward = forward(sent)
    assert (onward.set_headers, onward.order, onward.reroute) == ({contract.PROVIDER: "a,b"}, (), True)


# --- retry conditions


@pytest.mark.parametrize(
    ("conditions", "on", "statuses", "names"),
    [
        (("429",), "retriable-status-codes,retriable-headers", "429", None),
        (("401", "403"), "retriable-status-codes,retriable-headers", "401,403", None),
        (("timeout",), "reset,retriable-status-codes,retriable-headers", None, ["timeout"]),
        (
            ("reset", "timeout"),
            "reset,retriable-status-codes,retriable-headers",
            None,
            ["reset", "timeout"],
        ),
        (
            ("connect",),
            "connect-failure,refused-stream,retriable-status-codes,retriable-headers",
            None,
            ["connect", "unhealthy", "overflow", "credential", "unsupported"],
        ),
    ],
)
def test_retry_conditions_have_envoys_names(conditions, on, statuses, names):
    headers = retry_headers(conditions)
    assert headers["x-envoy-retry-on"] == on
    assert headers.get("x-envoy-retriable-status-codes") == statuses
    told = names and ",".join(f"{contract.HOP}-{name}" for name in names)
    assert headers.get("x-envoy-retriable-header-names") == told


def test_every_server_error_is_a_5xx():
    statuses = retry_headers(("5xx",))["x-envoy-retriable-status-codes"].split(",")
    assert {"500", "502", "503", "504", "529"} <= set(statuses)
    assert all(status.startswith("5") for status in statuses)


def test_all_conditions_by_default():
    headers = retry_headers(tuple(RetrySettings().on))
    assert headers["x-envoy-retriable-status-codes"].startswith("401,403,408,429,500,")


# --- headers between the attachments

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256)


def fits_into_a_header(value):
    return value.isascii() and value.isprintable()


@given(st.lists(NAMES, min_size=1, max_size=16))
def test_targets_survive_their_header(names):
    value = contract.encode_targets([Target(name, "a", "x") for name in names], names[0])
    assert fits_into_a_header(value)
    assert contract.decode_targets(value) == (tuple(names), names[0])


SERVICES = st.none() | st.builds(Service, NAMES, NAMES, NAMES, st.none() | st.integers(1, 9))
EDITS = st.builds(
    Edit, st.dictionaries(st.text(max_size=5), SHORT_JSON), st.lists(st.text(max_size=5), max_size=3), SERVICES
)


@given(st.lists(EDITS, min_size=1, max_size=4))
def test_edits_survive_their_header(edits):
    value = contract.encode_edits(edits)
    assert fits_into_a_header(value)
    assert contract.decode_edits(value) == edits


def test_characters_that_no_header_may_hold_are_escaped_in_edits():
    edits = [Edit({"\x7f": "\x7f\r\n\0é"}, ["\x7f"])]
    assert fits_into_a_header(contract.encode_edits(edits))
    assert contract.decode_edits(contract.encode_edits(edits)) == edits


@pytest.mark.parametrize("value", ["", "a", "{", "[1]", "[[1]]"])
def test_foreign_edits_are_refused(value):
    with pytest.raises((ValueError, TypeError)):
        contract.decode_edits(value)


def test_internal_headers_share_one_prefix():
    names = {value for name, value in vars(contract).items() if name.isupper() and str(value).startswith("x-")}
    assert {contract.ID, contract.TARGETS, contract.EDITS, contract.ATTEND, contract.PROVIDER, contract.HOP} <= names
    told_to_clients = {name for name in names if name.startswith(contract.TOLD)}
    of_pickers = {name for name in names if name.startswith(contract.DESTINATION)}
    for name in names - {contract.ATTEMPT_COUNT} - of_pickers - told_to_clients:
        assert name.startswith(contract.PREFIX)
        assert name == name.lower()


def test_fields_withheld_from_providers_are_removed_for_every_try(exchange):
    body = question(api_base="http://x", extra_headers={"a": "b"}, temperature=1)
    made = exchange(body, targets=(target(override={"temperature": 2}), OTHER))
    made.request.json = question(temperature=1)
    made.request.ignored = ("api_base", "extra_headers")
    forward(made)
    assert arrives(made, 1) == question(temperature=2)
    assert arrives(made, 2) == question(temperature=1) | {"model": "vendor/n"}


THEIRS = {
    ":method": "POST",
    "content-type": "application/json",
    "authorization": "Bearer sk-gw-1",
    "x-request-id": "1",
    "x-forwarded-for": "192.0.2.1",
    "openai-beta": "responses=v1",
    "openai-organization": "org-theirs",
    "x-tenant": "red",
    "x-acme-team": "red",
    "referer": "https://intern.example/",
}


@pytest.mark.parametrize(
    ("kept", "attached", "removed"),
    [
        (None, True, {"authorization"}),
        ((), True, {"authorization", "openai-beta", "openai-organization", "x-tenant", "x-acme-team", "referer"}),
        (("x-tenant", "x-acme-*", "openai-*"), True, {"authorization", "referer"}),
        ((), False, {"authorization"}),
    ],
)
def test_in_attach_mode_headers_of_clients_are_removed_unless_they_are_listed(exchange, kept, attached, removed):
    made = exchange(question(), targets=[target()], headers=THEIRS)
    made.attached = attached
    Forward(AttributionSettings(), CATALOG.providers, kept)(adapted(made))
    assert {*made.route.onward.remove_headers} >= removed - {"authorization"}
    assert {*made.route.onward.remove_headers} <= removed


# --- the key of a prefix


KEYED = parse("""
providers:
  a: {kind: openai, api_key: "env:OPENAI_KEY"}
  b: {kind: openai, api_key: "env:OTHER_KEY"}
  c: {kind: groq, api_key: "env:OPENAI_KEY"}
models: {m: {provider: a, prompt_cache: true}}
""")


def keys(exchange, monkeypatch, body, *targets, consumer="ada"):
    """The `prompt_cache_key` that each target gets."""
    for name in ("OPENAI_KEY", "OTHER_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")
    made = exchange(body, targets=targets, consumer=Consumer(consumer))
    catalog = Catalog(KEYED.providers, KEYED.models, {})
    Forward(AttributionSettings(), KEYED.providers, ids=Ids(KEYED.providers, None))(adapted(made, catalog))
    return [arrives(made, number + 1).get("prompt_cache_key") for number in range(len(targets))]


def test_a_conversation_has_a_key_of_its_consumer_and_provider_alone(exchange, monkeypatch):
    a, b, c = (Target("m", name, "m", prompt_cache=True) for name in "abc")
    first = question(tools=[{"type": "function", "function": {"name": "f"}}])
    later = first | {"messages": [*first["messages"], {"role": "assistant", "content": "Hi"}, *first["messages"]]}
    [key] = keys(exchange, monkeypatch, first, a)
    assert len(key) == 32
    assert int(key, 16)
    assert keys(exchange, monkeypatch, later, a) == [key]
    assert keys(exchange, monkeypatch, question(), a) != [key]
    [other] = keys(exchange, monkeypatch, first, a, consumer="bob")
    assert other != key
    at_a, at_b, at_c = keys(exchange, monkeypatch, first, a, b, c)
    assert (at_a, at_c) == (key, None)
    assert at_b not in (key, None)


def test_a_key_of_the_client_and_a_target_without_prompt_cache_are_left_alone(exchange, monkeypatch):
    target = Target("m", "a", "m", prompt_cache=True)
    assert keys(exchange, monkeypatch, question(prompt_cache_key="mine"), target) == ["mine"]
    assert keys(exchange, monkeypatch, question(), Target("m", "a", "m")) == [None]

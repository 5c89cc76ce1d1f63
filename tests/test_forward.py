import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc import contract
from extproc.auth import AttributionSettings
from extproc.exchange import Target
from extproc.forward import Forward, patch, retry_headers
from extproc.routing import RetrySettings

ONE = Target("m", "a", "m")
OTHER = Target("n", "b", "vendor/n")


def question(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields


def forward(exchange, attribution=None):
    Forward(attribution or AttributionSettings())(exchange)
    assert exchange.forwarded
    return exchange.onward


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


# --- one target, several targets


def test_one_target_of_the_same_name_leaves_the_body_alone(exchange):
    onward = forward(exchange(question(), targets=(ONE,)))
    assert onward.body is None
    assert onward.order == ("try-a",)
    assert onward.reroute
    assert onward.set_headers == {
        contract.ID: "id-1",
        contract.TARGETS: "m=m",
        "x-envoy-upstream-rq-per-try-timeout-ms": "600000",
        "x-extproc-timeout": "600000",
    }


def test_one_target_of_another_name_is_renamed_once(exchange):
    onward = forward(exchange(question(), targets=(OTHER,)))
    assert json.loads(onward.body)["model"] == "vendor/n"
    assert contract.TRANSLATE not in onward.set_headers


def test_targets_of_one_name_are_renamed_once(exchange):
    targets = (Target("x", "a", "same"), Target("y", "b", "same"))
    onward = forward(exchange(question(), targets=targets))
    assert json.loads(onward.body)["model"] == "same"
    assert contract.TRANSLATE not in onward.set_headers
    assert onward.order == ("try-a", "try-b")


def test_targets_of_different_names_are_renamed_in_each_try(exchange):
    onward = forward(exchange(question(), targets=(ONE, OTHER)))
    assert onward.body is None
    assert onward.set_headers[contract.TRANSLATE] == "1"
    assert contract.decode_targets(onward.set_headers[contract.TARGETS]) == [("m", "m"), ("n", "vendor/n")]


def test_the_tries_are_as_many_as_the_retry_settings_allow(exchange):
    targets = (ONE, OTHER, ONE, OTHER)
    sent = exchange(question(), targets=targets, retry=RetrySettings(attempts=2))
    onward = forward(sent)
    assert sent.order == targets[:2]
    assert onward.order == ("try-a", "try-b")
    assert onward.set_headers["x-envoy-max-retries"] == "1"


def test_only_one_try_has_no_retry_headers(exchange):
    headers = forward(exchange(question(), targets=(ONE, OTHER), retry=RetrySettings(attempts=1))).set_headers
    assert not {"x-envoy-max-retries", "x-envoy-retry-on"} & set(headers)


@pytest.mark.parametrize(("stream", "milliseconds"), [(False, "1500"), (True, "250")])
def test_a_try_has_as_long_as_its_kind_of_answer_allows(exchange, stream, milliseconds):
    retry = RetrySettings(per_try_timeout="1500ms", per_try_timeout_stream="250ms")
    headers = forward(exchange(question(stream=stream), retry=retry)).set_headers
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
def test_usage_is_asked_for_in_streams_and_hidden_from_who_did_not(exchange, fields, options, hidden):
    sent = exchange(question(**fields))
    onward = forward(sent)
    assert sent.usage_hidden is hidden
    assert json.loads(onward.body or sent.body).get("stream_options") == options


def test_embeddings_are_never_asked_for_a_stream_of_usage(exchange):
    assert forward(exchange({"model": "m", "input": "x"}, path="/v1/embeddings")).body is None


# --- what must not leave

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
        (("timeout",), "reset,retriable-status-codes,retriable-headers", None, "x-extproc-hop-timeout"),
        (
            ("reset", "timeout"),
            "reset,retriable-status-codes,retriable-headers",
            None,
            "x-extproc-hop-reset,x-extproc-hop-timeout",
        ),
        (
            ("connect",),
            "connect-failure,refused-stream,retriable-status-codes,retriable-headers",
            None,
            "x-extproc-hop-connect,x-extproc-hop-unhealthy,x-extproc-hop-overflow,x-extproc-hop-credential",
        ),
    ],
)
def test_retry_conditions_are_what_envoy_calls_them(conditions, on, statuses, names):
    headers = retry_headers(conditions)
    assert headers["x-envoy-retry-on"] == on
    assert headers.get("x-envoy-retriable-status-codes") == statuses
    assert headers.get("x-envoy-retriable-header-names") == names


def test_every_server_error_is_a_5xx():
    statuses = retry_headers(("5xx",))["x-envoy-retriable-status-codes"].split(",")
    assert {"500", "502", "503", "504", "529"} <= set(statuses)
    assert all(status.startswith("5") for status in statuses)


def test_all_conditions_by_default():
    headers = retry_headers(tuple(RetrySettings().on))
    assert headers["x-envoy-retriable-status-codes"].startswith("401,403,408,429,500,")


# --- the contract with the tries

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256)


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=16))
def test_targets_survive_their_header(pairs):
    value = contract.encode_targets([Target(name, "a", model) for name, model in pairs])
    assert value.isascii()
    assert value.isprintable()
    assert contract.decode_targets(value) == pairs


@pytest.mark.parametrize("value", ["", "a", "a=b=c", "a=b,", ",a=b"])
def test_what_was_not_made_by_it_is_refused(value):
    with pytest.raises(ValueError):
        contract.decode_targets(value)


def test_internal_headers_share_one_prefix():
    names = (contract.ID, contract.TARGETS, contract.TRANSLATE, contract.PROVIDER, contract.HOP, contract.ATTACHMENT)
    assert all(name.startswith(contract.PREFIX) and name == name.lower() for name in names)

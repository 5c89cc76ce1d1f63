"""The contract of every dialect. A new dialect is found and tested by itself."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.dialects import _checked, by_path, client_apis, provider_apis, rates
from extproc.wire.framing import Frame
from extproc.words.api import ClientAPI, ProviderAPI, Replies
from extproc.words.dialect import PLACE, Ask, Endpoint, Report
from extproc.words.errors import ALL, Refusal
from extproc.words.messages import Started, Used
from tests.dialects.shapes import SHAPES
from tests.samples import examples

CLIENTS, PROVIDERS = client_apis(), provider_apis()
SPOKEN = [
    *(name for name, dialect in CLIENTS.items() if dialect.family != "kept"),
    "example",
]  # by clients
each = pytest.mark.parametrize("dialect", SPOKEN, indirect=True)
few = settings(max_examples=examples(40))  # of each dialect


@pytest.fixture(scope="module")
def dialect(request, example_dialect):
    """A dialect that clients use. In `example` the path names the model."""
    return client_apis()[request.param]


def read(dialect, body):
    pattern, operation = next(iter(dialect.endpoints.paths.items()))
    return dialect.read(body, Endpoint(pattern, operation, "in-the-path" if PLACE in pattern else ""))


FIELDS = [
    *("model", "messages", "input", "prompt", "stream", "n", "max_tokens", "max_completion_tokens", "stream_options"),
    *("role", "content", "type", "text", "image_url", "url", "tool_calls", "function", "arguments", "include_usage"),
    *("choices", "delta", "message", "usage", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "index"),
    *("image_url", "file", "file_data", "input_audio", "data", "source", "output", "result", "file_id", "extra_body"),
    *("container", "conversation", "previous_response_id", "web_search_options", "audio", "encrypted_content", "id"),
    *(
        "contents",
        "parts",
        "finish_reason",
        "error",
        "cached_tokens",
        "completion_tokens_details",
        "reasoning_tokens",
        "system",
        "tools",
    ),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(-1e300, 1e300),
    st.sampled_from(["", "m", "data:x", "user", "stop", "5", "data:image/png;base64,AAAA", "input_image", "image"]),
    st.sampled_from(["base64", "input_file", "image_url", "document", "web_search", "reasoning", "http://x/y.png"]),
    st.text(max_size=4),
)
JSON = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), JSON, max_size=8)
LIKELY = OBJECTS.map(
    lambda rest: {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "input": "x",
        "contents": [{"role": "user", "parts": [{"text": "x"}]}],
        **rest,
    }
)


def test_prefixes_of_rate_limits_have_one_order():
    """Another order would be another listener for Envoy, and its connections would be drained."""
    assert rates() == tuple(
        dict.fromkeys(dialect.able.rates for dialect in provider_apis().values() if dialect.able.rates)
    )


def test_paths_are_unique_and_versioned():
    each = [dialect.endpoints for dialect in CLIENTS.values()]
    assert all(endpoints.version for endpoints in each if endpoints.marked)
    paths = [path for endpoints in each if not endpoints.marked for path in endpoints.paths]
    assert len(set(paths)) == len(paths)
    assert all(re.match(r"(/upload)?/v\d\w*/", path) and "?" not in path for path in paths)
    assert all(path.count("{") == path.count(PLACE) <= 1 for path in paths)
    assert set(by_path()) == set(paths)


@pytest.mark.parametrize(("name", "dialect"), [*CLIENTS.items(), *PROVIDERS.items()])
def test_a_dialect_is_named_after_its_module(name, dialect):
    assert dialect.name == name


def test_mypy_compares_each_dialect_with_its_protocols():
    for group, found in (("CLIENTS", CLIENTS), ("PROVIDERS", PROVIDERS)):
        listed = re.search(rf"{group}: .*? = \[(.*?)\]", Path(_checked.__file__).read_text(), re.DOTALL)[1]
        assert [name.strip().removesuffix(".CLIENT") for name in listed.split(",")[:-1]] == sorted(found)
    for protocol in (ClientAPI, ProviderAPI, Replies):
        assert len([name for name in {*vars(protocol), *protocol.__annotations__} if name[0] != "_"]) <= 15


@each
@few
@given(body=OBJECTS | LIKELY)
def test_any_request_is_read_or_refused(dialect, body):
    try:
        ask = read(dialect, body)
    except Refusal as refusal:
        refused = refusal
    else:
        refused = None
    if refused is not None:
        assert refused.kind.status == 400
        assert len(refused.message) < 1000
        return
    assert isinstance(ask, Ask)
    assert ask.model == body.get(dialect.fields.model, getattr(dialect, "usual_model", "in-the-path"))
    assert type(ask.stream) is bool
    assert 1 <= ask.choices <= 128
    assert ask.max_output_tokens is None or 1 <= ask.max_output_tokens <= 10**9
    assert 0 <= ask.image_bytes <= len(json.dumps(body))
    assert sum(map(len, ask.image_data)) == ask.image_bytes
    assert len(ask.image_data) <= ask.images
    assert 1601 * ask.images <= ask.image_tokens <= 39_200 * ask.images
    assert len(ask.unseen) <= 8
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,40}", name) for name in ask.unseen)  # safe in a message
    assert set(ask.unbounded) <= set(ask.unseen)
    assert set(ask.needs.values()) <= set(body)  # each need names its field
    assert all(field in dialect.fields.needs[need] for need, field in ask.needs.items())
    if dialect.fields.output_limits:
        assert dialect.offers.thinking(body) == ask.thinking
    # A request that was read can be scanned, and asked for usage.
    assert all(isinstance(text.value, str) for text in dialect.texts(body))
    json.dumps(dialect.offers.usage_request(body))


@each
@pytest.mark.parametrize("model", [None, 1, 1.5, True, [], ["m"], {}, {"m": 1}, ""])
def test_a_model_is_a_string(dialect, model):
    with pytest.raises(Refusal) as refused:
        dialect.read({"model": model, "messages": [{}], "input": "x", "contents": [{}]})
    assert (refused.value.kind.status, refused.value.param) == (400, "model")


def all_strings(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [found for item in value for found in all_strings(item)] if not isinstance(value, int | float | None) else []


@each
@few
@given(body=LIKELY)
def test_every_text_is_found_once(dialect, body):
    try:
        read(dialect, body)
    except Refusal:
        return
    without = {key: value for key, value in body.items() if key != dialect.fields.model}
    known = {
        "openai_chat": ("system", "developer", "user", "assistant", "tool", "function"),
        "anthropic_messages": ("system", "user", "assistant"),
        "anthropic_count_tokens": ("system", "user", "assistant"),
    }.get(dialect.name)
    if dialect.name in ("gemini_generate_content", "gemini_count_tokens"):
        without["contents"] = [
            {key: value for key, value in turn.items() if key != "role" or value not in ("user", "model", "function")}
            for turn in body["contents"]
        ]
    if known:
        without["messages"] = [
            {key: value for key, value in message.items() if key != "role" or value not in known}
            for message in body["messages"]
        ]
    assert sorted(text.value for text in dialect.texts(body)) == sorted(all_strings(without))


@each
def test_the_smallest_request_is_read(dialect):
    ask, said = read(dialect, body := dialect.smallest("m")), dialect.conversation(body)
    assert (ask.model, ask.stream, said.asked) == (body.get(dialect.fields.model, "in-the-path"), False, ["Hello"])
    assert said.turns <= 1


@each
@few
@given(body=OBJECTS | LIKELY)
def test_a_conversation_is_read_from_any_body(dialect, body):
    said = dialect.conversation(body)
    assert all(isinstance(text, str) for text in (*said.asked, *said.system, *(said.result or ())))
    assert 0 <= said.turns <= 10
    assert type(said.shaped) is bool


@each
@few
@given(body=LIKELY)
def test_editing_a_text_edits_the_body(dialect, body):
    try:
        read(dialect, body)
    except Refusal:
        return
    places = set()
    for number, text in enumerate(list(dialect.texts(body))):
        text.holder[text.key] = f"edited {number}"
        places.add(text.where)
        assert text.value == f"edited {number}"
        assert f"edited {number}" in all_strings(body)


@each
@few
@given(
    data=st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | OBJECTS.map(lambda v: json.dumps(v).encode())
)
def test_any_answer_is_read(dialect, data):
    report = Report()
    assert dialect.observe(data, report) in (True, False)
    if report.usage is not None:
        assert 0 <= report.usage.input_tokens <= 10**9
        assert 0 <= report.usage.output_tokens <= 10**9
        assert 0 <= report.usage.cached_tokens <= report.usage.input_tokens
        assert 0 <= report.usage.reasoning_tokens <= report.usage.output_tokens
    assert report.output_bytes >= 0
    assert len(report.finish_reasons) <= 128
    # The same is read where another stage has parsed the event already.
    shared = Report()
    dialect.observe(data, shared, Frame(data, data).parse())
    assert replace(shared, memory=None) == replace(report, memory=None)


@each
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[DONE]",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"error":' * 5000,
        b'{"choices":null}',
        b'{"model":"\\ud800"}',
        b'{"usage":{"prompt_tokens":1e400}}',
        b'{"choices":[{"index":' + b"9" * 400 + b"}]}",
        b"\xff\xfe",
    ],
)
def test_known_oddities_are_read(dialect, data):
    dialect.observe(data, Report())


# --- usage: one reader for answers that pass through and answers that are translated

TELLING = {
    name: dialect
    for name, dialect in {**PROVIDERS, **CLIENTS}.items()
    if dialect.family not in ("count_tokens", "kept") and name != "ocr"  # its answers count pages, no tokens
}
BOTH_WAYS = [name for name in CLIENTS if name in PROVIDERS]
CHANGED = [shape for shape in SHAPES if shape.dialect in BOTH_WAYS]


@pytest.mark.parametrize("dialect", TELLING.values(), ids=TELLING)
def test_the_table_of_usage_shapes_has_each_api(dialect):
    """`usage_shapes.json` has a streamed shape too where the API streams."""
    found = [shape for shape in SHAPES if shape.dialect == dialect.name]
    assert any(not shape.events for shape in found)
    assert dialect.family in ("embeddings", "passed", "compaction") or any(shape.events for shape in found)


def leaves(value, *, inside=False):
    """Each place of a plain value inside an object called usage."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        within = inside or "usage" in str(key).lower()
        if isinstance(item, dict | list):
            yield from leaves(item, inside=within)
        elif within:
            yield value, key


@given(st.sampled_from(CHANGED), st.integers(0), VALUES | st.integers(0, 2000))
def test_both_paths_read_the_same_usage(shape, number, value):
    dialect, api, report = CLIENTS[shape.dialect], PROVIDERS[shape.dialect], Report()
    said = deepcopy([shape.answer] if shape.answer is not None else list(shape.events))
    places = list(leaves(said))
    holder, key = places[number % len(places)]
    holder[key] = value
    payloads = [event.encode() if isinstance(event, str) else json.dumps(event).encode() for event in said]
    for payload in payloads:
        dialect.observe(payload, report)
    if shape.answer is not None:
        usage = api.decode_answer(payloads[0]).usage
    else:
        decoder, usage = api.decoder(), None
        for event in (event for payload in payloads for event in decoder.feed(payload, "")):
            usage = (event.usage if isinstance(event, Started | Used) else None) or usage
    assert report.usage in (usage, usage and replace(usage, source="estimated"))


@each
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.code)
def test_every_refusal_has_a_shape(dialect, kind):
    body = json.loads(json.dumps(dialect.replies.error(kind, "what is wrong", "model")))
    assert "what is wrong" in json.dumps(body)
    assert kind.code in json.dumps(body)

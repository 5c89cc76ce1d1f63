import base64
import json
import struct

import pytest
from hypothesis import given as whatever
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from extproc.dialects import client_apis
from extproc.words.dialect import Report
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings, Problem

EMBEDDINGS = client_apis()["openai_embeddings"]


@pytest.mark.parametrize(
    ("given", "unreadable"),
    [
        ("text", ""),
        (["a", "b"], ""),
        ([1, 2, 3], "input"),
        ([[1, 2], [3]], "input"),
        (["a", [1]], "input"),
        ([{"image": "x"}], "input"),
    ],
)
def test_input_as_tokens_is_reported_as_unreadable_for_guardrails(given, unreadable):
    ask = EMBEDDINGS.read({"model": "m", "input": given})
    assert (ask.unreadable, ask.output_field, ask.stream) == (unreadable, None, False)


@pytest.mark.parametrize(
    ("given", "unseen"), [("text", ()), (["a"], ()), ([[1]], ()), ([{"image": "https://x/y.png"}], ("input",))]
)
def test_input_given_by_reference_is_found(given, unseen):
    assert EMBEDDINGS.read({"model": "m", "input": given}).unseen == unseen


@pytest.mark.parametrize("given", [None, "", [], {}, 1, True])
def test_the_input_must_be_text_or_a_list(given):
    with pytest.raises(Refusal) as refused:
        EMBEDDINGS.read({"model": "m", "input": given})
    assert refused.value.param == "input"


@pytest.mark.parametrize(
    "body",
    [
        {"input": "CANARY"},
        {"input": ["x"] * 999 + ["CANARY"]},
        {"input": "x", "user": "CANARY"},
        {"input": "x", "invented": {"a": ["CANARY"]}},
    ],
)
def test_text_is_found_in_every_form_of_input(body):
    sent = {"model": "m"} | body
    [text] = [text for text in EMBEDDINGS.texts(sent) if text.value == "CANARY"]
    text.holder[text.key] = "masked"
    assert "CANARY" not in json.dumps(sent)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0)),
        ({"prompt_tokens": 8, "completion_tokens": 0}, Usage(8, 0)),
        ({"total_tokens": 8}, None),
        ({"prompt_tokens": -8}, None),
        ({"prompt_tokens": "8"}, None),
        ({"prompt_tokens": 8.0}, None),
        ({"prompt_tokens": 10**18}, None),
        ({"prompt_tokens": None}, None),
    ],
)
def test_usage_is_read(usage, expected):
    report = Report()
    assert EMBEDDINGS.observe(json.dumps({"model": "e-1", "data": [], "usage": usage}).encode(), report) is False
    assert (report.usage, report.usage_refused, report.model) == (expected, expected is None, "e-1")


# --- from a client


def decode(**fields):
    return EMBEDDINGS.translation.decode_request({"model": "m", "input": "a"} | fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_the_four_forms_of_input_are_read(given, expected):
    assert decode(input=given) == EmbeddingPrompt("m", expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dimensions": 256}, {"dimensions": 256}),
        ({"dimensions": None, "encoding_format": None, "user": None}, {}),
        ({"encoding_format": "float"}, {}),
        ({"encoding_format": "base64"}, {"encoding": "base64"}),
        ({"user": "u"}, {"user": "u"}),
        ({"input_type": "query"}, {"purpose": "search_query"}),
        ({"input_type": "passage"}, {"purpose": "search_document"}),
        ({"input_type": "clustering"}, {"purpose": "clustering"}),
        ({"input_type": "invented"}, {"ignored": ["input_type"]}),
        ({"input_type": ["query"]}, {"ignored": ["input_type"]}),
        ({"truncate": "END", "a,b": 1, "stream": False, "x": None}, {"ignored": ["other", "truncate"]}),
    ],
)
def test_settings_are_read(fields, expected):
    assert decode(**fields) == EmbeddingPrompt("m", ["a"], **expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("input", value)
            for value in (None, "", [], {}, 7, [""], ["a", ""], ["a", [1]], [[1], "a"], [[]], [[1], []])
        ),
        *(("input", value) for value in ([-1], [True], [1, True], [1.5], [1, "a"], [[1, "a"]], [{"a": 1}], [None])),
        *(("dimensions", value) for value in (0, -1, 1.5, "8", True, 10**12)),
        *(("encoding_format", value) for value in ("int8", 7, ["float"], {})),
        *(("user", value) for value in (7, ["u"], {})),
        *(("model", value) for value in (None, "", 7)),
    ],
)
def test_invalid_shapes_are_refused(field, value):
    with pytest.raises(Refusal) as refused:
        decode(**{field: value})
    assert refused.value.kind is INVALID_REQUEST
    assert refused.value.param == field


# --- for a client


def test_an_answer_is_written():
    answer = EMBEDDINGS.translation.encode_answer(Embeddings([[0.5, -1], [2.0, 0]], "e-1", Usage(7)))
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1]},
            {"object": "embedding", "index": 1, "embedding": [2.0, 0]},
        ],
        "model": "e-1",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    CreateEmbeddingResponse.model_validate(answer, strict=True)
    report = Report()
    EMBEDDINGS.observe(json.dumps(answer).encode(), report)
    assert report.usage == Usage(7, 0)


def test_an_answer_without_a_count_reports_none():
    report = Report()
    EMBEDDINGS.observe(json.dumps(EMBEDDINGS.translation.encode_answer(Embeddings([[0.5]]))).encode(), report)
    assert (report.usage, report.usage_refused) == (None, False)


def test_vectors_can_be_written_as_base64():
    answer = EMBEDDINGS.translation.encode_answer(Embeddings([[0.5, -1.0, 3e38], []], encoding="base64"))
    first, second = (base64.b64decode(item["embedding"]) for item in answer["data"])
    assert struct.unpack("<3f", first) == pytest.approx((0.5, -1.0, 3e38))
    assert second == b""


def test_an_error_is_written():
    assert EMBEDDINGS.translation.encode_problem(429, Problem("Slow.", "rate_limit_error", "busy")) == {
        "error": {"message": "Slow.", "type": "rate_limit_error", "param": None, "code": "busy"}
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-9, 9) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["model", "input", "dimensions", "encoding_format", "user", "input_type"])


@whatever(st.dictionaries(NAMES | st.text(max_size=3), JSON, max_size=6))
def test_any_request_is_read_or_refused(body):
    for asked in (body, {"model": "m", "input": ["a"]} | body):
        try:
            prompt = EMBEDDINGS.translation.decode_request(asked)
        except Refusal:
            continue
        assert prompt.input
        assert all(name.isascii() and "," not in name for name in prompt.ignored)

import json

import pytest

from extproc.dialects import Report, dialects
from extproc.errors import Refusal
from extproc.exchange import Usage

EMBEDDINGS = dialects()["openai_embeddings"]


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
def test_tokens_are_input_that_no_guardrail_can_read(given, unreadable):
    ask = EMBEDDINGS.read({"model": "m", "input": given})
    assert (ask.unreadable, ask.output_field, ask.stream) == (unreadable, None, False)


@pytest.mark.parametrize("given", [None, "", [], {}, 1, True])
def test_input_is_text_or_a_list(given):
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
def test_text_is_seen_wherever_it_is(body):
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
def test_usage(usage, expected):
    report = Report()
    assert EMBEDDINGS.observe(json.dumps({"model": "e-1", "data": [], "usage": usage}).encode(), report) is False
    assert (report.usage, report.usage_refused, report.model) == (expected, expected is None, "e-1")

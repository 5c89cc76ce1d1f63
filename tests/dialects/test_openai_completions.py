import json

import pytest

from extproc.dialects import openai_completions as api
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Usage


def test_the_facts_of_a_request_are_read():
    ask = api.read({"model": "m", "prompt": "Once", "n": 2, "best_of": 3, "max_tokens": 5, "stream": True})
    assert (ask.model, ask.stream, ask.choices, ask.output_field, ask.max_output_tokens) == (
        "m",
        True,
        3,
        "max_tokens",
        5,
    )


@pytest.mark.parametrize(
    ("prompt", "choices", "unreadable"),
    [("a", 1, ""), (["a", "b"], 2, ""), ([1, 2, 3], 1, "prompt"), ([[1], [2]], 2, "prompt")],
)
def test_each_prompt_counts_as_a_choice(prompt, choices, unreadable):
    ask = api.read({"model": "m", "prompt": prompt})
    assert (ask.choices, ask.unreadable, ask.max_output_tokens, ask.usual_output) == (choices, unreadable, None, 16)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m"}, {"model": "m", "prompt": ""}, {"model": "m", "prompt": 5}, {"prompt": "a"},
        {"model": "m", "prompt": "a", "best_of": 1000}, {"model": "m", "prompt": "a", "stream_options": 5},
        {"model": "m", "prompt": "a", "max_tokens": -1},
    ],
)  # fmt: skip
def test_wrong_shapes_are_refused(body):
    with pytest.raises(Refusal):
        api.read(body)


def test_guardrails_see_every_prompt():
    texts = api.texts({"model": "m", "prompt": ["a", "b"], "suffix": "c"})
    assert [text.value for text in texts] == ["a", "b", "c"]


def test_an_answer_is_counted():
    report = Report()
    whole = {
        "model": "m-1",
        "choices": [{"index": 0, "text": "upon a time", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
    }
    assert not api.observe(json.dumps(whole).encode(), report)
    assert (report.model, report.usage, report.finish_reasons) == ("m-1", Usage(1, 3), {0: "stop"})
    assert report.output_bytes == len("upon a time")


def test_the_event_that_holds_only_usage_is_recognised():
    report = Report()
    assert api.observe(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}', report)
    assert not api.observe(b"[DONE]", report)
    assert not api.observe(b"{", report)
    assert report.output_events == 1

"""Kept answers in every form: each API, plain and streamed."""

import json

import pytest

from extproc.cache.entry import Entry
from extproc.cache.forms import _events, fold, in_form, unfold
from extproc.dialects import client_apis
from extproc.words.exchange import Usage
from extproc.words.messages import (
    Answer,
    AudioPart,
    Choice,
    Delta,
    Ended,
    Failed,
    Finished,
    Started,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from tests.cache.bodies import PATHS

ANSWER = Answer(
    [
        Choice(
            [
                TextPart("It rains."),
                ToolCall("call_1", "weather", '{"town":"Oslo"}'),
                ToolCall("call_2", "weather", '{"town":"Rome"}'),
            ],
            "tool_calls",
        )
    ],
    "id_1",
    "model-1",
    1_700_000_000,
    Usage(12, 7),
)


def kept(dialect, answer, *, stream):
    api = client_apis()[dialect]
    if stream:
        encoder = api.translation.encoder()
        body = b"".join(encoder.feed(event) for event in unfold(answer))
    else:
        body = json.dumps(api.translation.encode_answer(answer)).encode()
    return Entry(1.0, body, dialect, stream, "a/m", 5)


def read(dialect, body, *, stream):
    api = client_apis()[dialect]
    return fold(_events(api, body)) if stream else api.decode_answer(body)


def said(answer):
    """All of an answer that every API can say."""
    usage = answer.usage
    parts = [
        [
            (
                type(part).__name__,
                getattr(part, "text", ""),
                getattr(part, "name", ""),
                json.loads(getattr(part, "arguments", "0")),
            )
        ]
        for choice in answer.choices
        for part in choice.parts
    ]
    return parts, answer.choices[0].finish, answer.model, (usage.input_tokens, usage.output_tokens)


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_answer_says_the_same_in_every_form(dialect, stream):
    entry = kept(dialect, ANSWER, stream=stream)
    assert in_form(entry, client_apis()[dialect], stream=stream) is entry.body
    for other in PATHS:
        for streamed in (False, True):
            body = in_form(entry, client_apis()[other], stream=streamed)
            assert said(read(other, body, stream=streamed)) == said(ANSWER), (other, streamed)


def test_an_answer_becomes_a_stream_and_an_answer_again():
    thinking = [ThinkingPart("Hm.", "proof"), ThinkingPart("", redacted="xyz"), TextPart("It rains.")]
    answer = Answer([Choice(thinking), Choice([TextPart("No.")], "length")], "i", "m", 5, Usage(1, 2), "")
    assert fold(unfold(answer)) == answer
    with pytest.raises(ValueError, match="not streamed"):
        list(unfold(Answer([Choice([AudioPart("", "wav")])])))


@pytest.mark.parametrize(
    "events",
    [
        [],
        [Started()],
        [Started(), Ended()],
        [Delta("text", "a", 0), Finished()],
        [Delta("text", "a", 0), Failed("it broke"), Ended()],
        [Delta("image", "a", 0), Finished(), Ended()],
    ],
)
def test_a_stream_that_broke_off_is_no_answer(events):
    assert fold(events) is None


@pytest.mark.parametrize(
    "entry",
    [
        Entry(1.0, b"data: nothing\n\n", "openai_chat", True),
        Entry(1.0, b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n', "openai_chat", True),
        Entry(1.0, b"{", "openai_chat", False),
        Entry(1.0, b"{}", "of_tomorrow", False),
    ],
)
def test_what_cannot_be_read_is_not_given(entry):
    for stream in (False, True):
        assert in_form(entry, client_apis()["anthropic_messages"], stream=stream) is None

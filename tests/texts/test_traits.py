"""Traits of answers in every conversational API, plain and streamed."""

import json

import msgspec
import pytest

from extproc.cache.forms import unfold
from extproc.dialects import client_apis
from extproc.money.texts import Recorder, Traits
from extproc.money.texts.stages import RECORDING, TRAITS, UNRECORDED, Collect, Draw, KeepText, ReadTraits
from extproc.money.texts.traits import MOST_CALLS, read_traits
from extproc.routing.shadow import SHADOWED
from extproc.wire.framing.sse import SSE
from extproc.words.messages import Answer, Choice, RefusalPart, TextPart, ToolCall

SHAPE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
APIS = {  # a request for JSON of SHAPE, and one with a tool of these arguments
    "openai_chat": (
        "/v1/chat/completions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SHAPE}}},
        {"tools": [{"type": "function", "function": {"name": "weather", "parameters": SHAPE}}]},
    ),
    "openai_responses": (
        "/v1/responses",
        {"text": {"format": {"type": "json_schema", "name": "s", "schema": SHAPE}}},
        {"tools": [{"type": "function", "name": "weather", "parameters": SHAPE}]},
    ),
    "anthropic_messages": (
        "/v1/messages",
        {"output_config": {"format": {"type": "json_schema", "schema": SHAPE}}},
        {"tools": [{"name": "weather", "input_schema": SHAPE}]},
    ),
}
TEXT, CALL = Choice([TextPart("It rains.")]), ToolCall("c1", "weather", '{"city": "Ulm"}')


def said(*parts, finish="stop"):
    return Choice([*parts], finish)


def spoken(text):
    return said(TextPart(text))


@pytest.fixture(params=[(name, stream) for name in APIS for stream in (False, True)], ids=str)
def read(request, exchange):
    """`read(choice, wants)`: the traits of an answer to a plain request, or one for `json` or with a `tool`."""
    name, stream = request.param
    path, json_, tool = APIS[name]
    dialect = client_apis()[name]
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if name != "openai_responses" else {"input": "Hi"}

    def run(choice, wants=""):
        body = {
            "model": "m",
            "max_tokens": 9,
            "stream": stream,
            **asked,
            **{"json": json_, "tool": tool, "": {}}[wants],
        }
        answer = Answer([choice], "id-1", "m", 1)
        encoder = dialect.translation.encoder()
        data = (
            b"".join([encoder.feed(event) for event in unfold(answer)])
            if stream
            else msgspec.json.encode(dialect.translation.encode_answer(answer))
        )
        return read_traits(exchange(body, path=path), data)

    return run


def test_an_answer_in_prose_has_no_traits(read):
    assert read(TEXT) == read(spoken("I can't wait to show you Ulm.")) == Traits()
    assert read(spoken("I'm sorry for your loss. " + "Here is a long letter. " * 40)) == Traits()


@pytest.mark.parametrize(
    "choice",
    [
        said(TextPart("I"), finish="content_filter"),
        spoken("I'm sorry, but I can't help with that."),
        spoken("I cannot assist with this request."),
        spoken("As an AI language model, I do not do that."),
    ],
)
def test_a_refusal_is_told_by_its_finish_or_its_words(read, choice):
    assert read(choice, "json").refused


def test_a_part_for_refusals_is_a_refusal(exchange):
    answer = Answer([said(RefusalPart("No."))], "id-1", "m", 1)
    data = msgspec.json.encode(client_apis()["openai_chat"].translation.encode_answer(answer))
    assert read_traits(exchange(), data) == Traits(refused=True)


def test_json_that_was_asked_for_is_checked_against_its_schema(read):
    assert read(spoken('{"city": "Ulm"}'), "json") == Traits(malformed=False)
    assert read(spoken('{"city": 7}'), "json") == Traits(malformed=True)
    assert read(spoken('{"city": "Ul'), "json") == Traits(malformed=True)
    assert read(spoken('{"city": 7}')) == Traits()


def test_calls_are_kept_by_name_and_digest(read):
    again = ToolCall("c2", "weather", '{ "city" : "Ulm" }')
    found, same, other = (
        read(said(call, finish="tool_calls"), "tool")
        for call in (CALL, again, ToolCall("c", "weather", '{"city": "Rom"}'))
    )
    assert found == same != other
    assert [call.split()[0] for call in found.calls] == ["weather"]
    assert "Ulm" not in str(found)
    assert (found.malformed, read(TEXT, "tool")) == (False, Traits(calls=()))
    assert read(said(ToolCall("c", "weather", '{"town": "Ulm"}'), finish="tool_calls"), "tool").malformed


def test_what_is_no_whole_answer_has_no_traits(exchange):
    assert read_traits(exchange(), b'{"choices": [{"mess') is None
    assert (
        read_traits(
            exchange({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}),
            b'data: {"choices": []}\n\n',
        )
        is None
    )
    choice = said(*(ToolCall(str(number), "t", "{") for number in range(2 * MOST_CALLS)), finish="tool_calls")
    data = msgspec.json.encode(client_apis()["openai_chat"].translation.encode_answer(Answer([choice], "x", "m", 1)))
    assert len(read_traits(exchange(), data).calls) == MOST_CALLS


@pytest.mark.parametrize(
    ("labels", "compared", "read"),
    [
        ({}, {"shadowed": {"m": 1.0}}, True),
        ({}, {"shadowed": {"m": 0.0}}, False),
        ({}, {"shadowed": {"v": 1.0}}, False),
        ({}, {"canaries": {"m"}, "shadowed": {"m": 0.0}}, True),
        ({}, {"canaries": {"v"}}, False),
        ({"shadow": "v"}, {}, True),
        ({"replay": "r"}, {}, True),
        ({"a": "b"}, {}, False),
    ],
)
async def test_only_answers_that_are_compared_are_read_and_none_is_kept(exchange, labels, compared, read):
    recorder, counts = Recorder(), []
    sent, framing = exchange(labels=labels), SSE(1 << 20)
    draw, collect = Draw(UNRECORDED, recorder, counts.append, **compared), Collect(UNRECORDED, recorder)
    draw(sent)
    assert (RECORDING in sent.features) is collect.needed(sent, framing) is read
    if not read:
        return
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "I cannot"}}], "pad": "x" * 5000})
    collect(sent, [*framing.feed(b"")], end=False)
    sent.features[RECORDING].pieces.append(body.encode())
    recorder.size += len(body)
    sent.features[RECORDING].size += len(body)
    if compared.keys() == {"shadowed"}:
        await ReadTraits()(sent)
        assert TRAITS not in sent.features, "no shadow has it"
        sent.features[SHADOWED] = True
    await ReadTraits()(sent)
    KeepText(recorder, counts.append, lambda: 7.0)(sent)
    assert sent.features[TRAITS] == Traits()
    assert (recorder.size, recorder.take(), counts) == (0, [], [])

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Annotated, Literal, Optional
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter

from extproc.mock import apis as models
from tests.doubles import answers, embeddings, scene
from tests.doubles import chat as completions
from tests.doubles.answers import Question, Refused
from tests.doubles.faults import NONE, Faults
from tests.doubles.schemas import satisfy
from tests.samples import examples

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "note": {"type": "string"}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def user(text):
    return [{"role": "user", "content": text}]


def ask(body, faults=NONE):
    return Question({"model": "stub"} | body, "0123456789abcdef01234567", "mock", faults)


def chat(faults=NONE, **body):
    return completions.chat(ask({"messages": user("hello there")} | body, faults)).document


def said(**body):
    return chat(**body)["choices"][0]["message"]["content"]


def stream(faults=NONE, **body):
    answer = completions.chat(ask({"messages": user("hello there"), "stream": True} | body, faults))
    events = [event.data for event in answer.events]
    assert len(events) == answer.length
    assert events.pop() == b"[DONE]"
    return [json.loads(event) for event in events]


# --- text


def test_the_answer_repeats_the_last_user_message():
    messages = [{"role": "system", "content": "Be brief."}, *user("first"), {"role": "assistant", "content": "a"}]
    document = chat(messages=[*messages, *user("hello there")])
    choice = document["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "You said: hello there",
        "refusal": None,
        "annotations": [],
    }
    assert choice["finish_reason"] == "stop"
    assert document["id"] == "chatcmpl-0123456789abcdef01234567"
    assert document["created"] == answers.CREATED
    assert document["system_fingerprint"] == "fp_mock"
    assert document["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 4,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_long_messages_are_quoted_in_part():
    assert said(messages=user("x" * 500)) == "You said: " + "x" * scene.QUOTED


def test_a_chat_without_user_text_is_answered():
    assert said(messages=[{"role": "system", "content": "s"}]) == "You said nothing."


def test_text_and_image_parts_are_counted():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    document = chat(messages=user([{"type": "text", "text": "what is this"}, image, image]))
    assert document["choices"][0]["message"]["content"] == "You said: what is this"
    assert document["usage"]["prompt_tokens"] == 3 + 2 * 85


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_truncates(limit):
    document = chat(**{limit: 2})
    assert document["choices"][0]["message"]["content"] == "You said:"
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 2


def test_stop_ends_the_text_before_the_word():
    assert said(stop="there") == "You said: hello"
    assert said(stop=["nowhere", " hello"]) == "You said:"
    assert chat(stop="there")["choices"][0]["finish_reason"] == "stop"


def test_n_gives_up_to_eight_choices():
    document = chat(n=2)
    assert [choice["index"] for choice in document["choices"]] == [0, 1]
    assert document["choices"][1]["message"]["content"] == "(1) You said: hello there"
    assert document["usage"]["completion_tokens"] == 4 + 5
    assert len(chat(n=100)["choices"]) == 8


def test_the_fault_words_sets_the_length():
    document = chat(Faults(words=500))
    assert len(document["choices"][0]["message"]["content"].split()) == 500
    assert document["usage"]["completion_tokens"] == 500
    assert chat(Faults(words=0))["choices"][0]["message"]["content"] == ""


def test_logprobs_are_given_when_asked_for():
    assert chat(logprobs=False)["choices"][0]["logprobs"] is None
    told = chat(logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert [token["token"] for token in told["content"]] == ["You", " said:", " hello", " there"]
    assert told["content"][0] == {
        "token": "You",
        "logprob": -0.25,
        "bytes": [89, 111, 117],
        "top_logprobs": [
            {"token": "You", "logprob": -0.25, "bytes": [89, 111, 117]},
            {"token": " other1", "logprob": -1.25, "bytes": list(b" other1")},
        ],
    }
    chunks = stream(logprobs=True, top_logprobs=2)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["logprobs"]["content"] for choice in choices if choice["logprobs"]] == [
        [token] for token in told["content"]
    ]


def test_results_and_neighbours_are_read_as_in_every_api():
    results = [{"role": "tool", "tool_call_id": str(n), "content": text} for n, text in enumerate(['{"a": 1}', "b"])]
    assert said(messages=[*user("a"), {"role": "assistant", "tool_calls": []}, *results]) == 'The tool said: {"a":1}; b'
    assert said(messages=[*user("a"), {"role": "system", "content": "s"}, *user("b")]) == "You said: a b"


def test_reasoning_is_counted():
    usage = chat(reasoning_effort="low")["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]) == (11, {"reasoning_tokens": 7})
    assert chat(reasoning_effort="none")["usage"]["completion_tokens"] == 4


# --- streams


def test_a_stream_is_role_words_finish_reason():
    chunks = stream()
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "You"},
        {"content": " said:"},
        {"content": " hello"},
        {"content": " there"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 5 + ["stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert not any("usage" in chunk for chunk in chunks)


def test_include_usage_adds_one_event_and_nulls():
    chunks = stream(stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == chat()["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize("body", [{}, {"n": 3}, {"max_tokens": 2}, {"messages": user("a\n\n b\tc  ")}])
def test_a_stream_equals_the_plain_answer(body):
    plain = chat(**body)
    chunks = stream(**body, stream_options={"include_usage": True})
    for choice in plain["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content") or "" for c in mine) == choice["message"]["content"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
    assert chunks[-1]["usage"] == plain["usage"]


# --- false usage


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("negative", [-2, -4, -6]),
        ("string", ["2", "4", "6"]),
        ("float", [2.5, 4.5, 6.5]),
        ("huge", [2**64 - 1] * 3),
        ("early", [2, 4, 6]),
    ],
)
def test_usage_can_be_false_in_plain_answers_and_streams(kind, counts):
    plain = chat(Faults(usage=kind))["usage"]
    assert [plain["prompt_tokens"], plain["completion_tokens"], plain["total_tokens"]] == counts
    chunks = stream(Faults(usage=kind), stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in chunks if not chunk["choices"]] == [plain]


def test_usage_none_is_left_out_even_when_asked_for():
    assert "usage" not in chat(Faults(usage="none"))
    assert not any("usage" in chunk for chunk in stream(Faults(usage="none"), stream_options={"include_usage": True}))


def test_early_usage_comes_before_the_last_content():
    chunks = stream(Faults(usage="early"), stream_options={"include_usage": True})
    places = [index for index, chunk in enumerate(chunks) if not chunk["choices"]]
    assert places == [len(chunks) - 3]
    assert chunks[-2]["choices"][0]["delta"] == {"content": " there"}


# --- tools


def test_the_first_tool_is_called_with_fitting_arguments():
    document = chat(tools=[WEATHER, CLOCK])
    choice = document["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "stub", "unit": "C"}


def test_tool_choice_names_the_tool_or_none():
    named = {"type": "function", "function": {"name": "get_time"}}
    (call,) = chat(tools=[WEATHER, CLOCK], tool_choice=named)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_time"
    assert said(tools=[WEATHER], tool_choice="none") == "You said: hello there"
    with pytest.raises(Refused, match="get_nothing"):
        chat(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "get_nothing"}})


def test_parallel_calls_when_the_message_asks():
    body = {"tools": [WEATHER, CLOCK], "messages": user("in parallel, please")}
    calls = chat(**body)["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["get_weather", "get_time"]
    assert calls[0]["id"] != calls[1]["id"]
    assert len(chat(**body, parallel_tool_calls=False)["choices"][0]["message"]["tool_calls"]) == 1


def test_a_tool_result_is_answered_with_text():
    messages = [
        *user("weather?"),
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "c", "content": "18 degrees"},
    ]
    assert said(messages=messages, tools=[WEATHER]) == "The tool said: 18 degrees"


def test_streamed_tool_calls_equal_the_plain_ones():
    body = {"tools": [WEATHER, CLOCK], "messages": user("in parallel, please")}
    chunks = stream(**body)
    calls = {}
    for chunk in chunks:
        for part in chunk["choices"][0]["delta"].get("tool_calls", ()):
            if part["index"] not in calls:
                assert part["function"]["arguments"] == ""
                calls[part["index"]] = {key: part[key] for key in ("id", "type")} | {"function": part["function"]}
            else:
                assert set(part) == {"index", "function"}
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    assert list(calls.values()) == chat(**body)["choices"][0]["message"]["tool_calls"]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None, "refusal": None}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


# --- structured output


class Node(BaseModel):
    value: int
    children: list[Node]
    next: Optional[Node]  # noqa: UP045 - reads as the schema does: the node first, null second


class Address(BaseModel):
    street: str = Field(min_length=10, max_length=12)
    kind: Literal["home", "work"]


class Person(BaseModel):
    name: str
    id: UUID
    born: AwareDatetime
    age: Annotated[int, Field(ge=18, multiple_of=5)]
    height: Annotated[float, Field(gt=0, lt=1)]
    lucky: Annotated[int, Field(gt=7)]
    addresses: Annotated[list[Address], Field(min_length=2)]
    pet: int | str | None
    active: bool
    nothing: None
    pair: tuple[int, str]
    tree: Node
    nickname: str = "x"


def test_response_format_json_schema_is_satisfied():
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": Person.model_json_schema()}}
    person = Person.model_validate_json(said(response_format=wanted))
    assert person.age == 20
    assert len(person.addresses) == 2
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in stream(response_format=wanted)) == said(
        response_format=wanted
    )


def test_response_format_json_object_is_satisfied():
    assert set(json.loads(said(response_format={"type": "json_object"}))) == {"answer"}


@pytest.mark.parametrize("kind", [int, float, bool, str, None, list[int], dict[str, int], list[Node], Literal[3], Node])
def test_schemas_of_types_are_satisfied(kind):
    adapter = TypeAdapter(kind)
    adapter.validate_python(satisfy(adapter.json_schema()), strict=False)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["string", "null"]}, "stub"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "a"),
        (
            {
                "allOf": [
                    {"properties": {"a": {"type": "null"}}, "required": ["a"]},
                    {"properties": {"b": {"const": 2}}, "required": ["b"]},
                ]
            },
            {"a": None, "b": 2},
        ),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"enum": [7]}}}, 7),
        ({"type": "integer", "minimum": -5, "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMinimum": 1.5}, 3),
        ({"type": "array", "maxItems": 0}, []),
        ({"properties": {"a": {"type": "boolean"}}}, {"a": True}),
        ({"type": "string", "format": "email"}, "stub@example.com"),
        (True, "stub"),
        (None, "stub"),
    ],
)
def test_schema_keywords_are_satisfied(schema, value):
    assert satisfy(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"type": "array", "minItems": 50, "items": {"$ref": "#"}},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/nowhere"},
    ],
)
def test_schemas_without_a_finite_document_end(schema):
    json.dumps(satisfy(schema))


# --- refusals


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [*user("a"), {"content": "no role"}]}, "messages[1]"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ],
)
def test_wrong_requests_are_refused_with_the_field(body, param):
    with pytest.raises(Refused) as refused:
        chat(**body)
    assert refused.value.status == 400
    assert answers.error(refused.value)["error"] == {
        "message": refused.value.message,
        "type": "invalid_request_error",
        "param": param,
        "code": None,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYWORDS = ["type", "properties", "required", "items", "anyOf", "allOf", "$ref", "minimum", "multipleOf", "minLength"]
KEYWORDS += ["minItems", "maxItems", "enum", "format", "maximum", "prefixItems", "const", "object", "array", "integer"]


@settings(max_examples=examples(150))
@given(
    st.dictionaries(st.sampled_from(["n", "stop", "tools", "tool_choice", "stream_options", "messages"]), JSON), JSON
)
def test_any_json_is_answered_or_refused(body, content):
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **body}
    for streamed in (False, True):
        try:
            answer = completions.chat(ask(body | {"stream": streamed}))
        except Refused:
            continue
        json.dumps(answer.document)
        list(answer.events or ())


@settings(max_examples=examples(150))
@given(
    st.recursive(
        st.sampled_from([*KEYWORDS, "#", None, True, -1, 0, 1e300, 2.5]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
        max_leaves=10,
    )
)
def test_any_schema_is_answered(schema):
    json.dumps(satisfy(schema))


# --- embeddings and models


def embed(**body):
    return embeddings.embeddings(ask({"input": "hello there"} | body)).document


@pytest.mark.parametrize(
    ("value", "count", "tokens"),
    [("hello there", 1, 2), (["a", "b c"], 2, 3), ([1, 2, 3], 1, 3), ([[1, 2], [3]], 2, 3)],
)
def test_every_form_of_input_is_accepted(value, count, tokens):
    document = embed(input=value)
    assert [each["index"] for each in document["data"]] == list(range(count))
    assert document["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_vectors_are_deterministic_and_of_unit_length():
    vector = embed(dimensions=256)["data"][0]["embedding"]
    assert len(vector) == 256
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    assert vector == embed(dimensions=256)["data"][0]["embedding"]
    assert vector != embed(dimensions=256, input="else")["data"][0]["embedding"]
    assert len(embed()["data"][0]["embedding"]) == 8


def test_base64_carries_the_same_floats():
    raw = base64.b64decode(embed(encoding_format="base64")["data"][0]["embedding"])
    assert list(struct.unpack("<8f", raw)) == embed()["data"][0]["embedding"]


@pytest.mark.parametrize("value", [None, "", [], [1, "a"], [[]], [True], {"a": 1}, 5])
def test_wrong_input_is_refused(value):
    with pytest.raises(Refused, match="'input'"):
        embed(input=value)


@pytest.mark.parametrize("body", [{"dimensions": 0}, {"dimensions": 5000}, {"encoding_format": "hex"}])
def test_wrong_embedding_options_are_refused(body):
    with pytest.raises(Refused):
        embed(**body)


def test_models_are_listed():
    assert [each["id"] for each in models.models()["data"]] == list(models.MODELS)
    assert models.model("x") == {"id": "x", "object": "model", "created": answers.CREATED, "owned_by": "mock"}

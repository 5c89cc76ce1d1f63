"""Answers and arguments against JSON Schemas: the validator beside a library, and the guardrail in every client API."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from extproc.guardrails import _schema
from extproc.guardrails._schema import Schema, UncheckableSchemaError
from extproc.guardrails.json_schema import JSONSchemaSettings
from tests.guardrails.streams import PATHS, PROVIDER, Played, heard, request, stream
from tests.guardrails.test_output import asking
from tests.guardrails.test_tools import CALLING, PLAIN
from tests.samples import examples

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}

# --- the validator

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, 2.5])
    | st.sampled_from(["", "a", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
_types = st.sampled_from(["null", "boolean", "object", "array", "string", "number", "integer"])


def _keywords(inner):
    named = st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    some = st.lists(inner, min_size=1, max_size=2)
    size, number = st.integers(0, 3), st.integers(-2, 3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": _types | st.lists(_types, min_size=1, max_size=2, unique=True),
            "enum": st.lists(_values, min_size=1, max_size=3),
            "const": _values,
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), number),
            **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), size),
            "pattern": st.sampled_from(["a", "^a$", "b"]),
            "items": inner,
            "prefixItems": some,
            "contains": inner,
            "minContains": size,
            "uniqueItems": st.booleans(),
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "properties": named,
            "patternProperties": st.dictionaries(st.sampled_from(["a", "[bc]"]), inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": inner,
            "dependentRequired": st.dictionaries(st.sampled_from("abc"), st.just(["a"]), max_size=1),
            "dependentSchemas": named,
            **dict.fromkeys(("allOf", "anyOf", "oneOf"), some),
            **dict.fromkeys(("not", "if", "then", "else"), inner),
            "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"]),
        },
    )


_schemas = st.recursive(st.booleans() | _keywords(st.booleans()), _keywords, max_leaves=4)


@settings(max_examples=examples(300))
@given(_schemas, st.lists(_values, min_size=3, max_size=6))
def test_the_validator_agrees_with_a_library(schema, values):
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"one": {"type": "string"}, "two": {"items": {"type": "integer"}}}}
    library, own = jsonschema.Draft202012Validator(schema), Schema(schema, strict=True, patterns=True)
    for value in values:
        assert (own.broken(value) == "") is library.is_valid(value), (schema, value)


def test_a_finding_is_the_keyword():
    schema = Schema({**PERSON, "$defs": {"x": True}}, strict=True, patterns=True)
    broken = {
        "{}": "required",
        '{"name": 1}': "type",
        '{"name": "a", "age": -1}': "minimum",
        '{"name": "a", "more": 1}': "additionalProperties",
        '{"name": "a", "age": 1.0}': "",
    }
    assert {text: schema.broken(json.loads(text)) for text in broken} == broken


@pytest.mark.parametrize(
    "schema",
    [
        {"requird": ["a"]},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/none"},
        {"$dynamicRef": "#a"},
        {"unevaluatedProperties": False},
        {"properties": {"a": {"$id": "x"}}},
        {"type": "text"},
        {"type": [{}]},
        {"pattern": "(?=a)"},
        {"pattern": "a" * 5000},
        {"minLength": -1},
        {"exclusiveMaximum": True},
        {"allOf": {}},
        {"properties": []},
        {"items": 3},
        {"multipleOf": 0},
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused(schema):
    with pytest.raises(UncheckableSchemaError):
        Schema(schema, strict=True, patterns=True)
    with pytest.raises(ValidationError):
        JSONSchemaSettings(name="g", kind="json_schema", schema=schema)


def test_a_large_or_deep_schema_is_refused():
    deep: dict = {}
    for _ in range(200):
        deep = {"items": deep}
    for schema in (deep, {"anyOf": [{"const": number} for number in range(20_001)]}):
        with pytest.raises(UncheckableSchemaError):
            Schema(schema, strict=False, patterns=False)


def test_the_work_for_one_text_is_bounded():
    """References that double, a reference to itself, long lists of names and of alike items."""
    doubling = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": False}
    names = {"required": [f"n{number}" for number in range(50_000)]}
    hard = [
        ({"$defs": doubling, "$ref": "#/$defs/d0"}, 1),
        ({"$ref": "#"}, 1),
        ({"items": {"anyOf": [names, names]}}, [{}] * 9),
        ({"uniqueItems": True}, [[number] for number in range(2000)]),
        ({"items": {"not": {"enum": list(range(1000))}}}, [-1] * 1000),
    ]
    for schema, value in hard:
        with pytest.raises(TimeoutError):
            Schema(schema, strict=False, patterns=False).broken(value)


def test_patterns_of_clients_are_not_matched():
    schema = {"pattern": "(a+)+(?=b)", "patternProperties": {"(?=x)": False}, "additionalProperties": False}
    own = Schema(schema, strict=False, patterns=False)
    assert own.broken("c") == own.broken({"x": 1}) == ""


# --- the guardrail


def guard(more="", action="block", failure="closed", limits="{}"):
    entry = f"name: shape, kind: json_schema, action: {action}, failure: {failure}, {more}"
    return f"{PROVIDER}limits: {limits}\nguardrails: [{{{entry}}}]"


GIVEN = f"schema: {json.dumps(PERSON)}"
WANTED = {
    "gemini_generate_content": {
        "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": PERSON}
    },
    "openai_chat": {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}},
    "openai_responses": {"text": {"format": {"type": "json_schema", "name": "p", "schema": PERSON}}},
    "anthropic_messages": {"output_config": {"format": {"type": "json_schema", "schema": PERSON}}},
}
TOOLS = {
    "gemini_generate_content": {"tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": PERSON}]}]},
    "openai_chat": {"tools": [{"type": "function", "function": {"name": "f", "parameters": PERSON}}]},
    "openai_responses": {"tools": [{"type": "function", "name": "f", "parameters": PERSON}]},
    "anthropic_messages": {"tools": [{"name": "f", "input_schema": PERSON}]},
}
WORDS = {
    "gemini_generate_content": lambda text: {"candidates": [{"content": {"parts": [{"text": text}]}}]},
    "openai_chat": lambda text: {"choices": [{"index": 0, "message": {"content": text}}]},
    "openai_completions": lambda text: {"choices": [{"index": 0, "text": text}]},
    "openai_responses": lambda text: {
        "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    },
    "anthropic_messages": lambda text: {"content": [{"type": "text", "text": text}]},
}
TEXTS = {'{"name": "Ann", "age": 3}': {}, '{"name": 5}': {"type": 1}, "Sure! {}": {"not_json": 1}}


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("rule", ["given", "request"])
async def test_an_answer_that_does_not_fit_is_refused(world, dialect, rule):
    if rule == "request" and dialect not in WANTED:
        return
    made, more = (GIVEN, {}) if rule == "given" else ("", WANTED[dialect])
    for text, kinds in TEXTS.items():
        thoughts = ["I think. "] if dialect != "openai_completions" else []
        streamed = stream(dialect, [text[at : at + 3] for at in range(0, len(text), 3)], thoughts=thoughts)
        asked = Played(world(guard(made)), dialect, body=request(dialect) | more)
        played = await asked.answer([streamed])
        assert (played.status, played.out) == ((400, b"") if kinds else (200, streamed))
        assert played.verdicts == ([("shape", "output", "block", kinds)] if kinds else [])
        plain = json.dumps(WORDS[dialect](text)).encode()
        asked = Played(world(guard(made)), dialect, body=asking(dialect) | more)
        played = await asked.answer([plain], "application/json")
        assert (played.status, played.out) == ((400, b"") if kinds else (200, plain))


@pytest.mark.parametrize("dialect", CALLING)
@pytest.mark.parametrize("rule", ["given", "request"])
async def test_arguments_that_do_not_fit_are_refused(world, dialect, rule):
    made, more = (GIVEN, {}) if rule == "given" else ("schema: request", TOOLS[dialect])
    made += ", on: [tool_calls], tools: [f]"
    for arguments, blocked in (({"name": "Ann"}, False), ({"age": 1}, True)):
        text = json.dumps(arguments)
        body = stream(dialect, ["no JSON"], arguments=[text[at : at + 2] for at in range(0, len(text), 2)])
        played = await Played(world(guard(made)), dialect, body=request(dialect) | more).answer([body])
        assert played.status == (400 if blocked else 200)
        body = json.dumps(PLAIN[dialect]("f", arguments)).encode()
        played = await Played(world(guard(made)), dialect, body=asking(dialect) | more).answer(
            [body], "application/json"
        )
        assert played.status == (400 if blocked else 200)


async def test_a_request_without_a_schema_is_not_checked(world):
    body = stream("openai_chat", ["no JSON"])
    for more in ("", "on: [tool_calls]"):
        assert (await Played(world(guard(more)), "openai_chat").answer([body])).out == body


async def test_the_text_of_a_stream_is_held_until_it_is_complete(world):
    """Reasoning before it leaves; then nothing of an answer that does not fit."""
    text = ["{" + '"name": "' + "x" * 300] + ["y" * 50] * 10 + ['"', ', "more": 1}']
    body = stream("openai_chat", text, thoughts=["t" * 200])
    played = await Played(world(guard(GIVEN)), "openai_chat").answer([body])
    words = heard("openai_chat", played.out)
    assert (words["text"], words["thoughts"]) == ("", "t" * 200)
    assert "guardrail_blocked" in json.dumps(words["error"])
    played = await Played(world(guard(GIVEN, "annotate")), "openai_chat").answer([body])
    assert played.out == body
    assert played.verdicts == [("shape", "output", "annotate", {"additionalProperties": 1})]


async def test_a_text_too_long_to_hold_is_a_failure(world):
    body = stream("openai_chat", ['{"name": "', *["x" * 400] * 20, '"}'])
    chunks = [body[at : at + 500] for at in range(0, len(body), 500)]
    for failure, action, status in (("closed", "block", 503), ("open", "block", 200), ("closed", "audit", 200)):
        made = guard(GIVEN, action, failure, "{buffered_response: 4KiB}")
        played = await Played(world(made), "openai_chat").answer(chunks)
        assert played.status == status
        assert played.verdicts == [("shape", "output", "failed", {})]
        assert played.out == (b"" if status == 503 else body)


async def test_a_schema_of_the_request_that_cannot_be_checked_is_a_failure(world):
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"$ref": "https://example.com/x"}}}
    body = stream("openai_chat", ["{}"])
    played = Played(world(guard()), "openai_chat", body=request("openai_chat") | {"response_format": wanted})
    assert (await played.ask()).status == 503
    asked = Played(
        world(guard(failure="open")), "openai_chat", body=request("openai_chat") | {"response_format": wanted}
    )
    assert (await asked.answer([body])).out == body


async def test_too_much_work_is_a_timeout(world, monkeypatch):
    monkeypatch.setattr(_schema, "MOST_STEPS", 10)
    played = await Played(world(guard(GIVEN)), "openai_chat").answer([stream("openai_chat", ['{"name": "a"}'])])
    assert played.status == 503
    assert [each["reason"] for each in played.world.verdicts] == ["timeout"]


def test_tools_are_for_calls():
    with pytest.raises(ValidationError, match="tools"):
        JSONSchemaSettings(name="g", kind="json_schema", tools=["f"])

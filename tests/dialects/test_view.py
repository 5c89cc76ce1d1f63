"""One conversation, written in each API that clients speak, reads alike: `dialects._view`."""

from __future__ import annotations

import copy

import pytest

from extproc.dialects import client_apis
from extproc.words.dialect import Endpoint

SCHEMA = {"type": "object"}
PATH = Endpoint("/v1beta/models/{model}:generateContent", "chat", "m")
SAME = {
    "openai_chat": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Noon in Rome?"}]},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "clock", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "12:00"},
        ],
        "tools": [{"type": "function", "function": {"name": "clock", "parameters": SCHEMA}}, {"type": "web_search"}],
    },
    "openai_responses": {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Noon in Rome?"}]},
            {"type": "function_call", "call_id": "c", "name": "clock", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "12:00"},
        ],
        "tools": [{"type": "function", "name": "clock", "parameters": SCHEMA}, {"type": "web_search"}],
    },
    "anthropic_messages": {
        "model": "m",
        "max_tokens": 9,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Noon in Rome?"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "clock", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "12:00"}]},
        ],
        "tools": [{"name": "clock", "input_schema": SCHEMA}, {"type": "web_search_20260209", "name": "web_search"}],
    },
    "gemini_generate_content": {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Noon in Rome?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "clock", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "clock", "response": {"result": "12:00"}}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "clock", "parameters": SCHEMA}]}, {"googleSearch": {}}],
    },
}

pytestmark = pytest.mark.parametrize("name", SAME)


@pytest.fixture
def body(name):
    return copy.deepcopy(SAME[name])


@pytest.fixture
def dialect(name):
    return client_apis()[name]


def test_the_question_the_system_prompt_and_the_result_are_found(dialect, body):
    found = dialect.conversation(body)
    assert (found.asked, found.system, found.result) == (["Noon in Rome?"], ["Be brief."], ["12:00"])


def test_a_result_has_the_name_of_its_call(dialect, body):
    found = dialect.offers.tools.tooling(body)
    assert (found.results, found.offered["clock"]) == (["clock"], SCHEMA)


def test_a_result_is_replaced_where_it_stands(dialect, body):
    (result,) = dialect.offers.tools.results(body)
    assert result.said()[0] in ("12:00", '{"result":"12:00"}')
    result.holder[result.key] = result.written("Noon.")
    (again,) = dialect.offers.tools.results(body)
    assert again.said()[0] in ("Noon.", '{"result":"Noon."}')


def test_each_text_is_replaced_where_it_stands(dialect, body):
    roles = {text.value: text.role for text in dialect.texts(body)}
    assert (roles["Noon in Rome?"], roles["Be brief."], roles["12:00"]) == ("user", "system", "tool")
    for text in dialect.texts(body):
        text.holder[text.key] = "x"
    assert {text.value for text in dialect.texts(body)} == {"x"}


def test_tools_of_the_provider_leave_and_those_of_the_client_stay(dialect, body):
    assert dialect.read(body, PATH).hosted
    own, dropped = dialect.translation.without_hosted(body)
    assert len(dropped) == 1
    assert not dialect.read(own, PATH).hosted
    assert [*dialect.offers.tools.tooling(own).offered] == ["clock"]


def test_the_prefix_ends_with_the_first_turn_of_the_user(dialect, body):
    _, opening = dialect.offers.reuse.prefix(body)
    assert [turn["role"] for turn in opening] == ["user"]

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.dialects import cohere_chat as api
from extproc.dialects.cohere_chat.names import escape, unescape
from extproc.words.dialect import Destination
from extproc.words.messages import Message, Prompt, TextPart, Tool, ToolCall, ToolResult


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("weather", "weather"),
        ("_Weather_2", "_Weather_2"),
        ("get-it", "get_0x2d_it"),
        ("files.read", "files_0x2e_read"),
        ("2nd", "_0x32_nd"),
        ("get_0x2d_it", "get_0x5f_0x2d_it"),
        ("", ""),
    ],
)
def test_names_are_written_in_allowed_letters(name, there):
    assert escape(name) == there
    assert unescape(there) == name


@given(st.text(alphabet=st.one_of(st.sampled_from("_0xd2-.1"), st.characters(codec="utf-8"))))
@example("_0x2d-")
def test_every_name_survives_a_round_trip(name):
    assert re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", escape(name))
    assert unescape(escape(name)) == name


@given(st.text())
def test_any_name_from_a_provider_is_read(name):
    unescape(name)
    unescape(f"_0x{name}_").encode(errors="surrogatepass")


def test_an_escape_that_is_no_character_is_kept():
    assert unescape("_0xd800_") == "_0xd800_"
    assert unescape("_0xdfff_") == "_0xdfff_"


def test_tools_and_their_calls_are_renamed_alike():
    asked = [Message("user", [TextPart("hi")]), Message("assistant", [ToolCall("1", "get-it", "{}")])]
    asked.append(Message("user", [ToolResult("1", [TextPart("18")])]))
    body, _ = api.encode_request(Prompt("m", asked, tools=[Tool("get-it")]), Destination("command-a-03-2025"))
    assert body["tools"][0]["function"]["name"] == "get_0x2d_it"
    made = body["messages"][1]["tool_calls"][0]
    assert made["function"]["name"] == "get_0x2d_it"
    answer = {"message": {"tool_calls": [made]}, "finish_reason": "TOOL_CALL"}
    assert api.decode_answer(json.dumps(answer).encode()).choices[0].parts == [ToolCall("1", "get-it", "{}")]
    start = {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": made}}}
    _, told = api.decoder().feed(json.dumps(start).encode(), "tool-call-start")[:2]
    assert told.name == "get-it"

"""Facts that the gateway reads from messages that it passes through."""

import json

import pytest

from extproc.dialects import client_apis
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Usage

MESSAGES = client_apis()["anthropic_messages"]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
DOCUMENT = {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}}


def question(**fields):
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]} | fields


def asking(*blocks):
    return {"messages": [{"role": "user", "content": list(blocks)}]}


# --- requests


def test_the_facts_of_a_request_are_read():
    ask = MESSAGES.read(question(stream=True))
    assert (ask.model, ask.stream, ask.choices) == ("m", True, 1)
    assert (ask.output_field, ask.max_output_tokens) == ("max_tokens", 9)
    assert ask.needs == {}
    assert MESSAGES.offers.usage_request(question(stream=True)) == {}


@pytest.mark.parametrize("limit", [None, -1, "5", 5.0, True, [], 10**9 + 1])
def test_an_output_limit_is_required(limit):
    with pytest.raises(Refusal) as refused:
        MESSAGES.read(question(max_tokens=limit))
    assert refused.value.param == "max_tokens"


def test_an_output_limit_of_0_is_accepted_to_fill_the_cache():
    assert MESSAGES.read(question(max_tokens=0)).max_output_tokens == 1


def test_a_token_count_needs_no_output_limit():
    body = question()
    del body["max_tokens"]
    ask = client_apis()["anthropic_count_tokens"].read(body)
    assert (ask.output_field, ask.max_output_tokens) == (None, None)
    assert client_apis()["anthropic_count_tokens"].offers.encode_count(7) == {"input_tokens": 7}


@pytest.mark.parametrize("messages", [None, [], {}, "Hello", [1], ["Hello"], [{}, []]])
def test_messages_must_be_a_list_of_objects(messages):
    with pytest.raises(Refusal):
        MESSAGES.read(question(messages=messages))


NEEDS = {
    "tools": ({"tools": [{"name": "f"}]}, {"tools": "tools"}),
    "no tools": ({"tools": []}, {}),
    "an image": (asking(IMAGE), {"images": "messages"}),
    "an image as a result": (asking({"type": "tool_result", "content": [IMAGE]}), {"images": "messages"}),
    "an image in a document": (
        asking({"type": "document", "source": {"type": "content", "content": [IMAGE]}}),
        {"images": "messages"},
    ),
    "a document": (asking(DOCUMENT), {"files": "messages", "url": "messages"}),
    "a document as a result": (
        asking({"type": "tool_result", "content": [DOCUMENT]}),
        {"files": "messages", "url": "messages"},
    ),
    "a schema": ({"output_config": {"format": {"type": "json_schema"}}}, {"json_schema": "output_config"}),
    "a schema by its older name": ({"output_format": {"type": "json_schema"}}, {"json_schema": "output_format"}),
    "an effort": ({"output_config": {"effort": "low"}}, {}),
}


@pytest.mark.parametrize(("fields", "needs"), NEEDS.values(), ids=NEEDS)
def test_the_needs_of_a_request_are_found(fields, needs):
    assert MESSAGES.read(question(**fields)).needs == needs


def test_images_and_their_bytes_are_counted():
    elsewhere = {"type": "image", "source": {"type": "url", "url": "https://x"}}
    ask = MESSAGES.read(question(**asking(IMAGE, elsewhere, {"type": "tool_result", "content": [IMAGE]}, 7)))
    assert (ask.images, ask.image_bytes) == (3, 8)


UNSEEN = {
    "nothing": ({}, ()),
    "an image": (asking(IMAGE), ()),
    "an image elsewhere": (asking({"type": "image", "source": {"type": "url", "url": "https://x"}}), ("image",)),
    "an uploaded image": (asking({"type": "image", "source": {"type": "file", "file_id": "f"}}), ("image",)),
    "an image without a source": (asking({"type": "image"}), ("image",)),
    "an image elsewhere as a result": (
        asking({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url"}}]}),
        ("image",),
    ),
    "a PDF": (asking({"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}), ("document",)),
    "a document elsewhere": (
        asking({"type": "document", "source": {"type": "url", "url": "https://x"}}),
        ("document",),
    ),
    "an uploaded document": (asking({"type": "document", "source": {"type": "file", "file_id": "f"}}), ("document",)),
    "a document of text": (asking({"type": "document", "source": {"type": "text", "data": "x"}}), ()),
    "a document of blocks": (asking({"type": "document", "source": {"type": "content", "content": [IMAGE]}}), ()),
    "what was said": (
        asking(*({"type": kind} for kind in ("text", "thinking", "redacted_thinking", "tool_use", "search_result"))),
        (),
    ),
    "an upload for a container": (asking({"type": "container_upload", "file_id": "f"}), ("container_upload",)),
    "a strange block": (asking({"type": "A new\nkind"}, {"type": None}), ("content",)),
    "a container": ({"container": "container_1"}, ("container",)),
    "no MCP servers": ({"mcp_servers": [], "container": None}, ()),
    "tools": ({"tools": [{"name": "f"}, {"type": "custom", "name": "g"}, {"type": "bash_20250124"}]}, ()),
}


@pytest.mark.parametrize(("fields", "unseen"), UNSEEN.values(), ids=UNSEEN)
def test_input_given_by_reference_is_found(fields, unseen):
    assert MESSAGES.read(question(**fields)).unseen == unseen


HOSTED = {
    "tools of the client": ({"tools": [{"name": "f"}, {"type": "custom", "name": "g"}, {"type": "bash_20250124"}]}, ()),
    "what a server tool found": (asking({"type": "web_search_tool_result"}), ("web_search_tool_result",)),
    "MCP servers": ({"mcp_servers": [{"url": "https://x"}]}, ("mcp_servers",)),
    "server tools": (
        {
            "tools": [
                {"type": kind} for kind in ("web_search_20250305", "web_fetch_20250910", "code_execution_20250825")
            ]
        },
        ("web_search_20250305", "web_fetch_20250910", "code_execution_20250825"),
    ),
    "a strange tool": ({"tools": [{"type": 5}, {"type": "x y"}, 7]}, ("tools",)),
}


@pytest.mark.parametrize(("fields", "hosted"), HOSTED.values(), ids=HOSTED)
def test_tools_that_anthropic_runs_itself(fields, hosted):
    ask = MESSAGES.read(question(**fields))
    assert (ask.hosted, ask.unseen) == (hosted, ())
    rest, dropped = MESSAGES.translation.without_hosted(question(**fields))
    assert MESSAGES.read(rest).hosted == ()
    assert bool(dropped) == bool(hosted)


def test_a_choice_of_a_tool_that_anthropic_runs_cannot_be_left_out():
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "f"}]
    for name, needs in (("web_search", True), ("f", False)):
        ask = MESSAGES.read(question(tools=tools, tool_choice={"type": "tool", "name": name}))
        assert ("hosted_call" in ask.needs) == needs


def test_tools_add_the_text_that_anthropic_writes_about_them():
    assert MESSAGES.read(question(**asking(IMAGE))).added_tokens == 0
    assert MESSAGES.read(question(tools=[{"name": "f"}] * 3)).added_tokens == 1024
    assert MESSAGES.read(question(tools=[{"type": "computer_20250124"}])).added_tokens == 1024 + 1280
    assert MESSAGES.read(question(output_config={"format": {"type": "json_schema"}})).added_tokens == 1024


CANARIES = {
    "content": {"messages": [{"role": "user", "content": "CANARY"}]},
    "a block": asking({"type": "text", "text": "CANARY"}),
    "a block of an unknown type": asking({"type": "new", "new": {"x": ["CANARY"]}}),
    "a bare string": asking("CANARY"),
    "bare strings": asking(["CANARY"]),
    "a result": asking({"type": "tool_result", "content": "CANARY"}),
    "a result in blocks": asking({"type": "tool_result", "content": [{"type": "text", "text": "CANARY"}]}),
    "a call": {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"a": ["CANARY"]}}]}]},
    "thinking": {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "CANARY"}]}]},
    "a document": asking({"type": "document", "source": {"type": "text", "data": "CANARY"}}),
    "a title": asking({"type": "document", "title": "CANARY"}),
    "the system prompt": {"system": "CANARY"},
    "the system prompt in blocks": {"system": [{"type": "text", "text": "CANARY"}]},
    "a role": {"messages": [{"role": "CANARY", "content": ""}]},
    "a field of a message": {"messages": [{"role": "user", "content": "", "new": {"x": "CANARY"}}]},
    "a tool": {"tools": [{"name": "f", "description": "CANARY"}]},
    "a schema": {"tools": [{"input_schema": {"properties": {"a": {"description": "CANARY"}}}}]},
    "metadata": {"metadata": {"user_id": "CANARY"}},
    "stop words": {"stop_sequences": ["CANARY"]},
    "a field invented next year": {"new": [{"x": "CANARY"}]},
}


@pytest.mark.parametrize("fields", CANARIES.values(), ids=CANARIES)
def test_text_is_found_in_every_field(fields):
    body = json.loads(json.dumps(question(**fields)))
    MESSAGES.read(body)
    (seen,) = [text for text in MESSAGES.texts(body) if text.value == "CANARY"]
    seen.holder[seen.key] = "edited"
    assert "CANARY" not in json.dumps(body)


@pytest.mark.parametrize(
    ("fields", "role", "where"),
    [
        ({"system": "CANARY"}, "system", "system"),
        (CANARIES["content"], "user", "messages[0].content"),
        (CANARIES["a block"], "user", "messages[0].content[0].text"),
        (CANARIES["a result in blocks"], "tool", "messages[0].content[0].content[0].text"),
        (CANARIES["a call"], "assistant", "messages[0].content[0].input.a[0]"),
        (CANARIES["metadata"], "request", "metadata.user_id"),
    ],
)
def test_a_text_has_its_role_and_place(fields, role, where):
    (seen,) = [text for text in MESSAGES.texts(question(**fields)) if text.value == "CANARY"]
    assert (seen.role, seen.where) == (role, where)


def test_known_roles_are_not_text():
    body = question(messages=[{"role": role, "content": "x"} for role in ("user", "assistant", "system")])
    assert [text.value for text in MESSAGES.texts(body)] == ["x", "x", "x"]


# --- answers


def observe(*events, report=None):
    report = report or Report()
    for event in events:
        assert MESSAGES.observe(event if isinstance(event, bytes) else json.dumps(event).encode(), report) is False
    return report


def start(**usage):
    message = {"type": "message", "model": "claude-x", "content": []}
    return {"type": "message_start", "message": message | {"usage": usage}}


def piece(kind, name, text):
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: text}}


def end(**usage):
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


INPUT = {"input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3}


def test_a_stream_is_observed():
    report = observe(
        start(**INPUT, output_tokens=1),
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        piece("thinking_delta", "thinking", "Hm"),
        piece("signature_delta", "signature", "EqQB"),
        piece("text_delta", "text", "Grüße"),
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        piece("input_json_delta", "partial_json", "{}"),
        {"type": "ping"},
        end(output_tokens=50, output_tokens_details={"thinking_tokens": 40}),
        {"type": "message_stop"},
    )
    assert report.model == "claude-x"
    assert report.finish_reasons == {0: "end_turn"}
    assert report.usage == Usage(33, 50, 20, 40, 3)
    assert report.usage.source == "provider"
    assert (report.output_bytes, report.output_events) == (2 + 7 + 1 + 2, 4)
    assert (report.error, report.usage_refused) == ("", False)


def test_a_plain_answer_is_observed():
    report = observe(
        {
            "type": "message",
            "model": "claude-x",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
                {"type": "text", "text": "Grüße"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": INPUT | {"output_tokens": 50},
        }
    )
    assert (report.model, report.finish_reasons) == ("claude-x", {0: "tool_use"})
    assert report.usage == Usage(33, 50, 20, 0, 3)
    assert report.output_bytes == 2 + 7 + 1 + len('{"a": 1}')


def test_a_stream_that_breaks_off_has_reported_its_input():
    report = observe(start(**INPUT, output_tokens=1), *[piece("text_delta", "text", "x" * 30)] * 10)
    assert report.usage == Usage(33, 1, 20, 0, 3, "estimated")
    assert (report.output_bytes, report.output_events) == (300, 10)


def test_later_counts_replace_earlier_ones():
    report = observe(start(**INPUT, output_tokens=1), end(input_tokens=11, cache_read_input_tokens=0, output_tokens=5))
    assert report.usage == Usage(14, 5, 0, 0, 3)


def test_a_single_count_is_kept():
    assert observe(end(output_tokens=5)).usage == Usage(0, 5)
    assert observe(end(input_tokens=5)).usage == Usage(5, 0, source="estimated")


def test_a_call_whose_input_comes_at_its_start_is_counted():
    block = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    report = observe({"type": "content_block_start", "index": 0, "content_block": block})
    assert report.output_bytes == 1 + len('{"a": 1}')


def test_counts_beside_the_message_are_added_once():
    iterations = [{"type": "compaction", "input_tokens": 100, "output_tokens": 7}, {"type": "message"}, "odd", None]
    report = observe(start(**INPUT, output_tokens=1), *[end(output_tokens=5, iterations=iterations)] * 2)
    assert report.usage == Usage(133, 12, 20, 0, 3)
    assert observe(end(output_tokens=5), report=report).usage == Usage(133, 12, 20, 0, 3)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1, "output_tokens": 5},
        {"input_tokens": "9", "output_tokens": 5},
        {"input_tokens": 9, "output_tokens": 1.5},
        {"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": []},
        {"input_tokens": 10**9, "output_tokens": 5, "cache_read_input_tokens": 10**9},
        "many",
    ],
)
def test_impossible_usage_is_not_believed(usage):
    report = observe({"type": "message", "content": [], "usage": usage})
    assert (report.usage, report.usage_refused) == (None, True)


def test_an_error_mid_stream_is_noted():
    assert observe({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}).error == "provider_error"


def test_an_unreadable_answer_counts_in_full():
    report = observe(b"{nonsense")
    assert (report.output_bytes, report.output_events) == (9, 1)


def test_a_thread_is_kept_at_anthropic_only():
    begun = MESSAGES.read(question(thread={"type": "create"}))
    assert (begun.needs, begun.unseen) == ({"thread": "thread"}, ())
    continued = MESSAGES.read(question(thread={"type": "continue", "previous_message_id": "msg_1"}))
    assert (continued.needs, continued.unseen) == ({"thread": "thread", "state": "thread"}, ("thread",))
    assert MESSAGES.read(question(thread=None)).needs == {}

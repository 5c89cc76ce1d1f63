import json

import pytest

from extproc.dialects import client_apis
from extproc.wire.framing.sse import SSE
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Failed, Finished, Started, Used
from tests.dialects import neutral

MESSAGES = client_apis()["anthropic_messages"]

USAGE = {"input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 20, "output_tokens": 1}
STARTED = Started("msg_1", "claude-x", usage=Usage(33, 1, 20, cache_write_tokens=3))
FINAL = Used(Usage(33, 50, 20, cache_write_tokens=3))


def start(usage=USAGE):
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    return {
        "type": "message_start",
        "message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage},
    }


def begin(index, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def text(index, value=""):
    return begin(index, type="text", text=value)


def call(index, id="toolu_1", name="f", **fields):
    return begin(index, type="tool_use", id=id, name=name, input={}, **fields)


def more(index, kind, value):
    name = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}.get(kind, kind[:9])
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: value}}


def stop(index):
    return {"type": "content_block_stop", "index": index}


def end(reason="end_turn", sequence=None, usage=None):
    usage = usage or USAGE | {"output_tokens": 50}
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence}, "usage": usage},
        {"type": "message_stop"},
    ]


def frames(events):
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def decode(stream):
    return neutral.read(MESSAGES, stream)


def encode(*events):
    """A client's stream, event by event."""
    encoder = MESSAGES.translation.encoder()
    stream = b"".join(encoder.feed(event) for event in events)
    found = []
    for event in SSE().feed(stream):
        assert event.raw.startswith(b"event: " + json.loads(event.data)["type"].encode() + b"\n")
        found.append(json.loads(event.data))
    return found


# Streams of the API and their neutral form, in both directions.
STREAMS = {
    "text": (
        [start(), text(0), more(0, "text_delta", "Hel"), more(0, "text_delta", "lo\n"), stop(0), *end()],
        [STARTED, Delta("text", "Hel", 0), Delta("text", "lo\n", 0), Finished(), FINAL, Ended()],
    ),
    "thinking and a call": (
        [
            start(),
            begin(0, type="thinking", thinking="", signature=""),
            more(0, "thinking_delta", "Hm"),
            more(0, "signature_delta", "EqQB"),
            stop(0),
            begin(1, type="redacted_thinking", data="EmwK"),
            stop(1),
            text(2),
            more(2, "text_delta", "Grüße"),
            stop(2),
            call(3),
            more(3, "input_json_delta", '{"city":'),
            more(3, "input_json_delta", ' "Köln"}'),
            stop(3),
            call(4, "toolu_2", "g"),
            more(4, "input_json_delta", "{}"),
            stop(4),
            *end("tool_use"),
        ],
        [
            STARTED,
            Delta("thinking", "Hm", 0),
            Delta("thinking", "", 0, signature="EqQB"),
            Delta("thinking", "", 1, redacted="EmwK"),
            Delta("text", "Grüße", 2),
            Delta("tool_call", "", 3, id="toolu_1", name="f"),
            Delta("tool_call", '{"city":', 3),
            Delta("tool_call", ' "Köln"}', 3),
            Delta("tool_call", "", 4, id="toolu_2", name="g"),
            Delta("tool_call", "{}", 4),
            Finished("tool_calls"),
            FINAL,
            Ended(),
        ],
    ),
    "thinking that is not shown": (
        [
            start(),
            begin(0, type="thinking", thinking="", signature=""),
            more(0, "signature_delta", "EqQB"),
            stop(0),
            text(1),
            more(1, "text_delta", "Hi"),
            stop(1),
            *end(),
        ],
        [
            STARTED,
            Delta("thinking", "", 0, signature="EqQB"),
            Delta("text", "Hi", 1),
            Finished(),
            FINAL,
            Ended(),
        ],
    ),
    "nothing": ([start(), *end("max_tokens")], [STARTED, Finished("length"), FINAL, Ended()]),
    "stopped": (
        [start(), *end("stop_sequence", "###")],
        [STARTED, Finished("stop_sequence", stop_sequence="###"), FINAL, Ended()],
    ),
    "refused": ([start(), *end("refusal")], [STARTED, Finished("refusal"), FINAL, Ended()]),
    "broken off": (
        [
            start(),
            text(0),
            more(0, "text_delta", "Hi"),
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        [STARTED, Delta("text", "Hi", 0), Failed("Overloaded", "overloaded_error")],
    ),
}


@pytest.mark.parametrize(("said", "means"), STREAMS.values(), ids=STREAMS)
def test_streams_are_read_and_written(said, means):
    assert decode(frames(said)) == means
    assert encode(*means) == said


# --- from a provider

ODDITIES = {
    "pings and comments": ([start(), {"type": "ping"}, text(0), {"type": "ping"}, *end()], []),
    "empty pieces": (
        [start(), text(0), more(0, "text_delta", ""), more(0, "thinking_delta", ""), stop(0), *end()],
        [],
    ),
    "events of next year": (
        [start(), {"type": "new"}, begin(0, type="new", text="x"), more(0, "new_delta", "x"), *end()],
        [],
    ),
    "citations": (
        [
            start(),
            text(0),
            {"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": {}}},
            more(0, "text_delta", "Hi"),
            stop(0),
            *end(),
        ],
        [Delta("text", "Hi", 0)],
    ),
    "what servers do": (
        [
            start(),
            begin(0, type="server_tool_use", id="srv_1", name="web_search", input={}),
            more(0, "input_json_delta", '{"query":"x"}'),
            stop(0),
            begin(1, type="web_search_tool_result", tool_use_id="srv_1", content=[]),
            stop(1),
            text(2),
            more(2, "text_delta", "Hi"),
            stop(2),
            *end(),
        ],
        [Delta("text", "Hi", 0)],
    ),
    "text in the first event of a block": (
        [start(), text(0, "Hel"), more(0, "text_delta", "lo"), *end()],
        [Delta("text", "Hel", 0), Delta("text", "lo", 0)],
    ),
    "thinking in the first event of a block": (
        [start(), begin(0, type="thinking", thinking="Hm", signature="EqQB"), *end()],
        [Delta("thinking", "Hm", 0, signature="EqQB")],
    ),
    "a call without arguments": (
        [start(), call(0), more(0, "input_json_delta", ""), stop(0), *end()],
        [Delta("tool_call", "", 0, id="toolu_1", name="f"), Delta("tool_call", "{}", 0)],
    ),
    "a call with its arguments at once": (
        [start(), begin(0, type="tool_use", id="toolu_1", name="f", input={"a": 1}), *end()],
        [Delta("tool_call", "", 0, id="toolu_1", name="f"), Delta("tool_call", '{"a": 1}', 0)],
    ),
    "calls side by side": (
        [
            start(),
            call(0),
            call(1, "toolu_2"),
            more(1, "input_json_delta", "{}"),
            more(0, "input_json_delta", "{}"),
            stop(0),
            stop(1),
            *end(),
        ],
        [
            Delta("tool_call", "", 0, id="toolu_1", name="f"),
            Delta("tool_call", "", 1, id="toolu_2", name="f"),
            Delta("tool_call", "{}", 1),
            Delta("tool_call", "{}", 0),
        ],
    ),
    "a second start": ([start(), start(), *end()], []),
    "no reason to stop": (
        [start(), {"type": "message_delta", "delta": {}, "usage": USAGE | {"output_tokens": 7}}, *end()],
        [Used(Usage(33, 7, 20, cache_write_tokens=3))],
    ),
}


@pytest.mark.parametrize(("said", "between"), ODDITIES.values(), ids=ODDITIES)
def test_unusual_streams_are_read(said, between):
    assert decode(frames(said)) == [STARTED, *between, Finished(), FINAL, Ended()]


def test_usage_in_unusual_places_is_read():
    usage = {"input_tokens": 5, "output_tokens": 1}
    said = [
        start(None),
        {"type": "ping", "usage": usage},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop", "usage": {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}},
    ]
    assert decode(frames(said)) == [
        Started("msg_1", "claude-x"),
        Used(Usage(5, 1)),
        Finished(),
        Used(Usage(5, 9, reasoning_tokens=4)),
        Ended(),
    ]


def test_impossible_usage_is_not_believed():
    said = [start({"input_tokens": -1, "output_tokens": True}), *end(usage={"output_tokens": "7"})]
    assert decode(frames(said)) == [Started("msg_1", "claude-x"), Finished(), Ended()]


def test_a_stream_without_its_start_is_refused():
    assert decode(frames([more(0, "text_delta", "Hi"), {"type": "message_stop"}])) == [
        Started(),
        Delta("text", "Hi", 0),
        Finished(),
        Ended(),
    ]


def test_a_cut_stream_has_no_end():
    assert decode(frames([start(), text(0), more(0, "text_delta", "Hi")])) == [STARTED, Delta("text", "Hi", 0)]


def test_nothing_follows_the_end():
    assert decode(frames([start(), *end(), more(0, "text_delta", "Hi"), {"type": "error"}])) == [
        STARTED,
        Finished(),
        FINAL,
        Ended(),
    ]


def test_a_refusals_reason_is_read():
    details = {"type": "refusal", "category": None, "explanation": "Not that."}
    delta = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    said = [start(), text(0), more(0, "text_delta", "Hi"), {"type": "message_delta", "delta": delta}]
    assert decode(frames(said))[2:] == [Delta("refusal", "Not that.", 1), Finished("refusal")]


@pytest.mark.parametrize("error", [{}, None, "x", {"type": [], "message": 1}])
def test_errors_of_other_shapes_are_read(error):
    (failed,) = [event for event in decode(frames([start(), {"type": "error", "error": error}])) if event != STARTED]
    assert isinstance(failed, Failed)
    assert failed.message
    assert failed.type == "api_error"


# --- to a client


def test_usage_may_follow_the_end_of_the_choice():
    said = encode(Started(), Delta("text", "Hi", 0), Finished(), Used(Usage(5, 2, reasoning_tokens=1)), Ended())
    assert said[-2]["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 2,
        "output_tokens_details": {"thinking_tokens": 1},
    }


def test_an_answer_without_a_start_gets_one():
    assert [event["type"] for event in encode(Delta("text", "Hi", 0))][:2] == ["message_start", "content_block_start"]
    assert [event["type"] for event in encode(Ended())] == ["message_start", "message_delta", "message_stop"]


def test_a_message_has_an_id():
    assert encode(Started())[0]["message"]["id"].startswith("msg_")


def test_a_call_has_an_id():
    assert encode(Delta("tool_call", "", 0, name="f"))[1]["content_block"]["id"].startswith("toolu_")


def test_further_choices_are_left_out():
    assert encode(Started(), Delta("text", "Hi", 0, choice=1), Finished("length", choice=1), Ended())[1] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": dict.fromkeys(USAGE, 0),
    }


def test_a_refusal_in_words_is_written():
    said = encode(Started(), Delta("refusal", "No.", 0), Finished(), Ended())
    assert said[2]["delta"] == {"type": "text_delta", "text": "No."}
    assert said[-2]["delta"]["stop_reason"] == "refusal"


def test_a_thought_signature_of_gemini_is_passed_on():
    said = encode(Delta("tool_call", "{}", 0, id="1", name="f", signature="sig"))
    assert said[1]["content_block"]["extra_content"] == {"google": {"thought_signature": "sig"}}
    assert said[2]["delta"] == {"type": "input_json_delta", "partial_json": "{}"}
    assert len(said) == 3


def test_interleaved_parts_are_written_one_after_the_other():
    said = encode(
        Started(),
        Delta("text", "a", 0),
        Delta("tool_call", '{"a"', 1, id="1", name="f"),
        Delta("tool_call", "{", 2, id="2", name="g"),
        Delta("tool_call", ":1}", 1),
        Delta("tool_call", "}", 2),
        Delta("text", "b", 0),
        Finished(),
        Ended(),
    )
    assert [(event["type"].removeprefix("content_block_"), event["index"]) for event in said[1:-2]] == [
        *[("start", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1), ("stop", 1)],
        *[("start", 2), ("delta", 2), ("delta", 1), ("delta", 2), ("stop", 2)],
        *[("start", 3), ("delta", 3), ("stop", 3)],
    ]

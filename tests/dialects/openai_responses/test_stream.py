"""Streams from a provider, and streams for a client."""

import json

import httpx
import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from extproc.dialects import openai_responses as api
from extproc.dialects.openai_responses import custom, signature
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from extproc.words.exchange import Usage
from extproc.words.messages import (
    Answer,
    Choice,
    Delta,
    Ended,
    Failed,
    Finished,
    RefusalPart,
    Started,
    TextPart,
    ThinkingPart,
    ToolCall,
    Used,
)
from tests.dialects import neutral

EVENT = TypeAdapter(ResponseStreamEvent)
COUNTS = Usage(10, 7, 4, 5, 2)
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 17,
}
TOKEN = {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
STARTED = Started("resp_1", "gpt-x", 1700000000)


# --- from a provider


def event(type, **fields):
    return {"type": type, "sequence_number": 0, **fields}


def created():
    response = {"id": "resp_1", "model": "gpt-x", "created_at": 1700000000, "status": "in_progress", "output": []}
    return event("response.created", response=response)


def ended(*output, type="response.completed", status="completed", usage=USAGE, **fields):
    response = {"id": "resp_1", "model": "gpt-x", "status": status, "output": list(output), "usage": usage, **fields}
    return event(type, response=response)


def added(index, **item):
    return event("response.output_item.added", output_index=index, item=item)


def done(index, **item):
    return event("response.output_item.done", output_index=index, item=item)


def more(kind, text, index=0, **fields):
    return event(f"response.{kind}.delta", output_index=index, item_id="x", delta=text, **fields)


def message(*texts):
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": text} for text in texts]}


def sse(*events):
    lines = [f"event: {said['type']}\ndata: {json.dumps(said)}\n\n" for said in events]
    return "".join(lines).encode()


def read(data):
    return neutral.read(api, data)


PLAIN = (
    [
        created(),
        event("response.in_progress", response={"id": "resp_1"}),
        added(0, type="message", id="msg_1", content=[]),
        event("response.content_part.added", output_index=0, content_index=0, part={"type": "output_text", "text": ""}),
        more("output_text", "Hel", content_index=0, logprobs=[]),
        more("output_text", "", content_index=0, logprobs=[]),
        more("output_text", "lo €", content_index=0, logprobs=[TOKEN], obfuscation="abc"),
        event("response.output_text.done", output_index=0, content_index=0, text="Hello €"),
        done(0, **message("Hello €")),
        ended(message("Hello €")),
    ],
    [
        STARTED,
        Delta("text", "Hel", 0),
        Delta("text", "lo €", 0, logprobs={"content": [TOKEN], "refusal": None}),
        Finished("stop"),
        Used(COUNTS),
        Ended(),
    ],
)
TOOLS = (
    [
        created(),
        added(0, type="reasoning", id="rs_1", summary=[]),
        event("response.reasoning_summary_part.added", output_index=0, summary_index=0, part={"text": ""}),
        more("reasoning_summary_text", "One", summary_index=0),
        more("reasoning_summary_text", ".", summary_index=0),
        event("response.reasoning_summary_part.added", output_index=0, summary_index=1, part={"text": ""}),
        more("reasoning_summary_text", "Two", summary_index=1),
        done(
            0,
            type="reasoning",
            id="rs_1",
            summary=[{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two"}],
            encrypted_content="gAAA",
        ),
        added(1, type="function_call", id="fc_1", call_id="c1", name="f", arguments=""),
        added(2, type="function_call", id="fc_2", call_id="c2", name="g", arguments=""),
        more("function_call_arguments", '{"a":', 1),
        more("function_call_arguments", '{"b"', 2),
        more("function_call_arguments", "1}", 1),
        more("function_call_arguments", ":2}", 2),
        event("response.function_call_arguments.done", output_index=1, arguments='{"a":1}'),
        done(1, type="function_call", id="fc_1", call_id="c1", name="f", arguments='{"a":1}'),
        done(2, type="function_call", id="fc_2", call_id="c2", name="g", arguments='{"b":2}'),
        ended(),
    ],
    [
        STARTED,
        Delta("thinking", "One", 0),
        Delta("thinking", ".", 0),
        Delta("thinking", "\n\nTwo", 0),
        Delta("thinking", "", 0, signature="openai:rs_1:gAAA"),
        Delta("tool_call", "", 1, 0, "c1", "f"),
        Delta("tool_call", "", 2, 0, "c2", "g"),
        Delta("tool_call", '{"a":', 1),
        Delta("tool_call", '{"b"', 2),
        Delta("tool_call", "1}", 1),
        Delta("tool_call", ":2}", 2),
        Finished("tool_calls"),
        Used(COUNTS),
        Ended(),
    ],
)
REFUSED = (
    [created(), more("refusal", "No", content_index=0), more("refusal", ".", content_index=0), ended(usage=None)],
    [STARTED, Delta("refusal", "No", 0), Delta("refusal", ".", 0), Finished("refusal"), Ended()],
)
CUT = (
    [
        created(),
        more("output_text", "Hi"),
        ended(
            message("Hi"),
            type="response.incomplete",
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        ),
    ],
    [STARTED, Delta("text", "Hi", 0), Finished("length"), Used(COUNTS), Ended()],
)
WITHOUT_PIECES = (
    [
        created(),
        done(0, type="reasoning", id="rs_1", content=[{"type": "reasoning_text", "text": "Hm"}]),
        done(1, **message("Hi")),
        more("function_call_arguments", "lost", 2),
        done(2, type="function_call", id="fc_1", name="f", arguments="{}"),
        ended({"type": "reasoning"}, message("Hi"), {"type": "function_call", "arguments": "{}"}, message("late")),
    ],
    [
        STARTED,
        Delta("thinking", "Hm", 0),
        Delta("text", "Hi", 1),
        Delta("tool_call", "", 2, 0, "fc_1", "f"),
        Delta("tool_call", "{}", 2),
        Delta("text", "\n\nlate", 3),
        Finished("tool_calls"),
        Used(COUNTS),
        Ended(),
    ],
)
RAW_THINKING = (
    [
        more("reasoning_text", "raw", content_index=0),
        more("reasoning_summary_text", "summary", summary_index=0),
        more("output_text", "Hi", 1),
        more("output_text", "!", 1, content_index=1),
        ended(),
    ],
    [
        Started(),
        Delta("thinking", "raw", 0),
        Delta("text", "Hi", 1),
        Delta("text", "!", 2),
        Finished("stop"),
        Used(COUNTS),
        Ended(),
    ],
)
BROKEN = (
    [
        created(),
        more("output_text", "Hi"),
        event("error", error={"type": "server_error", "code": "server_error", "message": "Oh no.", "param": None}),
        event("response.failed", response={"status": "failed", "error": {"code": "server_error", "message": "Oh no."}}),
    ],
    [STARTED, Delta("text", "Hi", 0), Failed("Oh no.", "api_error", "server_error")],
)
STREAMS = [PLAIN, TOOLS, REFUSED, CUT, WITHOUT_PIECES, RAW_THINKING, BROKEN]


@pytest.mark.parametrize(("said", "expected"), STREAMS)
def test_streams_are_read(said, expected):
    assert read(sse(*said)) == expected


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        (event("error", code="rate_limit_exceeded", message="Slow.", param=None), ("Slow.", "rate_limit_error")),
        (event("error", error={"code": "invalid_prompt", "message": "Bad."}), ("Bad.", "invalid_request_error")),
        (event("error", error={"type": "overloaded_error", "message": "Full."}), ("Full.", "overloaded_error")),
        (event("error", error="Oh."), ("Oh.", "api_error")),
        (event("error"), ("The provider broke off without saying why.", "api_error")),
        (
            event("response.failed", response={"error": {"code": "image_too_large", "message": "Big."}}),
            ("Big.", "invalid_request_error"),
        ),
        (event("response.failed"), ("The provider broke off without saying why.", "api_error")),
        (ended(error={"code": "server_error", "message": "Oh."}), ("Oh.", "api_error")),
        ({"error": {"message": "Oh.", "type": "insufficient_quota"}}, ("Oh.", "insufficient_quota")),
    ],
)
def test_errors_mid_stream_are_read(said, failed):
    events = api.decoder().feed(json.dumps(said).encode(), "")
    assert events[0] == Started()
    assert (events[1].message, events[1].type) == failed
    assert len(events) == 2


def test_nothing_follows_the_end():
    decoder = api.decoder()
    assert decoder.feed(json.dumps(ended()).encode(), "")[-1] == Ended()
    assert decoder.feed(json.dumps(more("output_text", "x")).encode(), "") == ()


def test_a_cut_stream_has_no_end():
    assert Ended() not in read(sse(*PLAIN[0][:-1]))
    assert read(b"") == []


# --- for a client


def write(*events):
    encoder = api.translation.encoder()
    return b"".join(encoder.feed(said) for said in events)


def frames(data):
    """The events of a stream. Each has a name, a number and a type that OpenAI's SDK knows."""
    found = []
    for number, frame in enumerate(data.decode().split("\n\n")[:-1]):
        name, _, payload = frame.partition("\n")
        said = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {said['type']}"
        assert said["sequence_number"] == number
        EVENT.validate_python(said, strict=True)
        found.append(said)
    return found


def final(data):
    """The finished response, as collected by OpenAI's SDK, which also checks the order of the events."""
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    )
    with (
        openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=httpx.Client(transport=transport)) as client,
        client.responses.stream(model="m", input="x") as stream,
    ):
        return stream.get_final_response()


ANSWERS = [
    (
        [Delta("text", "Hel", 0), Delta("text", "lo", 0), Finished(), Used(COUNTS)],
        [TextPart("Hello")],
        "stop",
    ),
    (
        [
            Delta("thinking", "H", 0),
            Delta("thinking", "m", 0),
            Delta("thinking", "", 0, signature="sig"),
            Delta("thinking", "", 1, redacted="enc"),
            Delta("text", "I ", 2),
            Delta("text", "look", 2),
            Delta("text", ".", 3),
            Delta("tool_call", "", 4, 0, "c1", "f"),
            Delta("tool_call", '{"a"', 4),
            Delta("tool_call", "", 5, 0, "c2", "g", "google"),
            Delta("tool_call", "{}", 5),
            Delta("tool_call", ":1}", 4),
            Delta("tool_call", "", 6, 0, "c3", "none"),
            Finished("tool_calls"),
            Used(COUNTS),
        ],
        [
            ThinkingPart("Hm", "sig"),
            ThinkingPart(redacted="enc"),
            TextPart("I look"),
            TextPart("."),
            ToolCall("c1", "f", '{"a":1}'),
            ToolCall("c2", "g", "{}", "google"),
            ToolCall("c3", "none", "{}"),
        ],
        "tool_calls",
    ),
    (
        [Delta("refusal", "N", 0), Delta("refusal", "o.", 0), Finished("refusal"), Used(COUNTS)],
        [RefusalPart("No.")],
        "refusal",
    ),
    (
        [Delta("text", "Hi", 0), Finished("length"), Used(COUNTS)],
        [TextPart("Hi")],
        "length",
    ),
    (
        [
            Delta("tool_call", '{"custom_tool', 0, 0, "c1", "patch"),
            Delta("tool_call", '_input": "x\\n', 0),
            Delta("tool_call", 'y"}', 0),
            Finished("tool_calls"),
            Used(COUNTS),
        ],
        [ToolCall("c1", "patch", custom.arguments("x\ny"))],
        "tool_calls",
    ),
]


def nameless(response):
    """The value without its ids, which are random."""
    body = json.loads(json.dumps(response))
    for item in body["output"]:
        item["id"] = item["id"].partition("_")[0]
    return body


@pytest.mark.parametrize(("events", "parts", "finish"), ANSWERS)
def test_a_stream_equals_a_plain_answer(events, parts, finish):
    answer = Answer([Choice(parts, finish)], "resp_1", "claude-x", 1700000000, COUNTS)
    data = write(Started("resp_1", "claude-x", 1700000000), *events, Ended())
    last = frames(data)[-1]
    expected, found = nameless(api.translation.encode_answer(answer)), nameless(last["response"])
    key = json.dumps
    assert sorted(found.pop("output"), key=key) == sorted(expected.pop("output"), key=key)
    assert found == expected
    assert last["type"] == f"response.{expected['status']}"
    assert (
        api.translation.decode_request({"model": "m", "input": last["response"]["output"]}).messages[0].parts == parts
    )
    if expected["status"] == "completed":
        gathered = final(data)
        assert [item.id for item in gathered.output] == [item["id"] for item in last["response"]["output"]]
        assert gathered.output_text == "".join(part.text for part in parts if isinstance(part, TextPart))


def test_events_come_in_openais_order():
    data = write(
        STARTED,
        Delta("thinking", "Hm", 0),
        Delta("thinking", "", 0, signature="sig"),
        Delta("text", "Hi", 1, logprobs={"content": [TOKEN], "refusal": None}),
        Delta("tool_call", "{}", 2, 0, "c1", "f"),
        Finished("tool_calls"),
        Ended(),
    )
    found = frames(data)
    assert [said["type"].removeprefix("response.") for said in found] == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    assert [said["output_index"] for said in found if "output_index" in said] == [0] * 6 + [1] * 6 + [2] * 4
    assert found[7]["item"]["encrypted_content"] == signature.pack("sig")
    assert found[10]["logprobs"] == [TOKEN]
    assert found[-1]["response"]["usage"] is None


def test_a_failure_ends_in_the_failed_response():
    failed = Failed("Oh no.", "rate_limit_error")
    data = write(STARTED, Delta("text", "done", 0), Delta("thinking", "x", 1), failed)
    *_, error, last = (json.loads(frame.partition("data: ")[2]) for frame in data.decode().split("\n\n")[:-1])
    assert error["type"] == "error"
    assert (error["message"], error["error"]["type"]) == ("Oh no.", "rate_limit_error")
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "rate_limit_exceeded", "message": "Oh no."}
    assert [item["type"] for item in last["response"]["output"]] == ["message"]
    assert b"response.completed" not in data
    frames(data)
    with pytest.raises(openai.APIError, match=r"Oh no\."):
        final(data)


def test_an_immediate_failure_is_written():
    assert [said["type"] for said in frames(write(Failed("Oh.")))] == [
        *("response.created", "response.in_progress", "error", "response.failed")
    ]


def test_further_choices_are_left_out():
    data = write(STARTED, Delta("text", "a", 0), Delta("text", "b", 0, 1), Finished(), Finished(choice=1), Ended())
    assert final(data).output_text == "a"


def test_the_gateway_reads_its_own_streams():
    data = write(STARTED, Delta("text", "Hello", 0), Finished("length"), Used(COUNTS), Ended())
    report = Report()
    for framed in SSE().feed(data):
        api.observe(framed.data, report)
    assert report.usage == Usage(10, 7, cached_tokens=4, reasoning_tokens=5, cache_write_tokens=2)
    assert (report.model, report.output_bytes, report.finish_reasons) == ("gpt-x", 5, {0: "length"})


@pytest.mark.parametrize(("said", "expected"), STREAMS)
def test_a_stream_that_was_read_can_be_written(said, expected):
    """The written stream reads the same, except for ids, signatures and the cuts between pieces."""

    def whole(events):
        texts = {}
        for one in events:
            if isinstance(one, Delta):
                key = (one.block, one.kind)
                texts[key] = texts.get(key, "") + one.text
        return texts, [type(one) for one in events if not isinstance(one, Delta)]

    assert whole(read(write(*expected))) == whole(expected)

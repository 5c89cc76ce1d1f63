import json

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from extproc.dialects import client_apis
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Failed, Finished, Started, TextPart, ThinkingPart, ToolCall, Used
from tests.dialects import neutral

CHAT = client_apis()["openai_chat"]
STARTED = Started("chatcmpl-1", "m-1", 1700000000)
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
LOGPROBS = {"content": [{"token": "H", "logprob": -0.1, "bytes": None, "top_logprobs": []}], "refusal": None}


def chunk(*choices, **fields):
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m-1",
        "choices": list(choices),
    } | fields


def piece(content=None, *, index=0, finish=None, **delta):
    if content is not None:
        delta["content"] = content
    return {"index": index, "delta": delta, "finish_reason": finish}


def call(index, arguments=None, id=None, name=None, **fields):
    function = {"name": name, "arguments": arguments}
    found = {"index": index, "id": id, "function": {key: value for key, value in function.items() if value is not None}}
    return {key: value for key, value in found.items() if value is not None} | fields


def stream(*events):
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )


def decode(data):
    return neutral.read(CHAT, data)


def encode(*events):
    encoder = CHAT.translation.encoder()
    return b"".join(encoder.feed(event) for event in events)


# --- from a provider

DONE = b"[DONE]"
STREAMS = {
    "text": (
        [
            chunk(piece("", role="assistant", refusal=None)),
            chunk(piece("Grü")),
            chunk(piece("ße")),
            chunk(piece(finish="stop")),
            chunk(usage=USAGE),
            DONE,
        ],
        [
            STARTED,
            Delta("text", "Grü", 0),
            Delta("text", "ße", 0),
            Finished("stop"),
            Used(Usage(5, 3)),
            Ended(),
        ],
    ),
    "everything in one chunk": (
        [chunk(piece("Hi", finish="length"), usage=USAGE), DONE],
        [STARTED, Delta("text", "Hi", 0), Finished("length"), Used(Usage(5, 3)), Ended()],
    ),
    "usage in every chunk": (
        [
            chunk(piece("a"), usage={"prompt_tokens": 5, "completion_tokens": 0}),
            chunk(piece("b"), usage={"prompt_tokens": 5, "completion_tokens": 3}),
            chunk(piece(finish="stop"), usage={"prompt_tokens": 5, "completion_tokens": 3}),
            DONE,
        ],
        [
            STARTED,
            Delta("text", "a", 0),
            Used(Usage(5, 0)),
            Delta("text", "b", 0),
            Used(Usage(5, 3)),
            Finished("stop"),
            Ended(),
        ],
    ),
    "usage inside a choice": (
        [chunk(piece("a")), chunk(piece(finish="stop") | {"usage": USAGE}), DONE],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Used(Usage(5, 3)), Ended()],
    ),
    "usage as Groq tells it": (
        [chunk(piece("a"), x_groq={"id": "r"}), chunk(piece(finish="stop"), x_groq={"id": "r", "usage": USAGE}), DONE],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Used(Usage(5, 3)), Ended()],
    ),
    "no end marker": (
        [chunk(piece("a")), chunk(piece(finish="stop"))],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Ended()],
    ),
    "cut off": ([chunk(piece("a"))], [STARTED, Delta("text", "a", 0)]),
    "one of two choices cut off": (
        [chunk(piece("a"), piece("b", index=1)), chunk(piece(finish="stop"))],
        [STARTED, Delta("text", "a", 0), Delta("text", "b", 0, 1), Finished("stop")],
    ),
    "no finish reason": (
        [chunk(piece("a")), DONE],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Ended()],
    ),
    "empty finish reasons": (
        [chunk(piece("a", finish="")), chunk(piece("b", finish="")), chunk(piece(finish="stop")), DONE],
        [STARTED, Delta("text", "a", 0), Delta("text", "b", 0), Finished("stop"), Ended()],
    ),
    "nothing": ([DONE], [Started(), Finished("stop"), Ended()]),
    "no bytes": ([], []),
    "Azure's first chunk": (
        [
            {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": []},
            chunk(piece("a", finish="stop")),
            DONE,
        ],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Ended()],
    ),
    "several choices": (
        [
            chunk(piece("a")),
            chunk(piece("b", index=1)),
            chunk(piece("c"), piece(finish="length", index=1)),
            chunk(piece(finish="stop")),
            DONE,
        ],
        [
            STARTED,
            Delta("text", "a", 0),
            Delta("text", "b", 0, 1),
            Delta("text", "c", 0),
            Finished("length", 1),
            Finished("stop"),
            Ended(),
        ],
    ),
    "thinking, then text": (
        [
            chunk(piece(reasoning_content="h", role="assistant")),
            chunk(piece("", reasoning_content="m")),
            chunk(piece("Hi", reasoning_content=None)),
            chunk(piece(finish="stop")),
            DONE,
        ],
        [
            STARTED,
            Delta("thinking", "h", 0),
            Delta("thinking", "m", 0),
            Delta("text", "Hi", 1),
            Finished("stop"),
            Ended(),
        ],
    ),
    "thinking, OpenRouter's way": (
        [chunk(piece("", reasoning="hm")), chunk(piece("Hi", finish="stop", reasoning=None)), DONE],
        [STARTED, Delta("thinking", "hm", 0), Delta("text", "Hi", 1), Finished("stop"), Ended()],
    ),
    "thinking, Mistral's way": (
        [
            chunk(piece([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])),
            chunk(piece([{"type": "text", "text": "H"}])),
            chunk(piece("i", finish="stop")),
            DONE,
        ],
        [
            STARTED,
            Delta("thinking", "hm", 0),
            Delta("text", "H", 1),
            Delta("text", "i", 1),
            Finished("stop"),
            Ended(),
        ],
    ),
    "thinking with signatures, as another gateway of this kind gives it": (
        [
            chunk(piece(reasoning_content="h")),
            chunk(piece(reasoning_content="m")),
            chunk(piece(thinking_blocks=[{"index": 0, "type": "thinking", "thinking": "hm", "signature": "S"}])),
            chunk(piece(thinking_blocks=[{"index": 1, "type": "redacted_thinking", "data": "X"}])),
            chunk(piece(reasoning_content="so")),
            chunk(piece("Hi", finish="stop")),
            DONE,
        ],
        [
            STARTED,
            Delta("thinking", "h", 0),
            Delta("thinking", "m", 0),
            Delta("thinking", "", 0, signature="S"),
            Delta("thinking", "", 1, redacted="X"),
            Delta("thinking", "so", 2),
            Delta("text", "Hi", 3),
            Finished("stop"),
            Ended(),
        ],
    ),
    "thinking with signatures, as LiteLLM gives it": (
        [
            chunk(
                piece(
                    reasoning_content="hm",
                    thinking_blocks=[{"type": "thinking", "thinking": "hm", "signature": None}],
                )
            ),
            chunk(piece(thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "S"}])),
            chunk(piece("Hi", finish="stop")),
            DONE,
        ],
        [
            STARTED,
            Delta("thinking", "hm", 0),
            Delta("thinking", "", 0, signature="S"),
            Delta("text", "Hi", 1),
            Finished("stop"),
            Ended(),
        ],
    ),
    "a refusal": (
        [chunk(piece(refusal="N")), chunk(piece(refusal="o")), chunk(piece(finish="stop")), DONE],
        [STARTED, Delta("refusal", "N", 0), Delta("refusal", "o", 0), Finished("refusal"), Ended()],
    ),
    "parallel calls": (
        [
            chunk(piece("Wait")),
            chunk(piece(tool_calls=[call(0, "", "call_1", "f")])),
            chunk(piece(tool_calls=[call(0, '{"a"')])),
            chunk(piece(tool_calls=[call(0, ":1}"), call(1, "{", "call_2", "g")])),
            chunk(piece(tool_calls=[call(1, "}")])),
            chunk(piece(finish="tool_calls")),
            DONE,
        ],
        [
            STARTED,
            Delta("text", "Wait", 0),
            Delta("tool_call", "", 1, id="call_1", name="f"),
            Delta("tool_call", '{"a"', 1),
            Delta("tool_call", ":1}", 1),
            Delta("tool_call", "{", 2, id="call_2", name="g"),
            Delta("tool_call", "}", 2),
            Finished("tool_calls"),
            Ended(),
        ],
    ),
    "calls that all have the same index": (
        [
            chunk(piece(tool_calls=[call(0, "{}", "call_1", "f")])),
            chunk(piece(tool_calls=[call(0, "[]", "call_2", "f")])),
            chunk(piece(finish="stop")),
            DONE,
        ],
        [
            STARTED,
            Delta("tool_call", "{}", 0, id="call_1", name="f"),
            Delta("tool_call", "[]", 1, id="call_2", name="f"),
            Finished("tool_calls"),
            Ended(),
        ],
    ),
    "calls without an index": (
        [
            chunk(piece(tool_calls=[call(None, "{", "call_1", "f"), call(None, "[", "call_2", "g")])),
            chunk(piece(tool_calls=[call(None, "}", "call_1"), call(None, "]")], finish="tool_calls")),
            DONE,
        ],
        [
            STARTED,
            Delta("tool_call", "{", 0, id="call_1", name="f"),
            Delta("tool_call", "[", 1, id="call_2", name="g"),
            Delta("tool_call", "}", 0),
            Delta("tool_call", "]", 1),
            Finished("tool_calls"),
            Ended(),
        ],
    ),
    "a new id in every piece of a call": (
        [
            chunk(piece(tool_calls=[call(0, "{", "call_1", "f")])),
            chunk(piece(tool_calls=[call(0, "}", "call_2")])),
            chunk(piece(finish="tool_calls")),
            DONE,
        ],
        [
            STARTED,
            Delta("tool_call", "{", 0, id="call_1", name="f"),
            Delta("tool_call", "}", 0),
            Finished("tool_calls"),
            Ended(),
        ],
    ),
    "a name that comes late": (
        [
            chunk(piece(tool_calls=[call(0, "{", "call_1")])),
            chunk(piece(tool_calls=[call(0, "}", name="f")])),
            chunk(piece(finish="tool_calls")),
            DONE,
        ],
        [STARTED, Delta("tool_call", "{}", 0, id="call_1", name="f"), Finished("tool_calls"), Ended()],
    ),
    "a name that never comes": (
        [chunk(piece(tool_calls=[call(0, "{}", "call_1")])), chunk(piece(finish="tool_calls")), DONE],
        [STARTED, Delta("tool_call", "{}", 0, id="call_1"), Finished("tool_calls"), Ended()],
    ),
    "thought signatures": (
        [
            chunk(
                piece(
                    tool_calls=[call(0, "{}", "1", "f", extra_content={"google": {"thought_signature": "S"}})],
                )
            ),
            chunk(piece(finish="stop")),
            DONE,
        ],
        [STARTED, Delta("tool_call", "{}", 0, id="1", name="f", signature="S"), Finished("tool_calls"), Ended()],
    ),
    "logprobs": (
        [
            chunk(piece("H") | {"logprobs": LOGPROBS}),
            chunk(piece("") | {"logprobs": LOGPROBS}),
            chunk(piece(finish="stop") | {"logprobs": None}),
            DONE,
        ],
        [
            STARTED,
            Delta("text", "H", 0, logprobs=LOGPROBS),
            Delta("text", "", 0, logprobs=LOGPROBS),
            Finished("stop"),
            Ended(),
        ],
    ),
    "what cannot be read": (
        [
            b"nonsense",
            b"[]",
            {"choices": "x"},
            chunk(piece("a")),
            b"\xff",
            b"{",
            b"",
            chunk(piece(finish="stop")),
            DONE,
        ],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Ended()],
    ),
    "odd values": (
        [
            {"id": 7, "model": None, "created": "now", "choices": [piece("a"), {"index": "x"}, {"index": -1}]},
            chunk(piece({"a": 1}, refusal=[], reasoning=5, thinking_blocks="x", tool_calls=[{}]), usage=[]),
            chunk({"index": 10**9, "delta": {"content": "x"}}, {"index": 0}, {"index": 0, "delta": None}),
            chunk(piece(finish="stop"), usage={}),
            DONE,
        ],
        [Started(), Delta("text", "a", 0), Finished("stop"), Ended()],
    ),
    "what comes after the end": (
        [chunk(piece("a", finish="stop")), chunk(piece("b")), DONE, chunk(piece("c")), DONE],
        [STARTED, Delta("text", "a", 0), Finished("stop"), Ended()],
    ),
    "an error": (
        [
            chunk(piece("a")),
            {"error": {"message": "busy", "type": "overloaded_error", "code": None}},
            chunk(piece("b")),
            DONE,
        ],
        [STARTED, Delta("text", "a", 0), Failed("busy", "overloaded_error")],
    ),
    "an error, OpenRouter's way": (
        [
            chunk(piece("a")),
            chunk(piece("", finish="error"), error={"code": 429, "message": "slow"}),
        ],
        [STARTED, Delta("text", "a", 0), Failed("slow", "rate_limit_error", "429")],
    ),
    "an error, older vLLM's way": (
        [chunk(piece("a")), {"object": "error", "message": "x", "type": "InternalServerError", "code": 500}, DONE],
        [STARTED, Delta("text", "a", 0), Failed("x", "api_error", "500")],
    ),
    "an error as a finish reason": (
        [chunk(piece("a")), chunk(piece(finish="insufficient_system_resource")), DONE],
        [STARTED, Delta("text", "a", 0), Failed("The provider broke off.")],
    ),
    "an error at once": ([{"error": "no"}], [Started(), Failed("no")]),
}


@pytest.mark.parametrize(("given", "expected"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read(given, expected):
    assert decode(stream(*given)) == expected


def test_calls_without_ids_get_one():
    events = decode(stream(chunk(piece(tool_calls=[call(0, "{}", name="f"), call(1, "{}", name="f")]))))
    ids = {event.id for event in events if isinstance(event, Delta)}
    assert len(ids) == 2
    assert all(id.startswith("call_") for id in ids)


# --- for a client


def payloads(data):
    return [json.loads(frame.data) if frame.data != DONE else "[DONE]" for frame in SSE().feed(data)]


def test_chunks_come_in_openais_order():
    found = payloads(
        encode(
            STARTED,
            Delta("text", "Hi", 0, logprobs=LOGPROBS),
            Used(Usage(5, 1)),
            Finished("stop_sequence"),
            Used(Usage(5, 3, 2, 1, 1)),
            Ended(),
        )
    )
    assert found == [
        chunk(piece("", role="assistant", refusal=None) | {"logprobs": None}),
        chunk(piece("Hi") | {"logprobs": LOGPROBS}),
        chunk(piece(finish="stop") | {"logprobs": None}),
        chunk(
            usage=USAGE
            | {
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 1},
            }
        ),
        "[DONE]",
    ]


def test_a_failure_is_an_error_event_without_an_end():
    found = payloads(encode(STARTED, Delta("text", "Hi", 0), Failed("busy", "overloaded_error", "529")))
    error = {"message": "busy", "type": "overloaded_error", "param": None, "code": "529"}
    assert found[2:] == [{"error": error}]


def test_missing_fields_are_filled_in():
    [first, second] = payloads(encode(Started(), Delta("text", "Hi", 0)))
    assert first["id"].startswith("chatcmpl-")
    assert first["created"] > 1_700_000_000
    assert second["id"] == first["id"]


def test_every_choice_begins_with_its_role():
    found = payloads(encode(STARTED, Delta("text", "a", 0, 1), Finished("stop", 1), Delta("text", "b", 0), Ended()))
    said = [(choice["index"], choice["delta"]) for event in found[:-1] for choice in event["choices"]]
    role = {"role": "assistant", "content": "", "refusal": None}
    assert said == [(0, role), (1, role), (1, {"content": "a"}), (1, {}), (0, {"content": "b"})]


ALL = [
    STARTED,
    Delta("thinking", "h", 0),
    Delta("thinking", "m", 0),
    Delta("thinking", "", 0, signature="S"),
    Delta("thinking", "", 1, redacted="X"),
    Delta("text", "Hel", 2),
    Delta("text", "lo", 2),
    Delta("tool_call", "", 3, id="call_1", name="f"),
    Delta("tool_call", '{"a":', 3),
    Delta("tool_call", "{}", 4, id="call_2", name="g", signature="T"),
    Delta("tool_call", "1}", 3),
    Finished("tool_calls"),
    Used(Usage(5, 3)),
    Ended(),
]


def test_a_written_stream_reads_as_the_original():
    events = decode(encode(*ALL))
    assert events == ALL


def test_chunks_fit_openais_types():
    for payload in payloads(encode(*ALL))[:-1]:
        ChatCompletionChunk.model_validate(payload)


def client(data):
    """OpenAI's own client, which gets this answer."""
    answer = httpx.Response(200, content=data, headers={"content-type": "text/event-stream"})
    return openai.OpenAI(api_key="k", http_client=httpx.Client(transport=httpx.MockTransport(lambda _: answer)))


def test_openais_sdk_collects_a_stream_and_sends_it_back():
    question = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    with client(encode(*ALL)).chat.completions.stream(**question) as answer:
        said = answer.get_final_completion()
    assert said.choices[0].finish_reason == "tool_calls"
    assert said.usage.total_tokens == 8
    prompt = CHAT.translation.decode_request({"model": "m", "messages": [said.choices[0].message.model_dump()]})
    assert prompt.messages[0].parts == [
        ThinkingPart("hm", "S"),
        ThinkingPart(redacted="X"),
        TextPart("Hello"),
        ToolCall("call_1", "f", '{"a":1}'),
        ToolCall("call_2", "g", "{}", "T"),
    ]


def test_openais_sdk_raises_a_failure():
    data = encode(STARTED, Delta("text", "Hi", 0), Failed("busy", "overloaded_error"))
    found = []
    with pytest.raises(openai.APIError, match="busy"):
        found.extend(client(data).chat.completions.create(model="m", messages=[], stream=True))
    assert len(found) == 2


def test_a_refusal_in_words_finishes_as_openais_does():
    for event, reason in ((Delta("refusal", "No", 0), "stop"), (Delta("text", "x", 0), "content_filter")):
        last = payloads(encode(STARTED, event, Finished("refusal")))[-1]
        assert last["choices"][0]["finish_reason"] == reason


def test_the_gateway_reads_its_own_streams():
    report = Report()
    for frame in SSE().feed(encode(*ALL)):
        CHAT.observe(frame.data, report)
    assert report.usage == Usage(5, 3)
    assert report.finish_reasons == {0: "tool_calls"}
    assert report.model == "m-1"

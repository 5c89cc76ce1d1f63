"""Anthropic's SDK reads the answers of the dialect, and the dialect reads the requests of the SDK."""

import json
from collections.abc import Iterator

import pydantic
import pytest

from extproc.dialects import client_apis
from extproc.words.dialect import Destination
from extproc.words.errors import INVALID_REQUEST, OVERLOADED, RATE_LIMITED
from extproc.words.exchange import Usage
from extproc.words.messages import (
    Answer,
    Choice,
    Delta,
    Ended,
    Failed,
    FilePart,
    Finished,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Started,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Used,
)

anthropic = pytest.importorskip("anthropic")
httpx = pytest.importorskip("httpx2")  # the SDK's

MESSAGES = client_apis()["anthropic_messages"]
QUESTION = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
PARTS = [
    ThinkingPart("Hm", "EqQB"),
    ThinkingPart(redacted="EmwK"),
    TextPart("Grüße"),
    ToolCall("toolu_1", "f", '{"city":"Köln"}', "sig"),
    ToolCall("toolu_2", "g", "{}"),
]
EVENTS = [
    Started("msg_1", "claude-x", usage=Usage(33, 1, 20, cache_write_tokens=3)),
    Delta("thinking", "Hm", 0),
    Delta("thinking", "", 0, signature="EqQB"),
    Delta("thinking", "", 1, redacted="EmwK"),
    Delta("text", "Grü", 2),
    Delta("text", "ße", 2),
    Delta("tool_call", "", 3, id="toolu_1", name="f", signature="sig"),
    Delta("tool_call", '{"city":', 3),
    Delta("tool_call", "", 4, id="toolu_2", name="g"),
    Delta("tool_call", '"Köln"}', 3),  # in parallel with the next one
    Delta("tool_call", "{}", 4),
    Finished("tool_calls"),
    Used(Usage(33, 50, 20, 40, 3)),
    Ended(),
]


def client(body, status=200, content_type="application/json"):
    """An SDK client that gets `body` as its answer. The list holds the requests it sent."""
    sent = []

    def answer(request):
        sent.append(json.loads(request.content))
        return httpx.Response(status, headers={"content-type": content_type}, content=body)

    transport = httpx.Client(transport=httpx.MockTransport(answer))
    return anthropic.Anthropic(api_key="sk", http_client=transport, max_retries=0), sent


def streaming(events):
    encoder = MESSAGES.translation.encoder()
    return client(b"".join(encoder.feed(event) for event in events), content_type="text/event-stream")


def check(message):
    assert [block.type for block in message.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert message.content[0].signature == "EqQB"
    assert message.content[2].text == "Grüße"
    assert message.content[3].input == {"city": "Köln"}
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 50)
    assert message.usage.cache_read_input_tokens == 20
    assert message.usage.output_tokens_details.thinking_tokens == 40


def test_plain_answers_survive_the_sdk():
    answer = Answer(
        [Choice(PARTS, "tool_calls")],
        "msg_1",
        "claude-x",
        usage=Usage(33, 50, 20, 40, 3),
    )
    sdk, sent = client(json.dumps(MESSAGES.translation.encode_answer(answer)))
    message = sdk.messages.create(**QUESTION)
    check(message)
    sdk.messages.create(**QUESTION | {"messages": [{"role": "assistant", "content": message.content}]})
    assert MESSAGES.translation.decode_request(sent[-1]).messages == [Message("assistant", PARTS)]


def test_streamed_answers_survive_the_sdk():
    sdk, sent = streaming(EVENTS)
    with sdk.messages.stream(**QUESTION) as stream:
        message = stream.get_final_message()
    check(message)
    with sdk.messages.stream(**QUESTION | {"messages": [{"role": "assistant", "content": message.content}]}):
        pass
    assert MESSAGES.translation.decode_request(sent[-1]).messages == [Message("assistant", PARTS)]


def test_the_sdk_knows_every_event():
    sdk, _ = streaming(EVENTS)
    adapter = pydantic.TypeAdapter(anthropic.types.RawMessageStreamEvent)
    for event in sdk.messages.create(**QUESTION, stream=True):
        adapter.validate_python(event.to_dict())


def test_a_failure_mid_stream_is_an_error_of_the_sdk():
    sdk, _ = streaming([*EVENTS[:5], Failed("Overloaded", "overloaded_error")])
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"), sdk.messages.stream(**QUESTION) as stream:
        stream.get_final_message()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (INVALID_REQUEST, anthropic.BadRequestError),
        (RATE_LIMITED, anthropic.RateLimitError),
        (OVERLOADED, anthropic.InternalServerError),
    ],
)
def test_refusals_are_exceptions_of_the_sdk(kind, error):
    sdk, _ = client(json.dumps(MESSAGES.replies.error(kind, "What is wrong.", "model")), kind.status)
    with pytest.raises(error, match="What is wrong") as raised:
        sdk.messages.create(**QUESTION)
    assert raised.value.type == MESSAGES.replies.error(kind, "", None)["error"]["type"]


def drained(value):
    """The value with every iterable read, because pydantic checks them only then."""
    if isinstance(value, dict):
        return {key: drained(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Iterator) or type(value).__name__ == "ValidatorIterator":
        return [drained(item) for item in value]
    return value


CACHE = {"type": "ephemeral", "ttl": "1h"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
PROMPTS = {
    "everything": {
        "system": [TextPart("a", CACHE), TextPart("b")],
        "messages": [
            Message("user", [TextPart("a"), ImagePart("AAAA", "image/png"), FilePart("AAAA", "application/pdf")]),
            Message("user", [ImagePart(url="https://x"), FilePart(id="file_1"), FilePart("SGk=", "text/plain")]),
            Message("assistant", PARTS),
            Message("user", [ToolResult("toolu_1", [TextPart("7")]), ToolResult("toolu_2", [], error=True)]),
        ],
        "tools": [Tool("f", "d", SCHEMA, strict=True, cache=CACHE), Tool("g")],
        "tool_choice": ToolChoice("tool", "f"),
        "parallel_tools": False,
        "format": OutputFormat(SCHEMA),
        "effort": "high",
        "show_thinking": True,
        "stop": ["x"],
        "user": "u",
        "service_tier": "default",
    },
    "little": {"messages": []},
    "past calls": {
        "messages": [Message("assistant", [ToolCall("1", "f", "{}")]), Message("user", [ToolResult("1", [])])]
    },
}
MODELS = ["claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8", "claude-sonnet-5-5", "claude-opus-5-5"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PROMPTS)
def test_requests_fit_the_types_of_the_sdk(name, model):
    body, _ = MESSAGES.encode_request(Prompt("m", **PROMPTS[name]), Destination(model, 64_000))
    content = pydantic.TypeAdapter(list[anthropic.types.ContentBlockParam])
    for message in body["messages"]:
        drained(content.validate_python(message["content"]))
    for field, type in (
        ("thinking", anthropic.types.ThinkingConfigParam),
        ("tool_choice", anthropic.types.ToolChoiceParam),
        ("tools", list[anthropic.types.ToolParam]),
        ("output_config", anthropic.types.OutputConfigParam),
        ("metadata", anthropic.types.MetadataParam),
        ("system", str | list[anthropic.types.TextBlockParam]),
    ):
        if field in body:
            drained(pydantic.TypeAdapter(type).validate_python(body[field]))
    known = {"model", "max_tokens", "messages", "system", "thinking", "tools", "tool_choice", "output_config"}
    assert body.keys() <= known | {"stop_sequences", "metadata", "service_tier"}

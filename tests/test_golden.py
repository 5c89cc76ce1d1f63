"""Every client API to every provider's API and back, in readable files.

    golden/requests/<client>/<case>.json             a client's request
    golden/requests/<client>/<case>/<provider>.json  the provider's request: path, body and ignored fields; or
                                                     the reason why it is skipped, or the request refused
    golden/answers/<provider>/<case>.json            a provider's answer, `error_429` with that status; streamed as
                                                     .sse or, where the stream is Amazon's, as .events.json, a list of
                                                     [headers, payload]
    golden/answers/<provider>/<case>/<client>.json   the client's answer, or .sse

`GOLDEN_UPDATE=1 pytest tests/test_golden.py` writes the expected files again. Read every change of them.
"""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from extproc.dialects import client_apis, provider_apis
from extproc.exchange.translation.translate import Translation
from extproc.wire.framing.aws_eventstream import encode
from extproc.words.contract import Service
from extproc.words.dialect import NATIVE, Destination, Endpoint
from extproc.words.errors import Refusal
from tests.samples import exhaustive, some

ROOT = Path(__file__).parent / "golden"
UPDATE = os.environ.get("GOLDEN_UPDATE") == "1"

CLIENTS = {
    name: dialect
    for name, dialect in client_apis().items()
    if dialect.family == "chat" and dialect.translation is not None
}
SERVICES = {
    service.dialect: service
    for service in (
        Service("openai", "openai_chat", "gpt-5.2", 65536),
        Service("openai", "openai_responses", "gpt-5.2", 65536),
        Service("anthropic", "anthropic_messages", "claude-opus-4-6", 65536),
        Service("gcp_gemini", "gemini_generate_content", "gemini-3.8-flash", 65536),
        Service("aws_bedrock", "aws_converse", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 65536),
        Service("cohere", "cohere_chat", "command-a-reasoning-08-2025", 32768),
    )
}
STREAMS = (".sse", ".events.json")


def files(directory):
    """The cases of a folder by name, none where there is no folder yet."""
    return {path.name.partition(".")[0]: path for path in sorted(directory.glob("*")) if path.is_file()}


def asks_of(client):
    return files(ROOT / "requests" / client)


def answers_of(provider):
    return files(ROOT / "answers" / provider)


REQUESTS = [
    (client, case, provider)
    for client in CLIENTS
    for case in asks_of(client)
    for provider in SERVICES
    if provider != client
]
ANSWERS = [
    (provider, case, path, client)
    for provider in SERVICES
    for case, path in answers_of(provider).items()
    for client in CLIENTS
    if provider != client
]
PLAIN = [row for row in ANSWERS if not row[2].name.endswith(STREAMS)]
STREAMED = [row for row in ANSWERS if row[2].name.endswith(STREAMS)]


def each(names, rows):
    ids = ["-".join(part for part in row if isinstance(part, str)) for row in rows]
    return pytest.mark.parametrize(names, rows, ids=ids)


@pytest.fixture(autouse=True)
def pinned(monkeypatch):
    """Restarts the counting of ids, and stops the clock."""
    monkeypatch.setattr("time.time", lambda: 1767323045.0)

    def begin():
        numbers = itertools.count(1)
        monkeypatch.setattr("os.urandom", lambda size: next(numbers).to_bytes(size, "big"))

    begin()
    return begin


def check(path, made):
    """Check that the file holds `made`: bytes, or a value as JSON."""
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            made if isinstance(made, bytes) else (json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode()
        )
    assert path.exists(), f"{path} is missing: GOLDEN_UPDATE=1 writes it, then read it"
    found = path.read_bytes()
    assert made == (found if isinstance(made, bytes) else json.loads(found))


def test_every_dialect_has_golden_files():
    providers = {name for name, api in provider_apis().items() if api.family == "chat"}
    missing = [
        *(f"a client's request in {ROOT}/requests/{name}/basic.json" for name in CLIENTS if not asks_of(name)),
        *(f"a provider's answer in {ROOT}/answers/{name}/basic.json" for name in providers if not answers_of(name)),
        *(f"{name} with a model in SERVICES of {__file__}" for name in providers - set(SERVICES)),
    ]
    assert not missing, f"Write {', '.join(missing)}; GOLDEN_UPDATE=1 then writes what is expected of them."
    assert set(SERVICES) == providers


def test_no_golden_file_is_unused():
    expected = {f"requests/{client}/{case}/{provider}.json" for client, case, provider in REQUESTS}
    for provider, case, path, client in ANSWERS:
        expected.add(f"answers/{provider}/{case}/{client}{'.sse' if path.name.endswith(STREAMS) else '.json'}")
    assert expected == {str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/*/*")}


# --- requests


def asked(client, case):
    return json.loads((ROOT / "requests" / client / f"{case}.json").read_bytes())


@each(("client", "case", "provider"), REQUESTS)
def test_requests_match_the_golden_files(client, case, provider):
    body = asked(client, case)
    before = json.dumps(body)
    ask = CLIENTS[client].read(body, Endpoint(next(iter(CLIENTS[client].endpoints.paths)), "chat", "m"))
    translation = Translation(CLIENTS[client], replace(SERVICES[provider], stream=ask.stream))
    unsaid = [need for need in ask.needs if need in translation.api.able.lacks | NATIVE]
    if unsaid:
        made = {"skipped": unsaid}  # Select never sends the request there
    else:
        try:
            path, sent = translation.request(body)
            made = {"path": path, "body": json.loads(sent), "ignored": translation.ignored}
        except Refusal as refusal:
            made = {"refused": {"code": refusal.kind.code, "message": refusal.message}}
    assert json.dumps(body) == before  # the next try begins with it again
    check(ROOT / "requests" / client / case / f"{provider}.json", made)


# Changes to a request that is decoded and encoded again in the same API, by case. Texts without properties of their
# own are joined, defaults of the API are written, unused fields are dropped, and strict schemas are
# closed.
CHANGED = {
    ("openai_chat", "files"): {"messages"},
    ("openai_chat", "json_object"): {"system"},
    ("openai_chat", "sampling"): {"metadata"},
    ("openai_chat", "system_and_developer"): {"system"},
    ("openai_responses", "cache_marks"): {"messages"},
    ("openai_responses", "custom_tool"): {"tools"},
    ("openai_responses", "image_url"): {"messages"},
    ("openai_responses", "json_object"): {"system"},
    ("openai_responses", "parallel_tools"): {"messages", "tools"},
    ("openai_responses", "reasoning"): {"messages"},
    ("openai_responses", "system_and_developer"): {"system"},
    ("anthropic_messages", "conversation"): {"messages"},
    ("anthropic_messages", "reasoning"): {"messages"},
    ("anthropic_messages", "tools"): {"tools"},
    ("gemini_generate_content", "conversation"): {"messages"},
    ("gemini_generate_content", "files"): {"messages"},
    ("gemini_generate_content", "parallel_tools"): {"messages"},
    ("gemini_generate_content", "reasoning"): {"messages", "effort", "thinking_budget"},
    ("gemini_generate_content", "reasoning_adaptive"): {"show_thinking", "thinking_adaptive"},
    ("gemini_generate_content", "sampling"): {"presence_penalty", "frequency_penalty"},
}
ONLY_THERE = {("gemini_generate_content", "hosted_tool"), ("gemini_generate_content", "file_of_google")}
"""Requests that no translation can carry."""


@each(("client", "case"), dict.fromkeys(row[:2] for row in REQUESTS if row[0] in SERVICES))
def test_a_request_encoded_again_asks_for_the_same(client, case):
    dialect, model = CLIENTS[client], SERVICES[client].model
    if (client, case) in ONLY_THERE:
        with pytest.raises(Refusal, match="only at Google"):
            dialect.translation.decode_request(asked(client, case))
        return
    asks = dialect.translation.decode_request(asked(client, case) | {"model": model})
    body, _ = dialect.encode_request(asks, Destination(model, more=("thinking", "cache_control", "top_k")))
    again = dialect.translation.decode_request(body)
    asks.ignored = []
    changed = {name for name in asks.__struct_fields__ if getattr(asks, name) != getattr(again, name)}
    assert changed == CHANGED.get((client, case), set())


# --- answers


def answered(path):
    if path.name.endswith(".sse"):
        return path.read_bytes()
    found = json.loads(path.read_bytes())
    if path.name.endswith(".events.json"):
        return b"".join(encode(headers, json.dumps(payload).encode()) for headers, payload in found)
    return json.dumps(found, separators=(",", ":")).encode()


@each(("provider", "case", "path", "client"), PLAIN)
def test_plain_answers_match_the_golden_files(provider, case, path, client):
    translation = Translation(CLIENTS[client], SERVICES[provider])
    _, _, status = case.partition("error_")
    body = answered(path)
    made = translation.problem(int(status), body) if status else translation.answer(body)[0]
    check(path.parent / case / f"{client}.json", json.loads(made))


def translated(provider, client, *pieces):
    translation = Translation(CLIENTS[client], SERVICES[provider])
    stream = translation.stream(translation.api.able.stream_type, event_limit=1 << 20, body_limit=1 << 20)
    return b"".join(stream.feed(piece, end=False) for piece in pieces) + stream.feed(b"", end=True)


@each(("provider", "case", "path", "client"), STREAMED)
def test_streamed_answers_match_the_golden_files(provider, case, path, client, pinned):
    whole = answered(path)
    made = translated(provider, client, whole)
    check(path.parent / case / f"{client}.sse", made)
    pinned()
    assert made == translated(provider, client, *(whole[at : at + 1] for at in range(len(whole))))
    for cut in some(range(1, len(whole)), 8):
        pinned()
        assert made == translated(provider, client, whole[:cut], whole[cut:]), cut


@exhaustive
@each(("provider", "case", "path", "client"), STREAMED)
def test_streamed_answers_cut_at_every_byte_match(provider, case, path, client, pinned):
    whole = answered(path)
    made = translated(provider, client, whole)
    for cut in range(1, len(whole)):
        pinned()
        assert made == translated(provider, client, whole[:cut], whole[cut:]), cut


@pytest.mark.parametrize("client", ["anthropic_messages", "openai_responses", "gemini_generate_content"])
@pytest.mark.parametrize("provider", SERVICES)
def test_thinking_of_another_provider_is_distinguished_from_a_providers_own(provider, client):
    """Otherwise a provider would get foreign thinking, and refuse it. Claude's signatures on Bedrock are Anthropic's
    own.
    """
    if provider == client or (provider, client) == ("aws_converse", "anthropic_messages"):
        return
    said = (ROOT / "answers" / provider / "reasoning" / f"{client}.json").read_bytes()
    assert any(trace in said for trace in CLIENTS[client].translation.traces)


# --- the official SDKs

TEXTS = {"basic": "Hello there! How can I help?", "reasoning": "Four.", "tools": ""}
CALLS = {"tools": [("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Oslo"})]}


def answering(httpx, data):
    """A client of either version of httpx that always gets this stream."""
    headers = {"content-type": "text/event-stream"}
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=data)))


class OpenAIChat:
    whole, event = TypeAdapter(ChatCompletion), TypeAdapter(ChatCompletionChunk)

    def final(self, data):
        client = openai.OpenAI(api_key="k", http_client=answering(httpx, data), max_retries=0)
        with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as stream:
            message = stream.get_final_completion().choices[0].message
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
        return message.content or "", calls


class OpenAIResponses:
    whole, event = TypeAdapter(Response), TypeAdapter(ResponseStreamEvent)

    def final(self, data):
        client = openai.OpenAI(api_key="k", http_client=answering(httpx, data), max_retries=0)
        with client.responses.stream(model="m", input="x") as stream:
            response = stream.get_final_response()
        calls = [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]
        return response.output_text, calls


class AnthropicMessages:
    def __init__(self):
        types = pytest.importorskip("anthropic.types")
        self.whole, self.event = TypeAdapter(types.Message), TypeAdapter(types.RawMessageStreamEvent)

    def final(self, data):
        import anthropic

        http = answering(pytest.importorskip("httpx2"), data)
        client = anthropic.Anthropic(api_key="k", http_client=http, max_retries=0)
        with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as stream:
            message = stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        return text, [(block.name, block.input) for block in message.content if block.type == "tool_use"]


class GeminiGenerateContent:
    def __init__(self):
        types = pytest.importorskip("google.genai.types")
        self.whole = self.event = TypeAdapter(types.GenerateContentResponse)

    def final(self, data):
        from google import genai

        told = [event for event in data.split(b"\n\n") if not event.startswith(b":")]  # as the gateway attachment does
        http = answering(httpx, b"\n\n".join(told))
        client = genai.Client(api_key="k", http_options={"httpx_client": http})
        events = list(client.models.generate_content_stream(model="m", contents="x"))
        assert events[-1].candidates[0].finish_reason == "STOP", "a stream that was cut"
        parts = [part for event in events for part in event.candidates[0].content.parts or ()]
        text = "".join(part.text for part in parts if part.text and not part.thought)
        return text, [(call.name, call.args) for part in parts if (call := part.function_call)]


# Of the clients that have one.
SDKS = {
    "openai_chat": OpenAIChat,
    "openai_responses": OpenAIResponses,
    "anthropic_messages": AnthropicMessages,
    "gemini_generate_content": GeminiGenerateContent,
}


@each(("provider", "case", "path", "client"), [row for row in PLAIN if row[3] in SDKS])
def test_sdks_read_the_answers(provider, case, path, client):
    if "error_" not in case:
        SDKS[client]().whole.validate_json((path.parent / case / f"{client}.json").read_bytes(), strict=True)


@each(("provider", "case", "path", "client"), [row for row in STREAMED if row[3] in SDKS])
def test_sdks_collect_the_streams(provider, case, path, client):
    sdk, data = SDKS[client](), (path.parent / case / f"{client}.sse").read_bytes()
    what = case.removeprefix("streaming_")
    if what not in TEXTS:
        with pytest.raises(Exception, match=r"broke off|overloaded|Overloaded|server had an error|failed to|complete"):
            sdk.final(data)
        return
    assert sdk.final(data) == (TEXTS[what], CALLS.get(what, []))
    for line in data.splitlines():
        if line.startswith(b"data: {"):
            sdk.event.validate_json(line[6:], strict=True)

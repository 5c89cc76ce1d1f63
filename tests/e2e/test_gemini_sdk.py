"""Gemini's API for clients, through Envoy: Google's SDK to providers of every API; only its base URL is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.auth.credentials import Credentials
from google.genai import errors, types

from tests.e2e.conftest import KEY, Gateway, run_gateway

MOCKS = ("openai", "anthropic", "gemini", "groq", "bedrock", "cohere")
SETTINGS = """
providers:
  openai: {kind: openai, base_url: "{mock_openai}"}
  anthropic: {kind: anthropic, base_url: "{mock_anthropic}"}
  gemini: {kind: gcp_gemini, base_url: "{at_gemini}/v1beta"}
  groq: {kind: groq, base_url: "{mock_groq}"}
  bedrock: {kind: aws_bedrock, region: us-east-1, base_url: "{at_bedrock}", api_key: env:EXTPROC_DEMO_KEY}
  cohere: {kind: cohere, base_url: "{at_cohere}/v2"}
  down: {kind: gcp_gemini, base_url: "http://127.0.0.1:9/v1beta"}
models:
  gpt-5.4: {provider: openai}
  claude-sonnet-4-6: {provider: anthropic}
  gemini: {provider: gemini, model: gemini-3-flash-preview}
  org/llama: {provider: groq, model: llama-3.3-70b-versatile}
  nova: {provider: bedrock, model: "amazon.nova-pro-v1:0"}
  text-embedding-3-small: {provider: openai}
  gemini-embedding-001: {provider: gemini}
  embed-v4.0: {provider: cohere}
  lost: {provider: down, model: gemini-3-flash-preview}
  capped: {provider: gemini, model: gemini-2.5-flash, max_output_tokens: 3}
  small: {provider: gemini, model: gemini-2.5-flash}
virtual_models:
  over: {targets: [{model: lost}, {model: claude-sonnet-4-6}]}
  back: {targets: [{model: lost}, {model: gemini}]}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
guardrails:
  - {name: words, kind: regex, patterns: {CANARY: "CANARY-[0-9]+"}, action: mask, on: [input, output],
     applies_to: {models: [small]}}
budgets:
  - {name: tokens, per: [consumer], unit: tokens, limit: 100000000, window: minute}
stores: {counters: "memory:"}
"""
CHAT = ("gpt-5.4", "claude-sonnet-4-6", "gemini", "org/llama", "nova", "over", "back")
EMBEDDINGS = ("gemini-embedding-001", "text-embedding-3-small", "embed-v4.0")
each = pytest.mark.parametrize("model", CHAT)
HELLO: Any = {"contents": [{"role": "user", "parts": [{"text": "Hello there"}]}]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("gemini")
    yield from run_gateway(folder, SETTINGS, MOCKS, {})


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


@pytest.fixture(scope="module")
def sdk(shared: Gateway) -> Iterator[genai.Client]:
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=shared.url)) as client:
        yield client


def weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: 18 degrees"


def said(answer: types.GenerateContentResponse) -> types.Content:
    [candidate] = answer.candidates or ()
    assert candidate.content is not None
    return candidate.content


def finish(answer: types.GenerateContentResponse) -> Any:
    [candidate] = answer.candidates or ()
    return candidate.finish_reason


@each
def test_a_request_is_answered(sdk: genai.Client, gateway: Gateway, model: str) -> None:
    config = types.GenerateContentConfig(system_instruction="Be brief.", max_output_tokens=50)
    answer = sdk.models.generate_content(model=model, contents="Hello there", config=config)
    assert answer.text == "You said: Hello there"
    assert finish(answer) == "STOP"
    usage = answer.usage_metadata or types.GenerateContentResponseUsageMetadata()
    assert usage.prompt_token_count
    assert usage.candidates_token_count
    entry = gateway.last(lambda entry: entry.get("model") == model)
    assert (entry["status"], entry["usage_source"]) == (200, "provider")
    assert (entry["input_tokens"], entry["output_tokens"]) == (usage.prompt_token_count, usage.candidates_token_count)


@each
def test_a_stream_comes_piece_by_piece(sdk: genai.Client, gateway: Gateway, model: str) -> None:
    events = list(sdk.models.generate_content_stream(model=model, contents="Hello there"))
    assert "".join(event.text or "" for event in events) == "You said: Hello there"
    assert len(events) > 2
    assert finish(events[-1]) == "STOP"
    assert events[-1].usage_metadata
    assert events[-1].usage_metadata.candidates_token_count
    assert gateway.last(lambda entry: entry.get("model") == model and entry["stream"])["usage_source"] == "provider"


@each
def test_a_tool_is_called_and_its_result_comes_back(sdk: genai.Client, gateway: Gateway, model: str) -> None:
    """The SDK runs the function itself and sends the call back, with its signature where there is one."""
    config = types.GenerateContentConfig(tools=[weather])
    answer = sdk.models.generate_content(
        model=model, contents='Please call weather with {"city": "Oslo"}', config=config
    )
    assert "The tool said: " in (answer.text or "")
    assert "Oslo: 18 degrees" in (answer.text or "")
    assert gateway.calls() == 2


def test_a_conversation_moves_from_one_provider_to_another(sdk: genai.Client, gateway: Gateway) -> None:
    """Gemini 3 refuses calls without signatures of its own, and the others refuse Google's."""
    contents: list[Any] = [types.UserContent('Please call weather with {"city": "Oslo"}')]
    config = types.GenerateContentConfig(
        tools=[weather], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
    )
    for model in ("gpt-5.4", "gemini", "claude-sonnet-4-6", "gemini", "org/llama", "nova"):
        answer = sdk.models.generate_content(model=model, contents=contents, config=config)
        [call] = answer.function_calls or ()
        result = types.Part.from_function_response(name=call.name or "", response={"result": weather("Oslo")})
        contents += [said(answer), types.Content(role="user", parts=[result])]
        again = sdk.models.generate_content(model=model, contents=contents, config=config)
        assert "Oslo: 18 degrees" in (again.text or ""), model
        contents += [said(again), contents[0]]


def test_structured_output_pictures_and_thinking_reach_a_provider_of_another_api(
    sdk: genai.Client, gateway: Gateway
) -> None:
    config = types.GenerateContentConfig(
        response_mime_type="application/json",
        response_schema={"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
        thinking_config=types.ThinkingConfig(thinking_budget=2000, include_thoughts=True),
        max_output_tokens=9000,
    )
    picture = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n\xff\xfb\xfe", mime_type="image/png")
    answer = sdk.models.generate_content(model="claude-sonnet-4-6", contents=["Where?", picture], config=config)
    first = (said(answer).parts or [])[0]
    assert (first.thought, bool(first.thought_signature)) == (True, True)
    assert json.loads(answer.text or "").keys() == {"city"}
    [seen] = gateway.seen("anthropic")
    assert seen["body"]["thinking"]["budget_tokens"] == 2000
    image = next(block for block in seen["body"]["messages"][0]["content"] if block["type"] == "image")
    assert image["source"]["data"] == "iVBORw0KGgr/+/4="


@pytest.mark.parametrize("model", EMBEDDINGS)
def test_texts_become_vectors(sdk: genai.Client, gateway: Gateway, model: str) -> None:
    config = types.EmbedContentConfig(task_type="RETRIEVAL_QUERY") if model != "text-embedding-3-small" else None
    answer = sdk.models.embed_content(model=model, contents=["one", "two"], config=config)
    assert answer.embeddings
    assert len(answer.embeddings) == 2
    body = {"content": {"parts": [{"text": "one"}]}, **({"taskType": "RETRIEVAL_QUERY"} if config else {})}
    single = gateway.post(f"/v1beta/models/{model}:embedContent", body).json()
    assert single["embedding"]["values"] == pytest.approx(answer.embeddings[0].values)
    assert gateway.last(lambda entry: entry.get("model") == model)["operation"] == "embeddings"


@pytest.mark.parametrize("model", ["gemini", "gpt-5.4", "over"])
def test_tokens_are_counted_or_estimated(sdk: genai.Client, gateway: Gateway, model: str) -> None:
    assert sdk.models.count_tokens(model=model, contents="Hello there, and more").total_tokens
    whole = {
        "generateContentRequest": {"model": f"models/{model}", **HELLO, "systemInstruction": {"parts": [{"text": "x"}]}}
    }
    assert gateway.post(f"/v1beta/models/{model}:countTokens", whole).json()["totalTokens"]
    assert len(gateway.seen("gemini")) == (2 if model == "gemini" else 0)


def test_models_are_listed_in_its_shape(sdk: genai.Client, gateway: Gateway) -> None:
    assert {f"models/{name}" for name in CHAT} <= {model.name for model in sdk.models.list()}
    assert sdk.models.get(model="org/llama").display_name == "org/llama"
    with pytest.raises(errors.ClientError, match="no model 'none'"):
        sdk.models.get(model="none")


def test_errors_are_in_its_shape(sdk: genai.Client, gateway: Gateway) -> None:
    for model, status, name in (("none", 404, "NOT_FOUND"), ("lost", 503, "UNAVAILABLE")):
        for call in (sdk.models.generate_content, lambda **asked: list(sdk.models.generate_content_stream(**asked))):
            with pytest.raises(errors.APIError) as failed:
                call(model=model, contents="Hello")
            assert (failed.value.code, failed.value.status) == (status, name)
    other = genai.Client(api_key="wrong", http_options=types.HttpOptions(base_url=gateway.url))
    with other, pytest.raises(errors.ClientError) as refused:
        other.models.generate_content(model="gemini", contents="Hello")
    assert (refused.value.code, refused.value.status) == (401, "UNAUTHENTICATED")
    gateway.fault("anthropic", "errorevent=2")
    with pytest.raises(errors.APIError) as failed:
        list(sdk.models.generate_content_stream(model="claude-sonnet-4-6", contents="Hello there"))
    assert failed.value.code in (500, 503)


def test_a_provider_of_the_same_api_gets_the_clients_body(gateway: Gateway) -> None:
    body = {**HELLO, "safetySettings": [], "generationConfig": {"temperature": 0.10}}
    assert gateway.post("/v1beta/models/gemini:generateContent", body).status_code == 200
    [seen] = gateway.seen("gemini")
    assert seen["body"] == body
    assert seen["path"] == "/v1beta/models/gemini-3-flash-preview:generateContent"


def test_a_body_spelled_with_underscores_means_the_same(gateway: Gateway) -> None:
    """Google's servers take both spellings, so a limit in the other one counts, too."""
    body = {**HELLO, "generation_config": {"max_output_tokens": 2}, "system_instruction": {"parts": [{"text": "x"}]}}
    answer = gateway.post("/v1beta/models/gemini:generateContent", body).json()
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"
    [seen] = gateway.seen("gemini")
    assert seen["body"]["generationConfig"] == {"maxOutputTokens": 2}
    both = body | {"generationConfig": {"maxOutputTokens": 3}}
    assert gateway.post("/v1beta/models/gemini:generateContent", both).json()["error"]["status"] == "INVALID_ARGUMENT"


def test_the_limit_of_a_model_is_written_beside_the_clients_settings(gateway: Gateway) -> None:
    body = {**HELLO, "generationConfig": {"temperature": 0.5, "maxOutputTokens": 100}}
    assert gateway.post("/v1beta/models/capped:generateContent", body).status_code == 200
    [seen] = gateway.seen("gemini")
    assert seen["body"]["generationConfig"] == {"temperature": 0.5, "maxOutputTokens": 3}


@pytest.mark.parametrize("model", ["gemini", "gpt-5.4"])
def test_a_stream_without_events_is_one_array(gateway: Gateway, model: str) -> None:
    path = f"/v1beta/models/{model}:streamGenerateContent"
    answer = gateway.post(path, HELLO)
    assert answer.headers["content-type"].startswith("application/json")
    events = answer.json()
    texts = [event["candidates"][0]["content"]["parts"][0].get("text", "") for event in events]
    assert "".join(texts) == "You said: Hello there"
    assert len(events) > 2
    gateway.fault(*(("gemini", "errorevent=2") if model == "gemini" else ("openai", "errorevent=2")))
    assert "error" in gateway.post(path, HELLO).json()[-1]


def test_a_key_in_the_query_is_taken_and_goes_no_further(gateway: Gateway) -> None:
    for place, headers in ((f"?key={KEY}", {}), ("", {"x-goog-api-key": KEY})):
        for verb in ("generateContent", "streamGenerateContent"):
            url = f"{gateway.url}/v1beta/models/gemini:{verb}{place}"
            assert gateway.http.post(url, json=HELLO, headers=headers).status_code == 200
        assert gateway.http.get(f"{gateway.url}/v1beta/models{place}", headers=headers).status_code == 200
    assert gateway.http.post(f"{gateway.url}/v1beta/models/gemini:generateContent?key=x", json=HELLO).status_code == 401
    for seen in gateway.seen("gemini"):
        assert KEY not in json.dumps(seen)
    assert KEY not in gateway.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("alt", ["?alt=sse", ""])
def test_guardrails_mask_requests_and_streams(gateway: Gateway, alt: str) -> None:
    body = {"contents": [{"parts": [{"text": "Say CANARY"}, {"text": "-123 now"}]}]}
    answer = gateway.post(f"/v1beta/models/small:streamGenerateContent{alt}", body)
    assert "CANARY-123" not in answer.text
    assert "[CANARY]" in answer.text.replace('"}', "")
    assert "CANARY-123" not in json.dumps(gateway.seen("gemini"))


def test_the_sdk_in_its_vertex_mode_is_served(gateway: Gateway) -> None:
    """With a key its paths have no project; with a project it sends a token of Google's, here the gateway's key."""
    signed = type("Signed", (Credentials,), {"refresh": lambda self, request: setattr(self, "token", KEY)})()
    options = types.HttpOptions(base_url=gateway.url)
    for more in ({"api_key": KEY}, {"project": "p", "location": "europe-west4", "credentials": signed}):
        with genai.Client(vertexai=True, http_options=options, **more) as client:  # type: ignore[arg-type]
            for model in ("gemini", "claude-sonnet-4-6"):
                assert client.models.generate_content(model=model, contents="Hello").text
                chunks = list(client.models.generate_content_stream(model=model, contents="Hello"))
                assert "".join(chunk.text or "" for chunk in chunks)
            assert client.models.count_tokens(model="gemini", contents="Hello").total_tokens

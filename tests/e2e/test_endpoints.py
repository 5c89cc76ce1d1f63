"""Endpoints beside chat and embeddings, with the official SDKs through Envoy: what they answer, and what is kept from
them: grants, guardrails, budgets, accounts.
"""

from __future__ import annotations

import json
import random
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import openai
import pytest
from openai import OpenAI

from tests.doubles.audio import SOUND
from tests.doubles.images import PIXEL
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway

OTHER = "sk-gw-other"
SECRET = "AKIA" + "CANARY7CANARY7XX"
YAML = """
providers:
  openai: {kind: openai, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
  cohere: {kind: cohere, base_url: "{at_openai}/v2", api_key: env:OPENAI_KEY}
  jina: {kind: jina, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
  mistral: {kind: mistral_ai, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
  voyage: {kind: voyage, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
  down: {kind: openai, base_url: "http://127.0.0.1:9/v1"}
models:
  ranker: {provider: cohere, model: rerank-v3.5, price: {input: 0, output: 0, per_request: 0.002}}
  "jina/*": {provider: jina}
  "voyage/*": {provider: voyage}
  omni-moderation-latest: {provider: openai}
  gpt-5.4: {provider: openai}
  gpt-image-1: {provider: openai}
  "openai/*": {provider: openai}
  dall-e-3: {provider: openai, price: {input: 0, output: 0, image: 0.04, image_sizes: {hd/1024x1792: 0.12}}}
  mistral-ocr-latest: {provider: mistral}
  lost: {provider: down, model: gpt-image-2}
  unheard: {provider: down, model: whisper-2}
virtual_models:
  ranking: {targets: [{model: ranker}, {model: jina/jina-reranker-v3}]}
  drawing: {targets: [{model: lost}, {model: gpt-image-1}]}
  hearing: {targets: [{model: unheard}, {model: openai/gpt-4o-transcribe}]}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: other, keys: [{env: OTHER_KEY}]}
  - {name: narrow, keys: [{env: NARROW_KEY}], models: [gpt-5.4]}
  - {name: poor, keys: [{env: POOR_KEY}]}
budgets:
  - {name: nothing, match: {consumer: poor}, unit: requests, limit: 0, window: day}
  - {name: money, unit: usd, limit: 100, window: day}
guardrails:
  - {name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}'}}
  - {name: badges, kind: regex, action: mask, patterns: {badge: 'BADGE-[0-9]{4}'}}
  - {name: codes, kind: regex, on: [output], action: mask, longest: 12, applies_to: {consumers: [other]},
     patterns: {code: 'ZEBRA-[0-9]{4}'}}
stores: {counters: "memory:"}
"""
ENV = {"OPENAI_KEY": "sk-upstream", "OTHER_KEY": OTHER, "NARROW_KEY": "sk-gw-narrow", "POOR_KEY": "sk-gw-poor"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("endpoints"), YAML, ("openai",), ENV)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


@pytest.fixture(scope="module")
def sdk(shared: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=shared.base_url, api_key=KEY, max_retries=0, timeout=30) as sdk:
        yield sdk


DOCUMENTS = ["Cats purr", "Berlin is a city", "The capital of Germany is Berlin"]
ASKED: dict[str, Any] = {"query": "capital of Germany", "documents": DOCUMENTS}


# --- rerank


def test_cohere_ranks_for_its_sdk(gateway: Gateway):
    with httpx.Client(trust_env=False) as http:
        client = cohere.ClientV2(api_key=KEY, base_url=gateway.url, httpx_client=http)
        answer = client.rerank(model="ranker", query="city of Berlin", documents=DOCUMENTS, top_n=2)
    assert [result.index for result in answer.results] == [1, 2]
    [seen] = gateway.seen("openai")
    assert (seen["path"], seen["body"]["model"]) == ("/v2/rerank", "rerank-v3.5")
    row = gateway.last(lambda entry: entry["operation"] == "rerank")
    assert (row["model"], row["cost_usd"], row["provider"]) == ("ranker", 0.002, "cohere")


def test_jina_and_voyage_rank_in_their_own_shapes(gateway: Gateway):
    jina = gateway.post("/v1/rerank", {"model": "jina/jina-reranker-v3", "top_n": 1, "return_documents": True, **ASKED})
    assert jina.json()["results"] == [{"index": 2, "relevance_score": 1.0, "document": {"text": DOCUMENTS[2]}}]
    assert gateway.exchange_of(jina)["input_tokens"] == jina.json()["usage"]["total_tokens"]
    voyage = gateway.post("/v1/rerank", {"model": "voyage/rerank-2.5", "top_k": 1, **ASKED})
    assert voyage.json()["data"] == [{"relevance_score": 1.0, "index": 2}]
    wrong = gateway.post("/v1/rerank", {"model": "voyage/rerank-2.5", "top_n": 1, **ASKED})
    assert (wrong.status_code, wrong.headers["x-ai-error-origin"]) == (400, "provider")


def test_a_rerank_fails_over(gateway: Gateway):
    gateway.fault("openai", "status=503+first=1")
    answer = gateway.post("/v1/rerank", {"model": "ranking", "top_n": 1, **ASKED})
    assert (answer.status_code, answer.headers["x-ai-provider"]) == (200, "jina")
    assert [seen["body"]["model"] for seen in gateway.seen("openai")] == ["rerank-v3.5", "jina-reranker-v3"]


def test_a_provider_without_the_endpoint_is_named(gateway: Gateway):
    answer = gateway.post("/v1/rerank", {"model": "gpt-5.4", **ASKED})
    assert answer.status_code == 400
    assert "provider openai does not serve /v1/rerank" in answer.json()["error"]["message"]


# --- documents


def test_pages_of_documents_are_read_and_charged(gateway: Gateway):
    document = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
    asked = {"model": "mistral-ocr-latest", "document": document}
    answer = gateway.post("/v1/ocr", asked)
    assert [page["markdown"] for page in answer.json()["pages"]] == ["# Page 0", "# Page 1", "# Page 2"]
    row = gateway.exchange_of(answer)
    assert (row["operation"], row["provider"], row["cost_usd"]) == ("ocr", "mistral", 0.012)
    assert row["price_version"].startswith("genai-prices")
    form = {"document_annotation_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}
    row = gateway.exchange_of(gateway.post("/v1/ocr", asked | form | {"pages": [0, 2]}))
    assert row["cost_usd"] == 0.01  # 0.005 for each page with annotations
    wrong = gateway.post("/v1/ocr", asked | {"document": {"type": "file", "file_id": "someone-elses"}})
    assert wrong.json()["error"]["code"] == "foreign_object"  # nobody reads another's file
    assert len(gateway.seen("openai")) == 2


# --- moderations


def test_moderations_flag_text(gateway: Gateway, sdk: OpenAI):
    [result] = sdk.moderations.create(input="an attack").results
    assert result.flagged
    assert result.categories.violence
    [seen] = gateway.seen("openai")
    assert seen["body"] == {"input": "an attack", "model": "omni-moderation-latest"}
    row = gateway.last(lambda entry: entry["operation"] == "moderation")
    assert (row["model"], row["cost_usd"]) == ("omni-moderation-latest", 0)
    assert len(sdk.moderations.create(model="omni-moderation-latest", input=["a", "b"]).results) == 2


# --- responses that OpenAI keeps


def test_a_stored_response_is_read_and_deleted(gateway: Gateway, sdk: OpenAI):
    made = sdk.responses.create(model="gpt-5.4", input="Hello")
    assert made.id.startswith("resp_kept_")
    found = sdk.responses.retrieve(made.id)
    assert (found.id, found.output_text) == (made.id, made.output_text)
    items = sdk.responses.input_items.list(made.id, limit=5, order="asc")
    assert [item.type for item in items.data] == ["message"]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        sdk.responses.cancel(made.id)
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as gone:
        sdk.responses.retrieve(made.id)
    assert gone.value.response.headers["x-ai-error-origin"] == "provider"
    paths = [
        (seen["method"], seen["path"].replace(seen["path"].split("/")[3].split("?")[0], "ID"))
        for seen in gateway.seen("openai")[1:]
    ]
    assert paths == [
        ("GET", "/v1/responses/ID"),
        ("GET", "/v1/responses/ID/input_items?limit=5&order=asc"),
        ("POST", "/v1/responses/ID/cancel"),
        ("DELETE", "/v1/responses/ID"),
        ("GET", "/v1/responses/ID"),
    ]
    assert "kept_" not in str(gateway.seen("openai"))
    row = gateway.last(lambda entry: entry["operation"] == "delete_response")
    assert (row["consumer"], row["model"], row["provider"], row["cost_usd"]) == ("demo", "gpt-5.4", "openai", 0)


def test_a_conversation_goes_on_from_a_stored_response(gateway: Gateway, sdk: OpenAI):
    with sdk.responses.stream(model="gpt-5.4", input="Hello") as stream:
        ids = {event.response.id for event in stream if event.type in ("response.created", "response.completed")}
    [id] = ids
    assert id.startswith("resp_kept_")
    second = sdk.responses.create(model="gpt-5.4", input="And now?", previous_response_id=id)
    assert second.previous_response_id == id
    assert sdk.responses.retrieve(second.id).previous_response_id == id
    kept_nowhere = sdk.responses.create(model="gpt-5.4", input="Hello", store=False)
    assert kept_nowhere.id.startswith("resp_")
    assert "kept_" not in kept_nowhere.id


def test_items_of_a_stored_response_are_its_consumers_own(gateway: Gateway, sdk: OpenAI):
    made = sdk.responses.create(model="gpt-5.4", input="Hello")
    events = sdk.responses.create(model="gpt-5.4", input="Hello", stream=True)
    streamed = [event.item_id for event in events if event.type == "response.output_text.delta"]
    assert all(id.startswith("msg_kept_") for id in (made.output[0].id, *streamed))
    turns: Any = [{"role": "user", "content": "Hello"}, *made.output, {"role": "user", "content": "And now?"}]
    asked = len(gateway.seen("openai"))
    assert sdk.responses.create(model="gpt-5.4", input=turns).output_text
    sent = gateway.seen("openai")[asked]["body"]["input"][1]["id"]
    assert sent.startswith("msg_")
    assert "kept_" not in sent
    reference: Any = [{"type": "item_reference", "id": made.output[0].id}]
    for wrong in (turns, reference):
        with pytest.raises(openai.NotFoundError) as refused:
            sdk.with_options(api_key=OTHER).responses.create(model="gpt-5.4", input=wrong)
        assert refused.value.code == "object_not_found"
    assert len(gateway.seen("openai")) == asked + 1
    with pytest.raises(openai.NotFoundError) as gone:  # the double keeps no items
        sdk.responses.create(model="gpt-5.4", input=reference)
    assert gone.value.response.headers["x-ai-error-origin"] == "provider"


def test_an_object_that_the_gateway_did_not_give_out_is_refused(gateway: Gateway, sdk: OpenAI):
    part = {"type": "input_file", "file_id": "file-abc"}
    for body in (
        {"previous_response_id": "resp_abc"},
        {"conversation": "conv_abc"},
        {"prompt": {"id": "pmpt_abc"}},
        {"input": [{"role": "user", "content": [part]}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_abc"]}]},
    ):
        answer = gateway.post("/v1/responses", {"model": "gpt-5.4", "input": "Hello", **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "foreign_object")
        assert answer.headers["x-ai-error-origin"] == "gateway"
    assert gateway.seen("openai") == []


def test_a_stored_response_is_its_consumers_own(gateway: Gateway, sdk: OpenAI):
    id = sdk.responses.create(model="gpt-5.4", input="Hello").id
    raw = "resp_" + gateway.seen("openai")[0]["body"]["input"]
    asked = len(gateway.seen("openai"))
    other = sdk.with_options(api_key=OTHER)
    for client, wrong in ((other, id), (sdk, raw), (sdk, id[:-2] + "AA"), (sdk, id.replace("resp_", "file_"))):
        with pytest.raises(openai.NotFoundError) as refused:
            client.responses.retrieve(wrong)
        assert refused.value.code == "object_not_found"
    with pytest.raises(openai.NotFoundError):
        other.responses.create(model="gpt-5.4", input="And now?", previous_response_id=id)
    url = f"/v1/responses/{id}"
    statuses = [
        gateway.http.get(gateway.url + url).status_code,
        gateway.http.get(gateway.url + url, headers={"authorization": f"Bearer {ENV['POOR_KEY']}"}).status_code,
        gateway.post(url).status_code,
        gateway.post(f"{url}/cancel", {"a": 1}).status_code,
    ]
    assert statuses == [401, 404, 405, 400]
    assert len(gateway.seen("openai")) == asked


def test_input_tokens_are_counted_and_a_conversation_is_compacted(gateway: Gateway, sdk: OpenAI):
    assert sdk.responses.input_tokens.count(model="gpt-5.4", input="one two three").input_tokens == 3
    assert gateway.last(lambda entry: entry["operation"] == "count_tokens")["cost_usd"] == 0
    elsewhere = gateway.post("/v1/responses/input_tokens", {"model": "ranker", "input": "one two three"})
    assert elsewhere.json()["object"] == "response.input_tokens"
    assert elsewhere.json()["input_tokens"] > 3  # an estimate
    compacted = sdk.responses.compact(model="gpt-5.4", input="one two three")
    assert compacted.output[0].type == "compaction"
    row = gateway.last(lambda entry: entry["operation"] == "compact")
    assert compacted.usage is not None
    assert row["input_tokens"] == compacted.usage.input_tokens
    assert row["cost_usd"] > 0


# --- images


def test_images_are_made_and_edited(gateway: Gateway, sdk: OpenAI):
    made = sdk.images.generate(model="gpt-image-1", prompt="a red dot", n=2, quality="medium")
    assert [image.b64_json for image in made.data or ()] == [PIXEL, PIXEL]
    row = gateway.last(lambda entry: entry["operation"] == "image_generation")
    assert (row["input_tokens"], row["output_tokens"]) == (3, 2112)
    assert row["cost_usd"] == pytest.approx(3 * 5e-6 + 2112 * 40e-6)
    picture = ("dot.png", b64decode(PIXEL), "image/png")
    edited = sdk.images.edit(model="openai/gpt-image-1", prompt="blue", image=[picture, picture])
    assert len(edited.data or ()) == 1
    row = gateway.last(lambda entry: entry["operation"] == "image_edit")
    assert (row["model"], row["provider_model"]) == ("openai/gpt-image-1", "gpt-image-1")
    assert row["cost_usd"] == pytest.approx(1 * 5e-6 + 388 * 10e-6 + 272 * 40e-6)


def test_images_are_streamed(gateway: Gateway, sdk: OpenAI):
    events = list(sdk.images.generate(model="gpt-image-1", prompt="a dot", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert (
        gateway.last(lambda entry: entry["operation"] == "image_generation" and entry.get("stream"))["output_tokens"]
        == 272
    )


def test_an_image_can_have_a_price_of_its_own(gateway: Gateway, sdk: OpenAI):
    sdk.images.generate(model="dall-e-3", prompt="a dot", n=3)
    row = gateway.last(lambda entry: entry.get("model") == "dall-e-3")
    assert (row["cost_usd"], row["usage_source"]) == (0.12, "estimated")
    tall = {"model": "dall-e-3", "prompt": "x", "size": "1024x1792", "quality": "hd"}
    answer = gateway.post("/v1/images/generations", tall)
    assert gateway.exchange_of(answer)["cost_usd"] == 0.12


# --- sound


def test_speech_passes_as_it_is(gateway: Gateway, sdk: OpenAI):
    spoken = sdk.audio.speech.create(model="openai/tts-1", voice="alloy", input="Hello there").read()
    assert spoken == SOUND
    row = gateway.last(lambda entry: entry["operation"] == "speech")
    assert row["cost_usd"] == pytest.approx(11 * 15e-6)
    body = {"model": "openai/gpt-4o-mini-tts", "voice": "alloy", "input": "Hello there", "stream_format": "sse"}
    answer = gateway.post("/v1/audio/speech", body)
    assert answer.text.count("data: ") == 2
    assert gateway.exchange_of(answer)["output_tokens"] == 20


def test_sound_is_transcribed(gateway: Gateway, sdk: OpenAI):
    file = ("hello.mp3", SOUND, "audio/mpeg")
    said = sdk.audio.transcriptions.create(model="hearing", file=file, prompt="and more", temperature=0)
    assert said.text == "This is hello.mp3. and more"
    row = gateway.last(lambda entry: entry["operation"] == "transcription")
    assert (row["attempts"], row["provider_model"], row["input_tokens"]) == (2, "gpt-4o-transcribe", 19)
    assert row["cost_usd"] == pytest.approx(14 * 6e-6 + 5 * 2.5e-6 + 5 * 10e-6)
    pieces = list(sdk.audio.transcriptions.create(model="openai/gpt-4o-transcribe", file=file, stream=True))
    assert pieces[-1].type == "transcript.text.done"
    key = {"authorization": f"Bearer {KEY}"}
    url = gateway.base_url + "/audio/translations"
    timed = gateway.http.post(url, headers=key, data={"model": "openai/whisper-1"}, files={"file": file})
    assert timed.json()["text"] == "This is hello.mp3."
    row = gateway.last(lambda entry: entry["operation"] == "audio_translation")
    assert row["cost_usd"] == pytest.approx(9 * 0.36 / 3600)


def test_a_large_file_passes_byte_for_byte(gateway: Gateway, sdk: OpenAI):
    """Beyond the size at which bodies are read in slices, and to a second target with another name of the model."""
    large = SOUND + random.Random(7).randbytes(1 << 20)
    sdk.audio.transcriptions.create(model="hearing", file=("long.mp3", large, "audio/mpeg"))
    [seen] = gateway.seen("openai")
    alone = sdk.with_options(base_url=f"{gateway.mocks['openai']}/v1", api_key="sk-upstream")
    alone.audio.transcriptions.create(model="gpt-4o-transcribe", file=("long.mp3", large, "audio/mpeg"))
    assert seen["body_length"] == gateway.seen("openai")[1]["body_length"]


def test_a_form_is_searched(gateway: Gateway):
    """Every text of a form: fields, names of files, and files that are text; never what nobody can read."""
    sound = ("a.mp3", SOUND, "audio/mpeg")
    forms: list[tuple[dict[str, Any], Any]] = [
        ({"prompt": SECRET}, sound),
        ({"language": ["a", SECRET]}, sound),
        ({}, (f"{SECRET}.mp3", SOUND, "audio/mpeg")),
        ({}, ("a.mp3", f"my key is {SECRET}".encode(), "audio/mpeg")),
        ({}, ("a.mp3", b"\x80\x81" + SECRET.encode(), "audio/mpeg")),
    ]
    key = {"authorization": f"Bearer {KEY}"}
    url = gateway.base_url + "/audio/transcriptions"
    for fields, file in forms:
        data = {"model": "openai/whisper-1", **fields}
        answer = gateway.http.post(url, headers=key, data=data, files={"file": file})
        assert answer.json()["error"]["code"] == "guardrail_blocked", fields
    twice = gateway.http.post(url, headers=key, data={"model": ["openai/whisper-1", "lost"]}, files={"file": sound})
    hidden = gateway.http.post(
        url, headers=key, data={"model": "openai/whisper-1", "model[]": ["lost"]}, files={"file": sound}
    )
    assert {twice.status_code, hidden.status_code} == {400}
    assert gateway.seen("openai") == []


def test_text_in_a_form_is_masked(gateway: Gateway, sdk: OpenAI):
    """A field is written anew; a name of a file cannot be, so the request is refused."""
    said = sdk.audio.transcriptions.create(model="openai/whisper-1", file=("a.mp3", SOUND), prompt="of BADGE-1234")
    assert said.text == "This is a.mp3. of [BADGE]"
    with pytest.raises(openai.BadRequestError, match="cannot mask"):
        sdk.audio.transcriptions.create(model="openai/whisper-1", file=("BADGE-1234.mp3", SOUND))
    assert len(gateway.seen("openai")) == 1


def test_transcripts_and_stored_answers_are_guarded(gateway: Gateway, sdk: OpenAI):
    file, sdk = ("ZEBRA-1234.mp3", SOUND), sdk.with_options(api_key=OTHER)
    assert sdk.audio.transcriptions.create(model="openai/whisper-1", file=file).text == "This is [CODE].mp3."
    pieces = sdk.audio.transcriptions.create(model="openai/gpt-4o-transcribe", file=file, stream=True)
    text = "".join(piece.delta for piece in pieces if piece.type == "transcript.text.delta")
    assert text == "This is [CODE].mp3."
    made = sdk.responses.create(model="gpt-5.4", input="ZEBRA-1234")
    assert made.output_text.endswith("[CODE]")
    assert sdk.responses.retrieve(made.id).output_text == made.output_text
    assert sdk.audio.speech.create(model="openai/tts-1", voice="alloy", input="Hello").read() == SOUND
    document = ("notes.txt", b"Hello")
    kept = sdk.files.create(file=document, purpose="user_data", extra_body={"model": "gpt-5.4"})
    with pytest.raises(openai.InternalServerError, match="cannot read the answer"):
        sdk.files.content(kept.id)


# --- files and batches


def batch_file(model: str, text: str = "Hello") -> tuple[str, bytes]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 100}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return "in.jsonl", b"".join(json.dumps({**line, "custom_id": str(number)}).encode() + b"\n" for number in range(3))


def test_a_batch_is_made_of_a_file(gateway: Gateway, sdk: OpenAI):
    settled = gateway.metric("extproc_usage_total", source="provider")
    file = sdk.files.create(file=batch_file("openai/gpt-5.4"), purpose="batch")
    assert file.id.startswith("file-kept_")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert (batch.input_file_id, batch.status) == (file.id, "validating")
    found = eventually(lambda: (one := sdk.batches.retrieve(batch.id)).status == "completed" and one)
    assert (found.id, found.input_file_id) == (batch.id, file.id)
    assert found.output_file_id is not None
    assert len(sdk.files.content(found.output_file_id).text.splitlines()) == 3
    assert sdk.batches.cancel(batch.id).id == batch.id
    assert sdk.files.retrieve(file.id).filename == "in.jsonl"
    assert sdk.files.delete(file.id).id == file.id
    row = gateway.last(lambda entry: entry["operation"] == "create_batch")
    assert (row["model"], row["usage_source"], row["cost_usd"]) == ("openai/gpt-5.4", "pending", 0)
    assert "kept_" not in str(gateway.seen("openai"))
    # After it is settled nobody looks at the batch, which would be among the requests of the next test.
    eventually(lambda: gateway.metric("extproc_usage_total", source="provider") == settled + 1)


def test_a_file_is_kept_at_the_provider_of_a_model(gateway: Gateway, sdk: OpenAI):
    notes = ("notes.txt", b"Berlin is a city.")
    file = sdk.files.create(file=notes, purpose="user_data", extra_body={"model": "gpt-5.4"})
    asked: Any = [
        {"role": "user", "content": [{"type": "input_file", "file_id": file.id}, {"type": "input_text", "text": "?"}]}
    ]
    sdk.responses.create(model="gpt-5.4", input=asked, store=False)
    [part, _] = gateway.seen("openai")[1]["body"]["input"][0]["content"]
    assert part["file_id"].startswith("file-")
    assert "kept_" not in part["file_id"]
    with pytest.raises(openai.BadRequestError, match="Name a model"):
        sdk.files.create(file=notes, purpose="user_data")


def test_files_and_batches_are_guarded(gateway: Gateway, sdk: OpenAI):
    """Requests inside of a file need the grants and pass the guardrails that they would need and pass alone."""
    other, narrow = sdk.with_options(api_key=OTHER), sdk.with_options(api_key=ENV["NARROW_KEY"])
    escaped = batch_file("gpt-5.4", SECRET)[1].replace(b"AKIA", b"\\u0041KIA")
    two = batch_file("gpt-5.4")[1] + batch_file("gpt-image-1")[1]
    for content, client, error in (
        (batch_file("gpt-image-1")[1], narrow, openai.PermissionDeniedError),
        (batch_file("unknown")[1], sdk, openai.NotFoundError),
        (batch_file("gpt-5.4", SECRET)[1], sdk, openai.BadRequestError),
        (escaped, sdk, openai.BadRequestError),
        (two, sdk, openai.BadRequestError),
        (b"nonsense", sdk, openai.BadRequestError),
        (b"\xff", sdk, openai.BadRequestError),
    ):
        with pytest.raises(error):
            client.files.create(file=("in.jsonl", content), purpose="batch")
    assert gateway.seen("openai") == []
    file = sdk.files.create(file=batch_file("gpt-5.4"), purpose="batch")
    asked = len(gateway.seen("openai"))
    for id, client in ((file.id, other), ("file-123", sdk)):
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(id)
        with pytest.raises(openai.NotFoundError):
            client.batches.create(input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.files.list()
    assert refused.value.status_code == 405
    assert len(gateway.seen("openai")) == asked


# --- all of them

BODIES: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"model": "ranker", **ASKED},
    "/v1/moderations": {"model": "omni-moderation-latest", "input": "x"},
    "/v1/ocr": {
        "model": "mistral-ocr-latest",
        "document": {"type": "image_url", "image_url": "https://example.com/a.png"},
    },
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "x"},
    "/v1/audio/speech": {"model": "openai/tts-1", "input": "x", "voice": "alloy"},
}
TEXTS: dict[str, list[dict[str, Any]]] = {
    "/v1/rerank": [{"query": SECRET}, {"documents": ["a", SECRET]}],
    "/v1/moderations": [{"input": ["a", SECRET]}],
    "/v1/ocr": [{"document_annotation_prompt": SECRET}],
    "/v1/images/generations": [{"prompt": SECRET}],
    "/v1/audio/speech": [{"input": SECRET}, {"instructions": SECRET}],
}


@pytest.mark.parametrize("path", BODIES)
def test_an_endpoint_is_guarded(gateway: Gateway, path: str):
    """Without a key, a grant or room in a budget, and with a secret in any text: no provider sees the request."""
    body = BODIES[path]
    refused: list[httpx.Response] = [
        gateway.post(path, body, key=None),
        gateway.post(path, body, key=ENV["NARROW_KEY"]),
        gateway.post(path, body, key=ENV["POOR_KEY"]),
        gateway.post(path, {**body, "model": "unknown"}),
        *(gateway.post(path, {**body, **text}) for text in TEXTS[path]),
    ]
    codes = [answer.json()["error"]["code"] for answer in refused]
    wanted = ["missing_key", "model_not_allowed", "budget_exceeded", "model_not_found"]
    assert codes == [*wanted, *["guardrail_blocked"] * len(TEXTS[path])]
    assert gateway.seen("openai") == []


def test_the_sdk_sees_refusals_as_its_own_errors(sdk: OpenAI):
    with pytest.raises(openai.NotFoundError):
        sdk.moderations.create(model="unknown", input="x")

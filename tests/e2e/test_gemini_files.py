"""Gemini's files with Google's SDK: uploads whose later requests lead back through the gateway, and files that only
their consumer can name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import types
from google.genai.errors import ClientError

from tests.e2e.conftest import KEY, Gateway, run_gateway

YAML = """
providers:
  google: {kind: gcp_gemini, base_url: "{at_google}/v1beta", api_key: env:GOOGLE_KEY}
  openai: {kind: openai, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
models:
  flash: {provider: google, model: gemini-2.5-flash}
  pro: {provider: google, model: gemini-2.5-pro}
  gpt-4.1: {provider: openai}
virtual_models:
  best: {targets: [{model: gpt-4.1}, {model: flash}]}
consumers:
  - {name: demo, models: [flash, best, gpt-4.1], keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: other, keys: [{env: OTHER_KEY}]}
stores: {ledger: "sqlite:ledger.db"}
guardrails: [{name: no-keys, kind: regex, on: [input], patterns: {aws: 'AKIA[0-9A-Z]{16}'}%(audit)s}]
budgets: [{name: tokens, unit: tokens, limit: 100000000, window: total}]
"""
MOCKS = ("google", "openai")
ENV = {"GOOGLE_KEY": "sk-google", "OPENAI_KEY": "sk-openai", "OTHER_KEY": "sk-gw-other"}
PART = 8 << 20
"""Bytes of a part that the SDK sends."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("files"), YAML.replace("%(audit)s", ""), MOCKS, ENV)


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.begin()
    return running


def google(gateway: Gateway, key: str = KEY) -> genai.Client:
    options: Any = {"base_url": gateway.base_url.removesuffix("/v1"), "retry_options": {"attempts": 1}}
    return genai.Client(api_key=key, http_options=options)


def upload(client: genai.Client, content: bytes, model: str | None = "flash", kind: str = "text/plain") -> types.File:
    more: Any = {"http_options": {"extra_body": {"model": model}}} if model is not None else {}
    return client.files.upload(file=io.BytesIO(content), config={"mime_type": kind, "display_name": "a.txt", **more})


def test_a_file_is_its_consumers_own_from_its_upload_to_its_end(gateway: Gateway) -> None:
    sdk, other = google(gateway), google(gateway, "sk-gw-other")
    file = upload(sdk, b"Hello")
    assert (file.display_name, file.size_bytes, file.state) == ("a.txt", 5, "ACTIVE")
    name, uri = str(file.name), str(file.uri)
    assert name.startswith("files/kept_")
    assert uri == f"https://generativelanguage.googleapis.com/v1beta/{name}"
    begun, part = gateway.seen("google")
    assert "flash" not in begun["body"]
    assert part["path"].startswith("/upload/v1beta/files?upload_id=AHm-")
    assert "sk-gw" not in str(begun) + str(part)
    assert sdk.files.get(name=name).uri == uri
    contents: Any = [file, "What does it say?"]
    for model in ("flash", "best"):  # the virtual model's first target is at another provider
        assert sdk.models.generate_content(model=model, contents=contents).text
        part = gateway.seen("google")[-1]["body"]["contents"][0]["parts"][0]
        assert re.fullmatch(
            r"https://generativelanguage\.googleapis\.com/v1beta/files/[0-9a-f]{12}", part["fileData"]["fileUri"]
        )
    requests: Any = [{"contents": [{"role": "user", "parts": [{"file_data": {"file_uri": uri}}]}], "model": "flash"}]
    assert str(sdk.batches.create(model="flash", src=requests).name).startswith("batches/kept_")
    asked = len(gateway.seen("google"))
    for client, at in ((other, uri), (sdk, "https://generativelanguage.googleapis.com/v1beta/files/abc")):
        with pytest.raises(ClientError, match=r"40[04]"):
            client.models.generate_content(
                model="flash", contents=types.Part.from_uri(file_uri=at, mime_type="text/plain")
            )
    for client, at in ((other, name), (sdk, "files/abc")):
        with pytest.raises(ClientError, match="404"):
            client.files.get(name=at)
    assert len(gateway.seen("google")) == asked
    sdk.files.delete(name=name)
    with pytest.raises(ClientError, match="404"):
        sdk.files.get(name=name)
    with pytest.raises(ClientError, match="404"):
        sdk.models.generate_content(model="flash", contents=contents)


def test_the_address_of_the_parts_works_for_its_session_alone(gateway: Gateway) -> None:
    headers = {
        "x-goog-api-key": KEY,
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-command": "start",
        "x-goog-upload-header-content-length": "5",
        "x-goog-upload-header-content-type": "text/plain",
    }
    begun = [
        gateway.http.post(f"{gateway.url}/upload/v1beta/files", json={"model": "flash", "file": {}}, headers=headers)
        for _ in range(2)
    ]
    one, two = (answer.headers["x-goog-upload-url"] for answer in begun)
    assert one.startswith(f"{gateway.url}/v1beta/uploads/kept_")
    assert not any(KEY in value or "AHm-" in value for value in begun[0].headers.values())
    last = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"}
    mixed = one.partition("?")[0] + "?" + two.partition("?")[2]
    refused = {
        one.partition("?")[0]: {},  # without a credential
        mixed: {},  # with the credential of another session
        one: {"x-goog-api-key": "sk-gw-other"},  # with two
        one.partition("?")[0] + "?": {"x-goog-api-key": "sk-gw-other"},
    }
    statuses = [
        gateway.http.post(url, content=b"Hello", headers={**last, **more}).status_code for url, more in refused.items()
    ]
    assert statuses == [401, 401, 401, 404]
    asked = gateway.http.post(one, headers={"x-goog-upload-command": "query"})
    assert asked.headers["x-goog-upload-size-received"] == "0"
    done = gateway.http.post(one, content=b"Hello", headers=last)
    assert (done.status_code, done.headers["x-goog-upload-status"]) == (200, "final")
    entry = gateway.last(lambda entry: entry["operation"] == "upload_file" and entry["status"] == 200)
    assert (entry["consumer"], entry["cost_usd"]) == ("demo", 0)


def test_an_upload_needs_a_model_that_its_consumer_may_use_at_a_provider_with_files(gateway: Gateway) -> None:
    for model, status in ((None, "400"), ("pro", "403"), ("gpt-4.1", "400"), ("none", "404")):
        with pytest.raises(ClientError, match=status):
            upload(google(gateway), b"Hello", model)
    assert gateway.seen("google") == []


def test_a_guardrail_reads_a_text_file_and_stops_one_that_comes_in_parts(gateway: Gateway) -> None:
    for content, error in ((b"a key: AKIA0123456789ABCDEF", "no-keys"), (b"x" * (PART + 1), "a part of a file")):
        with pytest.raises(ClientError, match=error):
            upload(google(gateway), content)
    assert not any("upload_id" in seen["path"] for seen in gateway.seen("google"))


def test_a_large_file_comes_in_parts_where_no_guardrail_has_to_read_it(tmp_path: Any) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    for gateway in run_gateway(folder, YAML.replace("%(audit)s", ", failure: open"), MOCKS, ENV):
        file = upload(google(gateway), b"\0\0\0\x18ftypmp42" + b"\xff" * PART, kind="video/mp4")
        assert file.size_bytes == PART + 12
        assert str(file.name).startswith("files/kept_")
        assert sum("upload_id" in seen["path"] for seen in gateway.seen("google")) == 2

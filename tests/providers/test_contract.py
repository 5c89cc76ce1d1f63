"""The contract of every provider. A new provider is found and tested by itself."""

from urllib.parse import urlsplit

import pytest

from extproc.dialects import families
from extproc.upstream.prices import known_models
from extproc.upstream.providers import Provider, ProviderSettings, kinds
from extproc.words.values import is_loopback

PLACES = {"region": "r", "project": "p", "account": "a", "api_version": "2025-01-01"}

each = pytest.mark.parametrize("provider", kinds().values(), ids=kinds())


@each
def test_it_declares_a_source(provider):
    assert isinstance(provider, Provider)
    assert provider.gen_ai_name
    assert provider.gen_ai_name == provider.gen_ai_name.lower()
    assert provider.source


@each
def test_its_address_is_encrypted_or_local(provider):
    if provider.base_url is None:
        return
    url = urlsplit(provider.base_url.format(**PLACES))
    assert url.hostname
    assert url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname))
    assert (url.query, url.fragment, url.username) == ("", "", None)
    assert not provider.base_url.endswith("/")


@each
def test_it_serves_existing_dialects(provider):
    assert provider.dialects
    assert len(set(provider.dialects)) == len(provider.dialects)
    for name in {*provider.dialects, *provider.models, *provider.unwrap}:
        assert name in families()
        assert name in provider.dialects


@each
def test_its_credential_is_a_header(provider):
    assert provider.credential.header == provider.credential.header.lower()
    assert provider.credential.header.replace("-", "").isalnum()
    assert not provider.credential.header.startswith(("x-extproc-", "x-ai-", "x-envoy-"))


@each
def test_its_catalogue_exists(provider):
    assert provider.catalogue is None or known_models(provider.catalogue)


@pytest.mark.parametrize("kind", kinds())
def test_its_example_is_valid(kind):
    settings = ProviderSettings(kind=kind, base_url="https://example.com/v1/", api_key="env:UNSET_FOR_SURE", **PLACES)
    assert settings.url.geturl() == "https://example.com/v1"
    assert settings.provider is kinds()[kind]
    assert settings.lack


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"kind": "openai"}, "https://api.openai.com/v1"),
        (
            {"kind": "azure_openai", "base_url": "https://acme.openai.azure.com"},
            "https://acme.openai.azure.com/openai/v1",
        ),
        ({"kind": "azure_openai", "base_url": "https://acme.test/own"}, "https://acme.test/own"),
        ({"kind": "aws_bedrock", "region": "us-east-1"}, "https://bedrock-runtime.us-east-1.amazonaws.com"),
        (
            {"kind": "gcp_vertex_ai", "region": "europe-west4", "project": "acme-ml"},
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme-ml/locations/europe-west4/publishers",
        ),
        ({"kind": "cloudflare", "account": "a1"}, "https://api.cloudflare.com/client/v4/accounts/a1/ai/v1"),
    ],
)
def test_its_address_is_found(settings, url):
    assert ProviderSettings(**settings).url.geturl() == url


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"kind": "aws_bedrock"}, "needs region"),
        ({"kind": "gcp_vertex_ai", "region": "europe-west4"}, "needs project"),
        ({"kind": "cloudflare"}, "needs account"),
        ({"kind": "azure_openai_dated", "base_url": "https://acme.openai.azure.com"}, "needs api_version"),
        ({"kind": "aws_bedrock", "region": "../evil"}, "region"),
        ({"kind": "vllm"}, "needs a base_url"),
    ],
)
def test_missing_settings_are_named(settings, wanted):
    with pytest.raises(ValueError, match=wanted):
        ProviderSettings(**settings)


BODY = {"model": "m", "stream": True, "messages": []}


@pytest.mark.parametrize(
    ("kind", "dialect", "model", "stream", "path", "adapted"),
    [
        (
            "azure_openai_dated", "openai_chat", "my/gpt", False, "/chat/completions",
            ("/deployments/my%2Fgpt/chat/completions", BODY),
        ),
        ("gcp_vertex_ai", "gemini_generate_content", "g", True, "/models/g:x", ("/google/models/g:x", BODY)),
        (
            "gcp_vertex_ai", "anthropic_messages", "claude-sonnet-4@20250514", True, "/messages",
            (
                "/anthropic/models/claude-sonnet-4@20250514:streamRawPredict",
                {"anthropic_version": "vertex-2023-10-16", "stream": True, "messages": []},
            ),
        ),
        (
            "aws_bedrock", "anthropic_messages", "anthropic.claude:0", True, "/messages",
            (
                "/model/anthropic.claude%3A0/invoke-with-response-stream",
                {"anthropic_version": "bedrock-2023-05-31", "messages": []},
            ),
        ),
        ("aws_bedrock", "aws_converse", "x", True, "/model/x/converse-stream", ("/model/x/converse-stream", BODY)),
    ],
)  # fmt: skip
def test_requests_have_the_providers_path_and_headers(kind, dialect, model, stream, path, adapted):  # noqa: PLR0917
    found, body = kinds()[kind].adapt(dialect, model, stream, path, dict(BODY))
    assert (found, body) == adapted


@pytest.mark.parametrize(
    ("kind", "model", "dialect", "speaks"),
    [
        ("aws_bedrock", "anthropic.claude-sonnet-4-6-v1:0", "anthropic_messages", True),
        ("aws_bedrock", "eu.anthropic.claude-sonnet-4-6-v1:0", "anthropic_messages", True),
        ("aws_bedrock", "meta.llama3", "anthropic_messages", False),
        ("aws_bedrock", "meta.llama3", "aws_converse", True),
        ("aws_bedrock", "meta.llama3", "openai_chat", False),
        ("gcp_vertex_ai", "claude-opus", "anthropic_messages", True),
        ("gcp_vertex_ai", "gemini-3-pro", "anthropic_messages", False),
    ],
)
def test_dialects_of_models_are_found(kind, model, dialect, speaks):
    assert kinds()[kind].speaks(model, dialect) is speaks


@pytest.mark.parametrize(
    ("settings", "lacks"),
    [
        ({"kind": "openai"}, True),
        ({"kind": "openai", "api_key": "env:TEST_KEY"}, False),
        ({"kind": "openai", "api_key": "env:UNSET_FOR_SURE"}, True),
        ({"kind": "openai", "base_url": "http://vllm:8000/v1"}, False),
        ({"kind": "openai", "base_url": "http://vllm:8000/v1", "api_key": "env:UNSET_FOR_SURE"}, True),
        ({"kind": "mock"}, False),
    ],
)
def test_a_missing_key_is_recognised(monkeypatch, settings, lacks):
    monkeypatch.setenv("TEST_KEY", "sk-1")
    assert bool(ProviderSettings(**settings).lack) is lacks

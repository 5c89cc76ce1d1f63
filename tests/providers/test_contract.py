"""What every provider must say of itself. A new one is tested by being there."""

from urllib.parse import urlsplit

import pytest

from extproc.dialects import dialects
from extproc.prices import known_models
from extproc.providers import Provider, ProviderSettings, kinds
from extproc.values import is_loopback

each = pytest.mark.parametrize("provider", kinds().values(), ids=kinds())


@each
def test_it_is_a_provider_with_a_source(provider):
    assert isinstance(provider, Provider)
    assert provider.gen_ai_name
    assert provider.gen_ai_name == provider.gen_ai_name.lower()
    assert provider.source


@each
def test_its_address_is_encrypted_or_on_this_machine(provider):
    if provider.base_url is None:
        return
    url = urlsplit(provider.base_url)
    assert url.hostname
    assert url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname))
    assert (url.query, url.fragment, url.username) == ("", "", None)
    assert not provider.base_url.endswith("/")


@each
def test_it_speaks_dialects_there_are(provider):
    assert provider.dialects
    assert provider.dialects <= set(dialects())


@each
def test_its_credential_is_a_header(provider):
    assert provider.credential.header == provider.credential.header.lower()
    assert provider.credential.header.replace("-", "").isalnum()
    assert not provider.credential.header.startswith(("x-extproc-", "x-ai-", "x-envoy-"))


@each
def test_its_catalogue_exists(provider):
    assert provider.catalogue is None or known_models(provider.catalogue)


@pytest.mark.parametrize("kind", kinds())
def test_it_can_be_configured(kind):
    settings = ProviderSettings(kind=kind, base_url="https://example.com/v1/", api_key="env:UNSET_FOR_SURE")
    assert settings.url.geturl() == "https://example.com/v1"
    assert settings.provider is kinds()[kind]
    assert settings.lacks_key


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
def test_whether_its_key_is_missing(monkeypatch, settings, lacks):
    monkeypatch.setenv("TEST_KEY", "sk-1")
    assert ProviderSettings(**settings).lacks_key is lacks

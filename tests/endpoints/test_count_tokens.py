import json

import pytest

from extproc.exchange.endpoints.count_tokens import CountTokens
from extproc.routing.catalog import Catalog
from extproc.words.exchange import Target

PATH = "/v1/messages/count_tokens"
SETTINGS = """
providers:
  claude: {kind: anthropic, api_key: env:UNSET_FOR_SURE}
  other: {kind: mock}
models: {c: {provider: claude}, o: {provider: other}}
"""
BODY = {"model": "c", "messages": [{"role": "user", "content": "word " * 300}]}


@pytest.fixture
def count(settings, exchange):
    def stage(provider, path=PATH, **more):
        found = settings(SETTINGS)
        sent = exchange(BODY, path=path, targets=(Target("c", provider, "m"),))
        for name, value in more.items():
            setattr(sent, name, value)
        return CountTokens(Catalog(found.providers, found.models, {}))(sent)

    return stage


def test_a_provider_with_an_api_for_counts_is_asked(count):
    assert count("claude") is None


def test_for_other_providers_the_count_is_estimated(count):
    answer = count("other")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert 300 <= json.loads(answer.body)["input_tokens"] <= 600


def test_in_attach_mode_no_provider_is_asked(count):
    assert count("claude", attached=True).status == 200


def test_other_requests_are_left_alone(count, exchange):
    body = {"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    sent = exchange(body, path="/v1/messages")
    assert CountTokens(None)(sent) is None

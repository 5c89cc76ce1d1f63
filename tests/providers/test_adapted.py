"""Requests in OpenAI's APIs, as providers with differences get them."""

import pytest

from extproc.upstream.providers import kinds
from extproc.words import contract
from tests.doubles import mistral_rules
from tests.talk import asks, sends, talk

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
EMBED = {"model": "m", "input": "Hi"}


@pytest.mark.parametrize(
    ("kind", "dialect", "fields", "sent"),
    [
        ("mistral_ai", "openai_chat", {"max_completion_tokens": 9, "seed": 1}, {"max_tokens": 9, "random_seed": 1}),
        ("mistral_ai", "openai_chat", {"user": "u", "store": False, "verbosity": "low", "top_p": 1}, {"top_p": 1}),
        ("mistral_ai", "openai_embeddings", {"dimensions": 256, "user": "u"}, {"output_dimension": 256}),
        ("voyage", "openai_embeddings", {"dimensions": 256, "encoding_format": "float"}, {"output_dimension": 256}),
        ("voyage", "openai_embeddings", {"user": "u", "encoding_format": "base64"}, {"encoding_format": "base64"}),
    ],
)
def test_fields_that_the_provider_refuses_get_its_names_or_are_left_out(kind, dialect, fields, sent):
    provider, body = kinds()[kind], CHAT if dialect == "openai_chat" else EMBED
    assert provider.adapts(body | fields, ())
    assert not provider.adapts(body | sent, ())
    path, made = provider.adapt(dialect, "m", False, "/path", body | fields)
    assert (path, made) == ("/path", body | sent)
    if dialect == "openai_chat":
        mistral_rules.check(made)


async def test_a_cap_has_the_providers_name(world):
    """Of `limits.output_tokens`, in a request that sets no limit."""
    yaml = """
providers: {a: {kind: mistral_ai, api_key: env:PATH}}
models: {m: {provider: a, model: mistral-large-latest}}
limits: {output_tokens: 77}
budgets: [{name: t, unit: tokens, limit: 1000000, window: hour}]
"""
    stream = world(yaml).stream()
    await talk(stream, asks(), sends(CHAT))
    assert stream._exchange.money.output_limits[0] == 77
    assert contract.ATTEND in stream._exchange.route.onward.set_headers, "a try that writes it"

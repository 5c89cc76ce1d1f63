"""Requests for embeddings with several inputs: which targets take them."""

import json

import pytest

from tests.talk import asks, error, sends, talk

WORDS = "many words " * 1000  # 11,000 characters, about 2,750 tokens
YAML = """
providers:
  openai: {kind: openai, api_key: env:PATH}
  own: {kind: openai, base_url: 'http://127.0.0.1:8090/v1', api_key: env:PATH}
  azure: {kind: azure_openai, base_url: 'https://acme.openai.azure.com', api_key: env:PATH}
  cohere: {kind: cohere, api_key: env:PATH}
  voyage: {kind: voyage, api_key: env:PATH}
  mistral: {kind: mistral_ai, api_key: env:PATH}
  gemini: {kind: gcp_gemini, api_key: env:PATH}
  vertex: {kind: gcp_vertex_ai, region: eu, project: p, api_key: env:PATH}
  bedrock: {kind: aws_bedrock, region: us-east-1}
  jina: {kind: jina, api_key: env:PATH}
models:
  text-embedding-3-small: {provider: openai, context: 8192}
  own: {provider: own}
  deployment: {provider: azure}
  embed-v4.0: {provider: cohere}
  voyage-4-lite: {provider: voyage}
  voyage-4: {provider: voyage}
  voyage-code-3: {provider: voyage}
  mistral-embed: {provider: mistral}
  gemini-embedding-001: {provider: gemini}
  text-embedding-005: {provider: vertex}
  "amazon.titan-embed-text-v2:0": {provider: bedrock}
  jina-embeddings-v4: {provider: jina}
virtual_models:
  either: {targets: [{model: embed-v4.0}, {model: text-embedding-3-small}]}
auth: {required: false}
"""
# model, the most inputs, the most tokens of all inputs
LIMITS = [
    ("text-embedding-3-small", 2048, 300_000),
    ("own", None, None),
    ("deployment", 2048, None),
    ("embed-v4.0", 96, None),
    ("voyage-4-lite", 1000, 1_000_000),
    ("voyage-4", 1000, 320_000),
    ("voyage-code-3", 1000, 120_000),
    ("mistral-embed", None, 16_384),
    ("gemini-embedding-001", 100, None),
    ("text-embedding-005", 250, 20_000),
    ("amazon.titan-embed-text-v2:0", 1, None),
    ("jina-embeddings-v4", 512, None),
]


@pytest.fixture(scope="module")
def asked(world):
    """Call it with a model and inputs: the refusal of a request, or the targets it goes to."""
    gateway = world(YAML)

    async def ask(model, inputs):
        stream = gateway.stream()
        _, answer = await talk(stream, asks("/v1/embeddings"), sends({"model": model, "input": inputs}))
        return answer if hasattr(answer, "status") else [target.name for target in stream._exchange.route.targets]

    return ask


async def test_a_batch_beyond_the_limits_of_its_provider_is_refused(asked):
    for model, inputs, tokens in LIMITS:
        assert await asked(model, ["a"] * (inputs or 3000)) == [model]
        if inputs is not None:
            refused = await asked(model, ["a"] * (inputs + 1))
            assert error(refused) == (400, "unsupported_by_targets", "gateway"), model
            said = json.loads(refused.body)["error"]
            assert said["param"] == "input"
            assert f"at most {inputs} inputs in one request, not {inputs + 1}" in said["message"]
        if tokens is not None:
            texts = [WORDS] * (tokens // 2750)
            assert await asked(model, texts) == [model]
            refused = await asked(model, [*texts, WORDS, WORDS])
            assert f"at most {tokens} tokens in one request, not about" in json.loads(refused.body)["error"]["message"]


async def test_a_batch_goes_to_the_target_that_takes_it(asked):
    assert await asked("either", ["a"] * 96) == ["embed-v4.0", "text-embedding-3-small"]
    assert await asked("either", ["a"] * 97) == ["text-embedding-3-small"]


async def test_the_context_is_for_each_input(asked):
    """Whatever the form: texts, token ids, or one of both."""
    model, ids = "text-embedding-3-small", [100_000] * 8000
    for inputs in (["a" * 30_000] * 9, [ids] * 9, ids, "a" * 30_000):
        assert await asked(model, inputs) == [model]
    for inputs in (["a", "a" * 33_000], [[1], ids + ids], ids + ids, "a" * 33_000):
        assert "do not fit into its context of 8192" in (await asked(model, inputs)).body.decode()


async def test_the_context_is_for_each_prompt_of_completions(world):
    yaml = "providers: {o: {kind: ollama}}\nmodels: {m: {provider: o, context: 1000}}"
    for prompt, refused in ((["word " * 700] * 3, False), (["a", "word " * 900], True)):
        stream = world(yaml).stream()
        _, answer = await talk(stream, asks("/v1/completions"), sends({"model": "m", "prompt": prompt}))
        assert hasattr(answer, "status") is refused

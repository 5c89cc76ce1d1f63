from __future__ import annotations

import asyncio
import json

import pytest

from tests.doubles.embeddings import vector

V2 = "/model/amazon.titan-embed-text-v2%3A0/invoke"
G1 = "/model/amazon.titan-embed-text-v1/invoke"
IMAGE = "/model/amazon.titan-embed-image-v1/invoke"


async def test_v2_returns_embeddings(mock):
    values = vector("hello there", 256).tolist()
    body = {"inputText": "hello there", "dimensions": 256, "normalize": True, "embeddingTypes": ["float", "binary"]}
    assert await mock.plain(V2, body) == {
        "embedding": values,
        "embeddingsByType": {"float": values, "binary": [int(value > 0) for value in values]},
        "inputTextTokenCount": 2,
    }
    assert (await mock.seen())["model"] == "amazon.titan-embed-text-v2:0"
    assert set((await mock.plain(V2, {"inputText": "a"}))["embeddingsByType"]) == {"float"}


async def test_g1_returns_embeddings(mock):
    values = vector("a b", 8).tolist()
    assert await mock.plain(G1, {"inputText": "a b"}) == {"embedding": values, "inputTextTokenCount": 2}


async def test_the_multimodal_model_returns_embeddings(mock):
    config = {"embeddingConfig": {"outputEmbeddingLength": 384}}
    assert len((await mock.plain(IMAGE, {"inputText": "a", **config}))["embedding"]) == 384
    assert len((await mock.plain(IMAGE, {"inputImage": "AAAA"}))["embedding"]) == 8


async def test_usage_can_be_false(mock):
    path = V2.replace("%3A0", "%2Busage=none")
    assert "inputTextTokenCount" not in await mock.plain(path, {"inputText": "a"})


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (V2, {}, "#: required key [inputText] not found"),
        (V2, {"inputText": "a", "texts": []}, "#: extraneous key [texts] is not permitted"),
        (V2, {"inputText": ["a"]}, "#/inputText: expected type: String"),
        (V2, {"inputText": ""}, "#/inputText: String should have at least 1 character"),
        (V2, {"inputText": "a", "dimensions": 100}, "#/dimensions: 100 is not a valid enum value"),
        (V2, {"inputText": "a", "normalize": "yes"}, "#/normalize: expected type: Boolean"),
        (G1, {"inputText": "a", "dimensions": 256}, "#: extraneous key [dimensions] is not permitted"),
        (G1, {"inputText": "a", "normalize": True}, "#: extraneous key [normalize] is not permitted"),
        (IMAGE, {}, "#: required key [inputText] not found"),
        (IMAGE, {"inputText": "a", "dimensions": 256}, "#: extraneous key [dimensions] is not permitted"),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, path, body, problem):
    answer = await mock.post(path, body)
    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"].startswith("ValidationException:")
    sentence = f"Malformed input request: {problem}, please reformat your input and try again."
    assert answer.json() == {"message": sentence}


async def test_the_sdk_reads_the_answers(mock, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    key = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("bedrock-runtime", endpoint_url=mock.url, **key)

    def invoke(body):
        answer = client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=json.dumps(body))
        return json.loads(answer["body"].read())

    answer = await asyncio.to_thread(invoke, {"inputText": "a"})
    assert answer["embedding"] == vector("a", 8).tolist()
    with pytest.raises(client.exceptions.ValidationException, match="Malformed input request"):
        await asyncio.to_thread(invoke, {})
    client.close()

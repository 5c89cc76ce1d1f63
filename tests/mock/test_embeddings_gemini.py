from __future__ import annotations

import httpx
import pytest

from tests.doubles.embeddings import vector

GEMINI = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/"
ON_VERTEX = VERTEX + "gemini-embedding-2:batchEmbedContents"
PREDICT = VERTEX + "text-embedding-005:predict"


def asked(text="hello there", **more):
    return {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]}, **more}


def on_vertex(text="hello there", **config):
    return {"content": {"parts": [{"text": text}]}} | ({"embedContentConfig": config} if config else {})


def instances(*texts, **more):
    return {"instances": [{"content": text, **more} for text in texts]}


async def test_gemini_returns_embeddings(mock):
    answer = await mock.plain(GEMINI, {"requests": [asked(), asked("a", task_type="RETRIEVAL_DOCUMENT", title="t")]})
    assert answer == {
        "embeddings": [{"values": vector("hello there", 8).tolist()}, {"values": vector("a", 8).tolist()}],
        "usageMetadata": {"promptTokenCount": 3},
    }
    assert (await mock.seen())["dialect"] == "gemini"
    answer = await mock.plain(GEMINI, {"requests": [asked(outputDimensionality=256)]})
    assert len(answer["embeddings"][0]["values"]) == 256


async def test_vertex_is_answered(mock):
    answer = await mock.plain(ON_VERTEX, {"requests": [on_vertex(outputDimensionality=16), on_vertex("a")]})
    assert [len(each["values"]) for each in answer["embeddings"]] == [16, 8]
    assert answer["usageMetadata"] == {"promptTokenCount": 3}
    assert (await mock.seen())["dialect"] == "gemini_vertex"
    answer = await mock.plain(VERTEX + "gemini-embedding-2:embedContent", on_vertex("a"))
    assert answer == {
        "embedding": {"values": vector("a", 8).tolist()},
        "truncated": False,
        "usageMetadata": {"promptTokenCount": 1},
    }


async def test_predict_returns_embeddings(mock):
    body = instances("hello there", task_type="RETRIEVAL_QUERY") | {"parameters": {"outputDimensionality": 16}}
    assert await mock.plain(PREDICT, body) == {
        "predictions": [
            {
                "embeddings": {
                    "values": vector("hello there", 16).tolist(),
                    "statistics": {"token_count": 2, "truncated": False},
                }
            }
        ],
        "metadata": {"billableCharacterCount": 11},
    }


async def test_usage_can_be_false(mock):
    path = GEMINI.replace("001", "001%2Busage=none")
    body = {"requests": [asked() | {"model": "models/gemini-embedding-001+usage=none"}]}
    assert set(await mock.plain(path, body)) == {"embeddings"}
    answer = await mock.plain(PREDICT.replace("005", "005%2Busage=negative"), instances("a"))
    assert answer["predictions"][0]["embeddings"]["statistics"] == {"token_count": -1, "truncated": False}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (GEMINI, {}, "* BatchEmbedContentsRequest.requests: requests is not specified"),
        (GEMINI, {"requests": []}, "* BatchEmbedContentsRequest.requests: requests is not specified"),
        (GEMINI, {"requests": [asked()] * 101}, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in"),
        (GEMINI, {"requests": [asked(model=None)]}, "* BatchEmbedContentsRequest.requests[0].model: model is not"),
        (
            GEMINI,
            {"requests": [asked(model="models/x")]},
            "* BatchEmbedContentsRequest.requests[0].model: model must be",
        ),
        (GEMINI, {"requests": [asked("")]}, "The text content is empty."),
        (
            GEMINI,
            {"requests": [asked(title="t")]},
            "The `title` is only applicable when the task type is RETRIEVAL_DOC",
        ),
        (GEMINI, {"requests": [asked(taskType="odd")]}, "Invalid value at 'requests[0].task_type'"),
        (GEMINI, {"requests": [asked(outputDimensionality=0)]}, "Invalid value at 'requests[0].output_dimensionality'"),
        (GEMINI, {"requests": [asked(embedContentConfig={})]}, "Invalid JSON payload received. Unknown name"),
        (GEMINI, {"input": "a"}, "* BatchEmbedContentsRequest.requests: requests is not specified"),
        (ON_VERTEX, {"requests": [on_vertex() | {"taskType": "CLUSTERING"}]}, "Invalid JSON payload received. Unknown"),
        (ON_VERTEX, {"requests": [on_vertex("")]}, "The text content is empty."),
        (PREDICT, {"instances": []}, "250 instance(s) is allowed per prediction. Actual: 0"),
        (PREDICT, instances(*["a"] * 251), "250 instance(s) is allowed per prediction. Actual: 251"),
        (PREDICT, instances(""), "The text content is empty."),
        (PREDICT, instances("a", title="t"), "The `title` is only applicable"),
        (PREDICT, instances("a", text="t"), "Invalid JSON payload received. Unknown name"),
        (PREDICT, instances("a") | {"parameters": {"dimensions": 5}}, "Invalid JSON payload received. Unknown name"),
        (
            PREDICT.replace("text-embedding-005", "gemini-embedding-001"),
            instances("a", "b"),
            "1 instance(s) is allowed per prediction. Actual: 2",
        ),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, path, body, message):
    status, refused = await mock.refused(path, body)
    assert (status, refused["error"]["code"], refused["error"]["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert refused["error"]["message"].startswith(message)


async def test_faults_affect_the_answers(mock):
    status, refused = await mock.refused(GEMINI.replace("001", "001%2Bstatus=429"), {"requests": [asked()]})
    assert (status, refused["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")


async def test_the_sdk_reads_the_answers(mock):
    genai = pytest.importorskip("google.genai")
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:
        options = genai.types.HttpOptions(base_url=mock.url, httpx_async_client=http)
        sdk = genai.Client(api_key="k", http_options=options).aio
        config = {"task_type": "RETRIEVAL_DOCUMENT", "title": "t", "output_dimensionality": 16}
        answer = await sdk.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=config)
        assert [each.values for each in answer.embeddings] == [vector(text, 16).tolist() for text in "ab"]


@pytest.mark.parametrize("model", ["text-embedding-005", "gemini-embedding-2"])
@pytest.mark.parametrize("texts", [["a"], ["a", "b"]])
async def test_the_sdk_reads_the_answers_of_vertex(mock, model, texts):
    genai = pytest.importorskip("google.genai")
    credentials = pytest.importorskip("google.oauth2.credentials")
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:
        options = genai.types.HttpOptions(base_url=mock.url, api_version="v1", httpx_async_client=http)
        token = credentials.Credentials("t")
        sdk = genai.Client(vertexai=True, project="p", location="l", credentials=token, http_options=options).aio
        contents = [genai.types.Content(parts=[genai.types.Part(text=text)]) for text in texts]
        answer = await sdk.models.embed_content(
            model=model, contents=contents, config={"output_dimensionality": 16, "task_type": "CLUSTERING"}
        )
        assert [each.values for each in answer.embeddings] == [vector(text, 16).tolist() for text in texts]

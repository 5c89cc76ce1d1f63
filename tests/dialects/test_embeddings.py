"""Embeddings APIs of providers: their requests and answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import client_apis, provider_apis
from extproc.words.dialect import Destination
from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.exchange import Usage
from extproc.words.messages import EmbeddingPrompt, Embeddings, Problem

OPENAI = client_apis()["openai_embeddings"]
GEMINI, VERTEX, COHERE, TITAN = (
    provider_apis()[name] for name in ("gemini_embeddings", "vertex_embeddings", "cohere_embed", "aws_titan_embed")
)
PROVIDERS = {dialect.name: dialect for dialect in (GEMINI, VERTEX, COHERE, TITAN)}
each = pytest.mark.parametrize("dialect", PROVIDERS.values(), ids=PROVIDERS)


def ask(*texts, **fields):
    return EmbeddingPrompt("m", list(texts), **fields)


def said(body, ignored):
    return json.loads(json.dumps(body)), list(ignored)


def encode(dialect, model, *texts, **fields):
    return said(*dialect.encode_request(ask(*texts, **fields), Destination(model)))


def decode(dialect, body):
    return dialect.decode_answer(body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(dialect, model, *texts, **fields):
    with pytest.raises(Refusal) as caught:
        encode(dialect, model, *texts, **fields)
    assert caught.value.kind is UNSUPPORTED_BY_TARGETS
    return caught.value.param


@each
def test_they_belong_to_the_family_and_serve_providers(dialect):
    assert dialect.family == OPENAI.family == "embeddings"
    assert dialect.name in provider_apis()
    assert dialect.name not in client_apis() or client_apis()[dialect.name].translation is not None
    assert OPENAI.translation is not None


@each
@pytest.mark.parametrize("model", ["m", "gemini-embedding-001"])
def test_tokens_as_input_are_refused(dialect, model):
    assert refused(dialect, model, [1, 2]) == "input"
    assert refused(dialect, model, "a", [1]) == "input"


@pytest.mark.parametrize(
    ("dialect", "model", "most"),
    [
        (GEMINI, "gemini-embedding-001", 100),
        (VERTEX, "gemini-embedding-001", 100),
        (VERTEX, "text-embedding-005", 250),
        (COHERE, "embed-v4.0", 96),
        (TITAN, "amazon.titan-embed-text-v2:0", 1),
    ],
)
def test_the_number_of_inputs_is_limited(dialect, model, most):
    encode(dialect, model, *["a"] * most)
    assert refused(dialect, model, *["a"] * (most + 1)) == "input"


def test_titan_refuses_more_than_one_input():
    with pytest.raises(Refusal, match="one input per request"):
        encode(TITAN, "amazon.titan-embed-text-v2:0", "a", "b")


@pytest.mark.parametrize(
    ("dialect", "model", "path"),
    [
        (GEMINI, "gemini-embedding-001", "/models/gemini-embedding-001:batchEmbedContents"),
        (GEMINI, "models/gemini-embedding-2", "/models/gemini-embedding-2:batchEmbedContents"),
        (GEMINI, "../a?b", "/models/..%2Fa%3Fb:batchEmbedContents"),
        (VERTEX, "gemini-embedding-001", "/models/gemini-embedding-001:batchEmbedContents"),
        (VERTEX, "textembedding-gecko@003", "/models/textembedding-gecko@003:predict"),
        (COHERE, "embed-v4.0", "/embed"),
        (TITAN, "amazon.titan-embed-text-v2:0", "/model/amazon.titan-embed-text-v2%3A0/invoke"),
        (TITAN, "arn:aws:bedrock:x/y", "/model/arn%3Aaws%3Abedrock%3Ax%2Fy/invoke"),
    ],
)
def test_the_path_names_the_model(dialect, model, path):
    assert dialect.path(Destination(model), stream=False) == path


# --- requests


def content(text):
    return {"content": {"parts": [{"text": text}]}}


def of(model, text, **more):
    return {"model": f"models/{model}", **content(text), **more}


G1, G2 = "gemini-embedding-001", "gemini-embedding-2"
TITAN_2, TITAN_1, TITAN_MM = (
    *("amazon.titan-embed-text-v2:0", "amazon.titan-embed-text-v1", "amazon.titan-embed-image-v1"),
)


@pytest.mark.parametrize(
    ("dialect", "model", "prompt", "body", "ignored"),
    [
        (GEMINI, G1, ask("a", "b"), {"requests": [of(G1, "a"), of(G1, "b")]}, []),
        (GEMINI, f"models/{G1}", ask("a"), {"requests": [of(G1, "a")]}, []),
        (
            GEMINI,
            G1,
            ask("a", dimensions=8, purpose="search_query", user="u"),
            {"requests": [of(G1, "a", taskType="RETRIEVAL_QUERY", outputDimensionality=8)]},
            ["user"],
        ),
        (
            GEMINI,
            "text-embedding-004",
            ask("a", purpose="similarity"),
            {"requests": [of("text-embedding-004", "a", taskType="SEMANTIC_SIMILARITY")]},
            [],
        ),
        (
            GEMINI,
            G2,
            ask("a", dimensions=8, purpose="search_query"),
            {"requests": [of(G2, "task: search result | query: a", outputDimensionality=8)]},
            [],
        ),
        (
            GEMINI,
            G2,
            ask("a", purpose="search_document"),
            {"requests": [of(G2, "title: none | text: a")]},
            [],
        ),
        (GEMINI, G2, ask("a"), {"requests": [of(G2, "a")]}, []),
        (VERTEX, G1, ask("a", "b"), {"requests": [content("a"), content("b")]}, []),
        (
            VERTEX,
            G1,
            ask("a", dimensions=8, purpose="clustering", user="u"),
            {
                "requests": [
                    content("a") | {"embedContentConfig": {"taskType": "CLUSTERING", "outputDimensionality": 8}}
                ]
            },
            ["user"],
        ),
        (
            VERTEX,
            G2,
            ask("a", purpose="clustering"),
            {"requests": [content("task: clustering | query: a")]},
            [],
        ),
        (VERTEX, "text-embedding-005", ask("a"), {"instances": [{"content": "a"}]}, []),
        (
            VERTEX,
            "text-embedding-005",
            ask("a", "b", dimensions=8, purpose="search_document"),
            {
                "instances": [{"content": text, "task_type": "RETRIEVAL_DOCUMENT"} for text in ("a", "b")],
                "parameters": {"outputDimensionality": 8},
            },
            [],
        ),
        (
            COHERE,
            "embed-v4.0",
            ask("a", "b"),
            {
                "model": "embed-v4.0",
                "texts": ["a", "b"],
                "input_type": "search_document",
                "embedding_types": ["float"],
            },
            [],
        ),
        (
            COHERE,
            "embed-v4.0",
            ask("a", dimensions=256, purpose="search_query", user="u"),
            {
                "model": "embed-v4.0",
                "texts": ["a"],
                "input_type": "search_query",
                "embedding_types": ["float"],
                "output_dimension": 256,
            },
            ["user"],
        ),
        (
            COHERE,
            "e",
            ask("a", purpose="similarity"),
            {"model": "e", "texts": ["a"], "input_type": "search_document", "embedding_types": ["float"]},
            ["input_type"],
        ),
        (TITAN, TITAN_2, ask("a"), {"inputText": "a", "normalize": True}, []),
        (
            TITAN,
            TITAN_2,
            ask("a", dimensions=256, purpose="search_query", user="u"),
            {"inputText": "a", "normalize": True, "dimensions": 256},
            ["input_type", "user"],
        ),
        (TITAN, TITAN_1, ask("a"), {"inputText": "a"}, []),
        (TITAN, TITAN_1, ask("a", dimensions=1536), {"inputText": "a"}, []),
        (TITAN, TITAN_MM, ask("a"), {"inputText": "a"}, []),
        (
            TITAN,
            TITAN_MM,
            ask("a", dimensions=256),
            {"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 256}},
            [],
        ),
    ],
)
def test_requests_are_written(dialect, model, prompt, body, ignored):
    assert said(*dialect.encode_request(prompt, Destination(model))) == (body, ignored)


def test_the_first_titan_has_a_fixed_length():
    assert refused(TITAN, TITAN_1, "a", dimensions=256) == "dimensions"


@each
def test_the_clients_encoding_format_is_not_sent(dialect):
    assert encode(dialect, "m", "a", encoding="base64") == encode(dialect, "m", "a")


# --- answers

A, B = [0.5, -1.0], [0.25, 2.0]


@pytest.mark.parametrize(
    ("dialect", "body", "expected"),
    [
        (GEMINI, {"embeddings": [{"values": A}, {"values": B}]}, Embeddings([A, B])),
        (
            GEMINI,
            {"embeddings": [{"values": A}], "usageMetadata": {"promptTokenCount": 7}},
            Embeddings([A], usage=Usage(7)),
        ),
        (GEMINI, {"embeddings": [{"values": A}], "usageMetadata": {"promptTokenCount": "7"}}, Embeddings([A])),
        (GEMINI, {"embeddings": [{"values": A}], "usageMetadata": []}, Embeddings([A])),
        (
            VERTEX,
            {
                "predictions": [
                    {"embeddings": {"values": A, "statistics": {"truncated": False, "token_count": 6}}},
                    {"embeddings": {"values": B, "statistics": {"truncated": False, "token_count": 4.0}}},
                ],
                "metadata": {"billableCharacterCount": 11},
            },
            Embeddings([A, B], usage=Usage(10)),
        ),
        (VERTEX, {"predictions": [{"embeddings": {"values": A}}]}, Embeddings([A])),
        (VERTEX, {"predictions": [{"embeddings": {"values": A, "statistics": {"token_count": -1}}}]}, Embeddings([A])),
        (
            VERTEX,
            {"embeddings": [{"values": A}, {"values": B}], "usageMetadata": {"promptTokenCount": 7}},
            Embeddings([A, B], usage=Usage(7)),
        ),
        (
            COHERE,
            {
                "id": "1",
                "embeddings": {"float": [A, B]},
                "texts": ["a", "b"],
                "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}},
            },
            Embeddings([A, B], usage=Usage(7)),
        ),
        (COHERE, {"embeddings": {"float": [A]}, "meta": {"billed_units": {"input_tokens": None}}}, Embeddings([A])),
        (COHERE, {"embeddings": {"float": [A]}, "meta": []}, Embeddings([A])),
        (
            TITAN,
            {"embedding": A, "embeddingsByType": {"float": A}, "inputTextTokenCount": 7},
            Embeddings([A], usage=Usage(7)),
        ),
        (TITAN, {"embedding": A}, Embeddings([A])),
        (TITAN, {"embedding": A, "inputTextTokenCount": 1.5}, Embeddings([A])),
    ],
)
def test_answers_are_read(dialect, body, expected):
    assert decode(dialect, body) == expected


@each
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"embeddings":' * 100_000),
        *(b'{"embeddings":[]}', b'{"embeddings":{"float":[]}}', b'{"embedding":[]}', b'{"predictions":[]}'),
        *(b'{"embeddings":[{"values":["a"]}]}', b'{"embeddings":{"float":[[null]]}}', b'{"embedding":[1e999]}'),
        *(b'{"predictions":[{}]}', b'{"message":"oh"}'),
    ],
)
def test_a_body_that_is_no_answer_is_refused(dialect, body):
    with pytest.raises(ValueError):
        decode(dialect, body)


@each
def test_a_client_gets_the_vectors(dialect):
    bodies = {
        GEMINI: {"embeddings": [{"values": A}]},
        VERTEX: {"predictions": [{"embeddings": {"values": A}}]},
        COHERE: {"embeddings": {"float": [A]}},
        TITAN: {"embedding": A},
    }
    found = decode(dialect, bodies[dialect])
    assert OPENAI.translation.encode_answer(found)["data"] == [{"object": "embedding", "index": 0, "embedding": A}]
    found.encoding = "base64"
    assert OPENAI.translation.encode_answer(found)["data"][0]["embedding"] == "AAAAPwAAgL8="


@pytest.mark.parametrize(
    ("dialect", "status", "body", "expected"),
    [
        (
            GEMINI,
            429,
            {"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED"}},
            Problem("Slow.", "rate_limit_error", "resource_exhausted"),
        ),
        (
            VERTEX,
            404,
            {"error": {"code": 404, "message": "No.", "status": "NOT_FOUND"}},
            Problem("No.", "not_found_error", "not_found"),
        ),
        (COHERE, 401, {"message": "invalid api token"}, Problem("invalid api token", "authentication_error")),
        (TITAN, 400, {"message": "Malformed."}, Problem("Malformed.", "invalid_request_error")),
    ],
)
def test_errors_are_read(dialect, status, body, expected):
    assert dialect.decode_problem(status, json.dumps(body).encode()) == expected


NUMBERS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=2)
NAMES = st.sampled_from(
    [
        *("embeddings", "values", "predictions", "statistics", "token_count", "float", "embedding", "meta"),
        *(
            "billed_units",
            "input_tokens",
            "usageMetadata",
            "promptTokenCount",
            "inputTextTokenCount",
            "message",
            "error",
        ),
    ]
)
ANY = st.recursive(
    NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@each
@given(value=ANY | st.dictionaries(NAMES, ANY, max_size=3))
def test_any_request_and_answer_is_read_or_refused(dialect, value):
    body = json.dumps(value).encode()
    dialect.decode_problem(400, body)
    try:
        found = dialect.decode_answer(body)
    except ValueError:
        return
    found.encoding = "base64"
    json.dumps(OPENAI.translation.encode_answer(found))

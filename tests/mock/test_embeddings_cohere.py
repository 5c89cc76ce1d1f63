from __future__ import annotations

import base64
import struct

import httpx
import pytest

from tests.doubles.embeddings import vector

PATH = "/v2/embed"
URI = "data:image/png;base64,AAAA"


def body(*texts, **more):
    given = {} if {"images", "inputs"} & {*more} else {"texts": list(texts) or ["hello there", "a"]}
    return {"model": "embed-v4.0", "input_type": "search_document", **given} | more


async def test_embeddings_are_returned(mock):
    answer = await mock.plain(PATH, body(embedding_types=["float"]))
    assert len(answer.pop("id")) == 36
    assert answer == {
        "embeddings": {"float": [vector("hello there", 8).tolist(), vector("a", 8).tolist()]},
        "texts": ["hello there", "a"],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}},
        "response_type": "embeddings_by_type",
    }
    assert (await mock.seen())["dialect"] == "cohere"


async def test_vectors_come_in_every_type(mock):
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    found = (await mock.plain(PATH, body("a", embedding_types=types, output_dimension=256)))["embeddings"]
    floats = found["float"][0]
    assert len(floats) == 256
    assert list(struct.unpack("<256f", base64.b64decode(found["base64"][0]))) == floats
    assert found["int8"][0] == [round(127 * value) for value in floats]
    assert found["uint8"][0] == [value + 128 for value in found["int8"][0]]
    assert len(found["ubinary"][0]) == 32
    assert found["ubinary"][0][0] >> 7 == (floats[0] > 0)
    assert found["binary"][0] == [value - 128 for value in found["ubinary"][0]]


async def test_images_and_mixed_inputs(mock):
    answer = await mock.plain(PATH, body(images=[URI], input_type="image"))
    assert answer["meta"]["billed_units"] == {"images": 1}
    assert len(answer["images"]) == len(answer["embeddings"]["float"]) == 1
    mixed = {"content": [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {"url": URI}}]}
    answer = await mock.plain(PATH, body(inputs=[mixed, mixed]))
    assert answer["meta"]["billed_units"] == {"input_tokens": 4, "images": 2}
    assert len(answer["embeddings"]["float"]) == 2


async def test_usage_can_be_false(mock):
    answer = await mock.plain(PATH, body(model="embed-v4.0+usage=none"))
    assert answer["meta"] == {"api_version": {"version": "2"}}


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (body(input_type=None), 400, "invalid request: valid input_type must be provided with the provided model"),
        (body(input_type="query"), 400, "invalid request: valid input_type must be provided with the provided model"),
        (body(texts=None), 400, "invalid request: exactly one of texts, images or inputs must be provided."),
        (body(texts=["a"], images=[URI]), 400, "invalid request: exactly one of texts, images or inputs must be"),
        (body(*["a"] * 97), 400, "invalid request: total number of texts must be at most 96 - received 97"),
        (body("a", ""), 400, "invalid request: inputs contains an element that is the empty string at index 1"),
        (body(images=[URI]), 400, "invalid request: images must be used with input_type=image"),
        (body(output_dimension=100), 400, "invalid request: output_dimension must be one of 256, 512, 1024, 1536"),
        (body(model="embed-english-v3.0", output_dimension=256), 400, "invalid request: output_dimension is not"),
        (
            body(embedding_types="float"),
            400,
            "invalid type: parameter 'embedding_types' is of type string but should be of type []Object. For proper",
        ),
        (body(texts=[[1]]), 400, "invalid type: parameter 'texts[0]' is of type []Object but should be of type string"),
        (body(dimensions=5), 422, "unknown field: parameter 'dimensions' is not a valid field."),
        (body(model="embed-v4.0+status=503"), 503, "A fault was asked for: status=503."),
    ],
)
async def test_wrong_requests_are_refused_as_the_api_does(mock, asked, status, message):
    got, refused = await mock.refused(PATH, asked)
    assert got == status
    assert refused["message"].startswith(message)


async def test_the_sdk_reads_the_answers(mock):
    library = pytest.importorskip("cohere")
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        sdk = library.AsyncClientV2(api_key="k", base_url=mock.url, httpx_client=client)
        answer = await sdk.embed(**body("a", embedding_types=["float", "int8"]))
        assert answer.embeddings.float_ == [vector("a", 8).tolist()]
        assert len(answer.embeddings.int8[0]) == 8
        assert answer.meta.billed_units.input_tokens == 1
        with pytest.raises(library.BadRequestError, match="at most 96"):
            await sdk.embed(**body(*["a"] * 97))

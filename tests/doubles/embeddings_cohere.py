"""Cohere's Embed, version 2: the vectors of embeddings.py in each of its types.

Sources: https://docs.cohere.com/reference/embed, .../reference/errors, https://docs.cohere.com/docs/cohere-embed
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any
from uuid import UUID

from tests.doubles.answers import Answer, Json, Question, Refused, count_words, told
from tests.doubles.cohere import checked
from tests.doubles.cohere_shapes import EMBED, MOST_TEXTS
from tests.doubles.embeddings import base64, vector

_PURPOSES = ("search_document", "search_query", "classification", "clustering", "image")
_SIZES = (256, 512, 1024, 1536)
_USUAL_SIZE = 8
_IMAGE = "image:"


def embed(question: Question) -> Answer:
    """POST /v2/embed."""
    body = question.body
    checked(EMBED, body, "embed")
    _check(body)
    inputs = _inputs(body)
    texts = [part for each in inputs for part in each if not part.startswith(_IMAGE)]
    images = [part for each in inputs for part in each if part.startswith(_IMAGE)]
    size = body.get("output_dimension") or _USUAL_SIZE
    vectors = [vector("".join(each), size) for each in inputs]
    types = body.get("embedding_types") or ["float"]
    tokens = max(1, sum(map(count_words, texts))) if texts else 0
    units = {"input_tokens": tokens} if texts else {}
    billed = told(question.faults, units | ({"images": len(images)} if images else {}))
    document: Json = {
        "id": str(UUID(hex=(question.digest * 2)[:32])),
        "embeddings": {name: [_FORMS[name](each) for each in vectors] for name in types},
        "texts": body.get("texts") or [],
        "meta": {"api_version": {"version": "2"}} | ({"billed_units": billed} if billed else {}),
        "response_type": "embeddings_by_type",
    }
    if body.get("images"):
        document["images"] = [{"width": 1, "height": 1, "format": "png", "bit_depth": 24} for _ in images]
    return Answer(document)


def _check(body: Json) -> None:
    given = [name for name in ("texts", "images", "inputs") if body.get(name)]
    if len(given) != 1:
        raise _wrong("exactly one of texts, images or inputs must be provided.")
    count = len(body[given[0]])
    if given != ["images"] and count > MOST_TEXTS:
        raise _wrong(f"total number of {given[0]} must be at most {MOST_TEXTS} - received {count}")
    if body.get("input_type") not in _PURPOSES:
        raise _wrong("valid input_type must be provided with the provided model")
    if given == ["images"] and body["input_type"] != "image":
        raise _wrong("images must be used with input_type=image")
    for index, text in enumerate(body.get("texts") or ()):
        if not text:
            raise _wrong(f"inputs contains an element that is the empty string at index {index}")
    size = body.get("output_dimension")
    if size is not None and "v3" in body["model"]:
        raise _wrong("output_dimension is not supported by the provided model")
    if size is not None and size not in _SIZES:
        raise _wrong(f"output_dimension must be one of {', '.join(map(str, _SIZES))}")


def _wrong(message: str) -> Refused:
    return Refused(400, f"invalid request: {message}")


def _inputs(body: Json) -> list[list[str]]:
    """The input of each vector: texts and images. Images begin with `_IMAGE`."""
    if body.get("texts"):
        return [[text] for text in body["texts"]]
    if body.get("images"):
        return [[_IMAGE + url] for url in body["images"]]
    return [
        [part["text"] if part["type"] == "text" else _IMAGE + part["image_url"]["url"] for part in each["content"]]
        for each in body["inputs"]
    ]


# --- types


def _bits(values: array[float]) -> list[int]:
    """One bit for each number: whether it is positive."""
    groups = [values[at : at + 8] for at in range(0, len(values), 8)]
    return [sum((value > 0) << (7 - place) for place, value in enumerate(group)) for group in groups]


_FORMS: dict[str, Callable[[array[float]], Any]] = {
    "float": lambda values: values.tolist(),
    "base64": base64,
    "int8": lambda values: [round(127 * value) for value in values],
    "uint8": lambda values: [round(127 * value) + 128 for value in values],
    "ubinary": _bits,
    "binary": lambda values: [byte - 128 for byte in _bits(values)],
}

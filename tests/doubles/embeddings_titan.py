"""Amazon Titan's embeddings, one text or image per request: the vectors of embeddings.py.

The models accept different fields: V2 dimensions, the multimodal one an image, G1 only a text.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html and
.../model-parameters-titan-embed-mm.html
"""

from __future__ import annotations

from tests.doubles.answers import Answer, Json, Question, Refused, count_words, told
from tests.doubles.embeddings import vector
from tests.doubles.shapes import Check, Wrong, array, base64, boolean, integer, one_of, record, text

SIZES = (256, 512, 1024)
IMAGE_SIZES = (256, 384, 1024)
_USUAL_SIZE = 8  # the default, as for all embeddings here
_TEXT = text(1, 50_000)
_G1 = record({"inputText!": _TEXT})
_V2 = record(
    {
        "inputText!": _TEXT,
        "dimensions": integer(),
        "normalize": boolean,
        "embeddingTypes": array(one_of("float", "binary"), least=1),
    }
)
_MULTIMODAL = record(
    {"inputText": _TEXT, "inputImage": base64, "embeddingConfig": record({"outputEmbeddingLength": integer()})}
)
_TYPES = {"array": "JSONArray", "object": "JSONObject", "string": "String", "integer": "Integer", "boolean": "Boolean"}


def titan(question: Question) -> Answer:
    """POST /model/{id}/invoke of a Titan model."""
    body = question.body
    shape = _shape(question.model)
    _check(shape, body)
    asked = body.get("inputText", "")
    counts = told(question.faults, {"inputTextTokenCount": max(1, count_words(asked))}) or {}
    if shape is _MULTIMODAL:
        size = _sized(body.get("embeddingConfig", {}).get("outputEmbeddingLength"), IMAGE_SIZES)
        if not {"inputText", "inputImage"} & {*body}:
            raise _malformed("#: required key [inputText] not found")
        return Answer({"embedding": vector(asked + body.get("inputImage", ""), size).tolist()} | counts)
    if shape is _G1:
        return Answer({"embedding": vector(asked, _USUAL_SIZE).tolist()} | counts)
    values = vector(asked, _sized(body.get("dimensions"), SIZES)).tolist()
    forms: Json = {"float": values, "binary": [int(value > 0) for value in values]}
    by_type = {kind: forms[kind] for kind in body.get("embeddingTypes", ["float"])}
    return Answer({"embedding": values} | counts | {"embeddingsByType": by_type})


def _shape(model: str) -> Check:
    if "embed-image" in model:
        return _MULTIMODAL
    return _G1 if "embed-text-v1" in model or "embed-g1" in model else _V2


def _sized(asked: int | None, sizes: tuple[int, ...]) -> int:
    if asked not in (None, *sizes):
        raise _malformed(f"#/dimensions: {asked} is not a valid enum value")
    return asked or _USUAL_SIZE


def _check(shape: Check, body: Json) -> None:
    try:
        shape(body, ())
    except Wrong as wrong:
        raise _malformed(_worded(wrong)) from None


def _worded(wrong: Wrong) -> str:
    parent = "/".join(["#", *map(str, wrong.path[:-1])])
    match wrong.problem:
        case "missing":
            return f"{parent}: required key [{wrong.path[-1]}] not found"
        case "unknown":
            return f"{parent}: extraneous key [{wrong.path[-1]}] is not permitted"
        case "type":
            return f"{parent}/{wrong.path[-1]}: expected type: {_TYPES[wrong.expected]}"
        case _:
            return f"{parent}/{wrong.path[-1]}: {wrong.expected}"


def _malformed(problem: str) -> Refused:
    return Refused(400, f"Malformed input request: {problem}, please reformat your input and try again.")

"""OpenAI's embeddings: vectors derived from the input's hash, as floats or base64."""

from __future__ import annotations

from array import array
from base64 import b64encode
from typing import Any

from extproc.upstream.mock.apis import vector
from tests.doubles.answers import Answer, Question, Refused, count_words, positive, report_usage

__all__ = ["vector"]

# https://platform.openai.com/docs/api-reference/embeddings/create
_MOST_INPUTS = 2048
_MOST_TOKENS = 300_000


def embeddings(question: Question) -> Answer:
    """POST /v1/embeddings."""
    body = question.body
    inputs = _inputs(body.get("input"))
    if len(inputs) > _MOST_INPUTS:
        message = f"Expected an array with maximum length {_MOST_INPUTS}, but got one with length {len(inputs)}."
        raise Refused(400, f"Invalid 'input': array too long. {message}", param="input")
    tokens = max(1, sum(len(each) if isinstance(each, list) else count_words(each) for each in inputs))
    if tokens > _MOST_TOKENS:
        raise Refused(400, f"Requested {tokens} tokens, max {_MOST_TOKENS} tokens per request")
    dimensions = positive(body, "dimensions") or 8
    if dimensions > 4096:
        raise Refused(400, "'dimensions' must be at most 4096.", param="dimensions")
    encoding = body.get("encoding_format") or "float"
    if encoding not in {"float", "base64"}:
        raise Refused(400, "'encoding_format' must be float or base64.", param="encoding_format")
    vectors = [vector(each, dimensions) for each in inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": each.tolist() if encoding == "float" else base64(each)}
        for index, each in enumerate(vectors)
    ]
    usage = report_usage(question.faults, tokens, 0)
    document = {"object": "list", "data": data, "model": body["model"]}
    if usage:
        document["usage"] = {name: usage[name] for name in ("prompt_tokens", "total_tokens")}
    return Answer(document)


def _inputs(value: Any) -> list[str | list[int]]:
    """Read the four forms of `input`: a string, strings, tokens, lists of tokens."""
    if value and isinstance(value, str):
        return [value]
    if value and isinstance(value, list):
        if _are(int, value):
            return [value]
        if _are(str, value) or all(isinstance(each, list) and each and _are(int, each) for each in value):
            return value
    raise Refused(400, "'input' must be a string, strings, tokens or lists of tokens.", param="input")


def _are(kind: type, values: list[Any]) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def base64(values: array[float]) -> str:
    values = values[:]
    if array("H", [1]).tobytes() != b"\x01\x00":
        values.byteswap()  # the format is little-endian on every machine
    return b64encode(values.tobytes()).decode()

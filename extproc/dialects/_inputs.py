"""Batches of embedding inputs, split by input and joined again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_encode = msgspec.json.encode


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[dict[str, msgspec.Raw]]
    model: str = ""
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_index = msgspec.json.Decoder(int).decode


class Inputs:
    """Inputs of one request, and its answer by input, in OpenAI's form. Vectors are never decoded."""

    field = "input"

    def of(self, body: Mapping[str, Any]) -> Sequence[Any] | None:
        """Inputs of a body; None for an unusual form."""
        given = body.get(self.field)
        if isinstance(given, str):
            return [given]
        if not isinstance(given, list) or not given:
            return None
        if all(isinstance(one, int) for one in given):  # tokens of one input
            return [given]
        return given if all(isinstance(one, str | list) for one in given) else None

    def split(self, answer: bytes, weights: Sequence[int]) -> Sequence[bytes] | None:
        """An answer for each input; None for a wrong number of vectors. Tokens are divided in proportion to
        `weights`.
        """
        try:
            found = _decode(answer)
            placed = [(_index(item["index"]) if "index" in item else at, item) for at, item in enumerate(found.data)]
        except (msgspec.DecodeError, RecursionError):
            return None
        items = [item for _, item in sorted(placed, key=lambda one: one[0])]
        if sorted(place for place, _ in placed) != list(range(len(weights))):
            return None
        tokens, total = 0 if found.usage is None else found.usage.prompt_tokens, sum(weights) or 1
        parts, before, given = [], 0, 0
        for item, weight in zip(items, weights, strict=True):
            before += weight
            upto = tokens * before // total
            parts.append(_written([item], found.model, upto - given if found.usage is not None else None))
            given = upto
        return parts

    def join(self, answers: Sequence[bytes]) -> bytes:
        """The answer to all inputs, from answers in their order."""
        found = [_decode(answer) for answer in answers]
        usages = [one.usage for one in found]
        tokens = sum([usage.prompt_tokens for usage in usages if usage is not None])
        items = [item for one in found for item in one.data]
        return _written(items, found[-1].model, None if None in usages else tokens)


def _written(items: Sequence[Mapping[str, msgspec.Raw]], model: str, tokens: int | None) -> bytes:
    data = [{**item, "index": index} for index, item in enumerate(items)]
    body: dict[str, Any] = {"object": "list", "data": data, "model": model}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode(body)

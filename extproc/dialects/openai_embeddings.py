"""OpenAI embeddings.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from extproc.dialects import Ask, Dialect, Report, Text, read_model, strings
from extproc.dialects.openai_chat import read_usage
from extproc.errors import INVALID_REQUEST, Refusal


class _Answer(msgspec.Struct):
    model: str | None = None
    usage: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class OpenAIEmbeddings(Dialect):
    name = "openai_embeddings"
    family = "embeddings"
    paths = {"/v1/embeddings": "embeddings"}  # noqa: RUF012

    def read(self, body: Mapping[str, Any]) -> Ask:
        given = body.get("input")
        if not isinstance(given, str | list) or not given:
            raise Refusal(INVALID_REQUEST, "'input' must be a string or a list, not empty.", param="input")
        tokens = isinstance(given, list) and not all(isinstance(item, str) for item in given)
        return Ask(model=read_model(body), unreadable="input" if tokens else "")

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        for key, value in body.items():
            if isinstance(value, str):
                if key != "model":
                    yield Text("user", key, body, key)
            else:
                yield from strings(value, "user", key)

    def observe(self, data: bytes, report: Report) -> bool:
        try:
            answer = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        report.model = answer.model or report.model
        if answer.usage is not None:
            report.usage = read_usage({"completion_tokens": 0, **answer.usage})
            report.usage_refused = report.usage is None
        return False


DIALECT = OpenAIEmbeddings()

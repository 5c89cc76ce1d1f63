"""Amazon Bedrock's Converse and ConverseStream, for providers only.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
API_runtime_ConverseStream.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from extproc.dialects.aws_converse import problem, provider_answer, provider_request, provider_stream
from extproc.words.dialect import Decoder, Destination, Dialect
from extproc.words.messages import Answer, Problem, Prompt


class AWSConverse(Dialect):
    name = "aws_converse"
    stream_type = "application/vnd.amazon.eventstream"
    cache_marks = True
    lacks = frozenset(("choices", "logprobs"))

    def path(self, destination: Destination, *, stream: bool) -> str:
        return f"/model/{quote(destination.model, safe='')}/{'converse-stream' if stream else 'converse'}"

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return provider_answer.decode(body)

    def decoder(self) -> Decoder:
        return provider_stream.ConverseDecoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return problem.decode(status, body)


DIALECT = AWSConverse()

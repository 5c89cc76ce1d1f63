"""Amazon Bedrock's Converse and ConverseStream. No client speaks it here.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
API_runtime_ConverseStream.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from extproc.dialects import Decoder, Dialect, Place
from extproc.dialects.aws_converse import answer, request, stream
from extproc.messages import Answer, Problem, Prompt


class AWSConverse(Dialect):
    name = "aws_converse"
    stream_type = "application/vnd.amazon.eventstream"
    cache_marks = True
    lacks = frozenset(("choices", "logprobs"))

    def path(self, place: Place, *, stream: bool) -> str:
        return f"/model/{quote(place.model, safe='')}/{'converse-stream' if stream else 'converse'}"

    def encode_request(self, prompt: Prompt, place: Place) -> tuple[dict[str, Any], Sequence[str]]:
        return request.encode(prompt, place)

    def decode_answer(self, body: bytes) -> Answer:
        return answer.decode(body)

    def decoder(self) -> Decoder:
        return stream.ConverseDecoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return answer.problem(status, body)


DIALECT = AWSConverse()

"""Cohere's Chat API, version 2, for providers only.

Source: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.dialects.cohere_chat import problem, provider_answer, provider_request, provider_stream
from extproc.words.dialect import Decoder, Destination, Dialect
from extproc.words.messages import Answer, Problem, Prompt


class CohereChat(Dialect):
    name = "cohere_chat"
    reads = provider_stream.FIELDS
    lacks = frozenset(("files", "audio", "choices"))

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002 - the same for all
        return "/chat"

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode_request(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return provider_answer.decode_answer(body)

    def decoder(self) -> Decoder:
        return provider_stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return problem.decode(status, body)


DIALECT = CohereChat()

"""Cohere's Chat API, version 2. No client speaks it here.

Source: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream

    request.py   settings, tools, thinking    conversation.py  messages               models.py  which of them think
    answer.py    plain answers                stream.py        streamed ones          shapes.py  what both hold, errors
    names.py     of tools
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.dialects import Decoder, Dialect, Place
from extproc.dialects.cohere_chat import answer, request, shapes, stream
from extproc.messages import Answer, Problem, Prompt


class CohereChat(Dialect):
    name = "cohere_chat"
    lacks = frozenset(("files", "audio", "choices"))

    def path(self, place: Place, *, stream: bool) -> str:  # noqa: ARG002 - the same for all
        return "/chat"

    def encode_request(self, prompt: Prompt, place: Place) -> tuple[dict[str, Any], Sequence[str]]:
        return request.encode_request(prompt, place)

    def decode_answer(self, body: bytes) -> Answer:
        return answer.decode_answer(body)

    def decoder(self) -> Decoder:
        return stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return shapes.problem(status, body)


DIALECT = CohereChat()

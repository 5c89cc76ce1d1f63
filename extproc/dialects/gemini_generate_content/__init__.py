"""Google's generateContent, of the Gemini API and of Vertex AI alike, for providers only.

Source: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.dialects.gemini_generate_content import problem, provider_answer, provider_request, provider_stream
from extproc.words.dialect import Decoder, Destination, Dialect
from extproc.words.messages import Answer, Problem, Prompt


class GeminiGenerateContent(Dialect):
    name = "gemini_generate_content"
    images = True
    image_turns = True

    def path(self, destination: Destination, *, stream: bool) -> str:
        return provider_request.path(destination.model, stream=stream)

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode_request(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return provider_answer.decode_answer(body)

    def decoder(self) -> Decoder:
        return provider_stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return problem.decode(status, body)


DIALECT = GeminiGenerateContent()

"""Google's generateContent, of the Gemini API and of Vertex AI alike. No client speaks it here.

Source: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference

    provider_request.py  settings, tools, thinking       contents.py         turns and parts
    provider_answer.py   plain answers, errors           provider_stream.py  streamed ones
    models.py            what families of models take    media.py            images, files, audio
    shapes.py            what both hold                  signature.py        thought signatures
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.dialects.gemini_generate_content import provider_answer, provider_request, provider_stream
from extproc.words.dialect import Decoder, Destination, Dialect
from extproc.words.messages import Answer, Problem, Prompt


class GeminiGenerateContent(Dialect):
    name = "gemini_generate_content"

    def path(self, destination: Destination, *, stream: bool) -> str:
        return provider_request.path(destination.model, stream=stream)

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode_request(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return provider_answer.decode_answer(body)

    def decoder(self) -> Decoder:
        return provider_stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return provider_answer.decode_problem(status, body)


DIALECT = GeminiGenerateContent()

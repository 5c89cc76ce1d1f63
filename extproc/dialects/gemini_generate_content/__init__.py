"""Google's generateContent, of the Gemini API and of Vertex AI alike. No client speaks it here.

Source: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference

    request.py     settings, tools, thinking      contents.py  turns and parts     media.py  images, files, audio
    answer.py      plain answers, errors          stream.py    streamed ones       shapes.py what both hold
    models.py      what families of models take   signature.py thought signatures
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.dialects import Decoder, Dialect, Place
from extproc.dialects.gemini_generate_content import answer, request, stream
from extproc.messages import Answer, Problem, Prompt


class GeminiGenerateContent(Dialect):
    name = "gemini_generate_content"

    def path(self, place: Place, *, stream: bool) -> str:
        return request.path(place.model, stream=stream)

    def encode_request(self, prompt: Prompt, place: Place) -> tuple[dict[str, Any], Sequence[str]]:
        return request.encode_request(prompt, place)

    def decode_answer(self, body: bytes) -> Answer:
        return answer.decode_answer(body)

    def decoder(self) -> Decoder:
        return stream.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return answer.decode_problem(status, body)


DIALECT = GeminiGenerateContent()

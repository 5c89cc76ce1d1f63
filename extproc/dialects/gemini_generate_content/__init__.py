"""Google's generateContent, of the Gemini API and of Vertex AI alike, for clients and for providers.

Clients use the paths of the Gemini API or of Vertex AI.

Source: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc.dialects._edges import ReadsEdges
from extproc.dialects.gemini_generate_content import (
    ask,
    client_answer,
    client_request,
    client_stream,
    provider_answer,
    provider_request,
    provider_stream,
    report,
    said,
    shapes,
    spelling,
)
from extproc.dialects.gemini_generate_content import problem as problems
from extproc.dialects.gemini_generate_content.signature import PACKED
from extproc.words.dialect import (
    ANY,
    PLACE,
    Decoder,
    Destination,
    Dialect,
    Listed,
    Report,
)
from extproc.words.errors import Kind
from extproc.words.messages import Answer, Problem, Prompt

MODELS_PATH = "/v1beta/models"
_VERTEX = (f"/projects/{ANY}/locations/{ANY}/publishers/google/models", "/publishers/google/models")
_EVENTS = "alt=sse"
_METHODS = ("generateContent", "streamGenerateContent", "countTokens")
_EMBEDDING_METHODS = ("embedContent", "batchEmbedContents")


def paths(operation: str, *verbs: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Paths of an operation, and their aliases: the same in the stable version of the API, and those of Vertex AI.
    Google's SDKs call these with `vertexai=True`.

    Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.publishers.models
    """
    found = dict.fromkeys((f"{MODELS_PATH}/{PLACE}:{verb}" for verb in verbs), operation)
    others = ("/v1/models", *(f"/{version}{below}" for version in ("v1", "v1beta1") for below in _VERTEX))
    return found, {path.replace(MODELS_PATH, other, 1): path for path in found for other in others}


class GeminiClient(ReadsEdges, Dialect):
    """The parts that all operations for clients of this API have in common."""

    models_path = MODELS_PATH
    openings = (b"{", b"[{")
    usage_key = report.USAGE_KEY
    key_parameter = "key"  # https://ai.google.dev/api/all-methods#rest
    version = "x-goog-api-client"  # header of Google's SDKs

    def spelled(self, body: dict[str, Any]) -> dict[str, Any]:
        return spelling.spelled(body)

    def for_model(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        return body if body.get("model") is None else {**body, "model": f"models/{model}"}

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        return problems.encode_error(kind.status, message, kind.type, kind.code, param)

    def model(self, listed: Listed) -> dict[str, Any]:
        """Source: https://ai.google.dev/api/models#Model. Whether a model makes vectors is told by its name."""
        found = {
            "name": f"models/{listed.name}",
            "version": "",
            "displayName": listed.name,
            "inputTokenLimit": listed.context,
            "outputTokenLimit": listed.max_output_tokens,
            "supportedGenerationMethods": _EMBEDDING_METHODS if "embed" in listed.name else _METHODS,
        }
        return {name: value for name, value in found.items() if value is not None}

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        return {"models": [self.model(one) for one in listed]}

    def encode_problem(self, status: int, problem: Problem) -> dict[str, Any]:
        return problems.encode_problem(status, problem)

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return problems.decode(status, body)


class GeminiGenerateContent(ask.GeminiView, GeminiClient):
    name = "gemini_generate_content"
    paths, aliases = paths("chat", "generateContent", "streamGenerateContent")
    images = True
    image_turns = True
    tool_letters = True
    traces = (f'"{PACKED}'.encode(),)
    asides = frozenset(("labels", "serviceTier"))
    reads = frozenset(shapes.Response.__struct_encode_fields__)
    observe = staticmethod(report.observe)
    said = staticmethod(said.said)

    def observe_edges(self, head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
        """See `Dialect.observe_edges`. The counts are believed without a finish reason, which nothing read."""
        before = report.usage
        super().observe_edges(head, tail, report, inside)
        if report.usage is not None and report.usage is not before:
            report.usage.source = "provider"

    def array(self, path: str) -> bool:
        return _EVENTS not in path.partition("?")[2].split("&")

    # --- for clients

    def smallest(self, model: str) -> dict[str, Any]:  # noqa: ARG002 - the path has it
        return {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}

    def decode_request(self, body: Mapping[str, Any]) -> Prompt:
        return client_request.decode_request(body)

    def encode_answer(self, answer: Answer) -> dict[str, Any]:
        return client_answer.encode_answer(answer)

    def encoder(self) -> client_stream.Encoder:
        return client_stream.Encoder()

    # --- for providers

    def path(self, destination: Destination, *, stream: bool) -> str:
        return provider_request.path(destination.model, stream=stream)

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode_request(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return provider_answer.decode_answer(body)

    def decoder(self) -> Decoder:
        return provider_stream.Decoder()


DIALECT = GeminiGenerateContent()

"""Google's generateContent, of the Gemini API and of Vertex AI alike, for clients and for providers.

Clients use the paths of the Gemini API or of Vertex AI.

Source: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extproc.dialects._replies import OpenAIReplies
from extproc.dialects._steps import steps_of
from extproc.dialects.gemini_generate_content import (
    ask,
    client_stream,
    problem,
    provider_request,
    report,
    shapes,
    spelling,
)
from extproc.dialects.gemini_generate_content.client_answer import encode_answer
from extproc.dialects.gemini_generate_content.client_request import decode_request
from extproc.dialects.gemini_generate_content.provider_answer import decode_answer as decode_answer
from extproc.dialects.gemini_generate_content.provider_request import encode_request as encode_request
from extproc.dialects.gemini_generate_content.provider_stream import Decoder
from extproc.dialects.gemini_generate_content.report import OBSERVER
from extproc.dialects.gemini_generate_content.said import said as said
from extproc.dialects.gemini_generate_content.signature import PACKED
from extproc.words.api import Able, AnswerFacts, ClientTranslation, Endpoints, Naming, Offers, Reuse, Stored, Tools
from extproc.words.dialect import ANY, PLACE, Destination, Listed, Report
from extproc.words.errors import Kind
from extproc.words.facts import Facts

MODELS_PATH = "/v1beta/models"
_VERTEX = (f"/projects/{ANY}/locations/{ANY}/publishers/google/models", "/publishers/google/models")
_EVENTS = "alt=sse"
_METHODS = ("generateContent", "streamGenerateContent", "countTokens")
_EMBEDDING_METHODS = ("embedContent", "batchEmbedContents")


def calls(operation: str, *verbs: str, array: Callable[[str], bool] = lambda _path: False) -> Endpoints:
    """Paths of an operation, and their aliases: in the stable version of the API, and in Vertex AI. Google's SDKs call
    the latter with `vertexai=True`.

    Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.publishers.models
    """
    found = dict.fromkeys((f"{MODELS_PATH}/{PLACE}:{verb}" for verb in verbs), operation)
    others = ("/v1/models", *(f"/{version}{below}" for version in ("v1", "v1beta1") for below in _VERTEX))
    return Endpoints(
        paths=found,
        aliases={path.replace(MODELS_PATH, other, 1): path for path in found for other in others},
        models_path=MODELS_PATH,
        key_parameter="key",  # https://ai.google.dev/api/all-methods#rest
        version="x-goog-api-client",  # header of Google's SDKs
        array=array,
    )


def array(path: str) -> bool:
    """See `Endpoints.array`."""
    return _EVENTS not in path.partition("?")[2].split("&")


def for_model(body: dict[str, Any], model: str) -> dict[str, Any]:
    """See `Naming.for_model`."""
    return body if body.get("model") is None else {**body, "model": f"models/{model}"}


class Replies(OpenAIReplies):
    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        return problem.encode_error(kind.status, message, kind.type, kind.code, param)

    def model(self, listed: Listed) -> dict[str, Any]:
        """Source: https://ai.google.dev/api/models#Model. A model's name shows whether it makes vectors."""
        found = {
            "name": f"models/{listed.name}",
            "version": "",
            "displayName": listed.name,
            "inputTokenLimit": listed.context,
            "outputTokenLimit": listed.max_output_tokens,
            "description": _description(listed.facts),
            "supportedGenerationMethods": _EMBEDDING_METHODS if "embed" in listed.name else _METHODS,
        }
        return {name: value for name, value in found.items() if value is not None}

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        return {"models": [self.model(one) for one in listed]}


def _description(facts: Facts) -> str | None:
    """The end of a model in words, because Google's list has no field for it."""
    if facts.retires is None:
        return None
    return f"Retires on {facts.retires}." + (f" Successor: {facts.successor}." if facts.successor else "")


name, family = "gemini_generate_content", "chat"
endpoints = calls("chat", "generateContent", "streamGenerateContent", array=array)
view = ask.GeminiView()
fields = view.fields

# --- for clients

replies = Replies()
naming = Naming(spelled=spelling.spelled, for_model=for_model)
_READ = frozenset(shapes.Response.__struct_encode_fields__)
_TEXTS = (("candidates", 0, "content", "parts", 0, "text"),)
answers = AnswerFacts(usage_at=(("usageMetadata",),), usage_key=report.USAGE_KEY, reads=_READ, texts_at=_TEXTS)
offers = Offers(
    tools=Tools(view.tooling, view.results, functools.partial(steps_of, view), view.without_tools),
    stored=Stored(objects=ask.OBJECTS, hides=True),
    reuse=Reuse(
        asides=frozenset(("labels", "serviceTier")),
        varies=view.varies,
        prefix=view.prefix,
    ),
    naming=naming,
    thinking=view.thinking,
)
translation = ClientTranslation(
    decode_request,
    encode_answer,
    problem.encode_problem,
    client_stream.Encoder,
    view.without_hosted,
    traces=(f'"{PACKED}'.encode(),),
)
read, texts, conversation = view.read, view.texts, view.conversation

observe = OBSERVER.observe


def observe_edges(head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
    """See `ClientAPI.observe_edges`. Counts are final without a finish reason, because it was not read."""
    before = report.usage
    OBSERVER.observe_edges(head, tail, report, inside)
    if report.usage is not None and report.usage is not before:
        report.usage.source = "provider"


def smallest(model: str) -> dict[str, Any]:  # noqa: ARG001 - the path has it
    return {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


# --- for providers

able = Able(reads=_READ, texts_at=_TEXTS, images=True, image_turns=True, tool_letters=True)
decoder, decode_problem = Decoder, problem.decode


def path(destination: Destination, *, stream: bool) -> str:
    return provider_request.path(destination.model, stream=stream)

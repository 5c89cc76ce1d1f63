"""Anthropic messages, for clients and for providers.

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from extproc.dialects._replies import OpenAIReplies
from extproc.dialects._steps import steps_of
from extproc.dialects.anthropic_messages import ask, client_stream, plain, problem, shapes
from extproc.dialects.anthropic_messages.client_answer import encode_answer
from extproc.dialects.anthropic_messages.client_request import decode_request
from extproc.dialects.anthropic_messages.problem import decode_problem as decode_problem
from extproc.dialects.anthropic_messages.provider_answer import decode_answer as decode_answer
from extproc.dialects.anthropic_messages.provider_request import encode_request as encode_request
from extproc.dialects.anthropic_messages.provider_stream import Decoder
from extproc.dialects.anthropic_messages.report import OBSERVER
from extproc.dialects.anthropic_messages.said import said as said
from extproc.words.api import Able, AnswerFacts, ClientTranslation, Endpoints, Offers, Reuse, Stored, Tools
from extproc.words.dialect import Destination, Listed
from extproc.words.errors import (
    FOREIGN_OBJECT,
    OBJECT_NOT_FOUND,
    OVERLOADED,
    UNBOUNDED_INPUT,
    UNSUPPORTED_BY_TARGETS,
    Kind,
)
from extproc.words.facts import midnight

_THREAD_CODES = {
    **dict.fromkeys((UNSUPPORTED_BY_TARGETS, UNBOUNDED_INPUT), "thread_unsupported_request"),
    **dict.fromkeys((OBJECT_NOT_FOUND, FOREIGN_OBJECT), "thread_not_found"),
}
"""Error codes on which SDKs repeat the request with the whole conversation, without a thread or with a new one:
anthropic-sdk-python/src/anthropic/lib/threads/_thread_state.py
"""


class Replies(OpenAIReplies):
    request_id = "request-id"  # https://platform.claude.com/docs/en/api/errors#request-id

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        type = "overloaded_error" if kind is OVERLOADED else problem.type_of(kind.status, kind.type)
        code = kind.code
        if param is not None and param.partition(".")[0] == "thread":
            code = _THREAD_CODES.get(kind, code)
        return problem.encode_error(message, type, code, param)

    def cut_off(self, kind: Kind, message: str) -> bytes:
        return b"event: error\n" + super().cut_off(kind, message)

    def model(self, listed: Listed) -> dict[str, Any]:
        """Source: https://platform.claude.com/docs/en/api/models. The epoch stands for an unknown date."""
        facts = listed.facts
        ends = facts.deprecated or facts.retires
        return {
            "type": "model",
            "id": listed.name,
            "display_name": listed.name,
            "created_at": "1970-01-01T00:00:00Z",
            "lifecycle": "deprecated" if ends else "active",
            "deprecated_at": ends and facts.deprecated and midnight(facts.deprecated).isoformat(),
            "retires_at": ends and facts.retires and midnight(facts.retires).isoformat(),
            "max_input_tokens": listed.context,
            "max_tokens": listed.max_output_tokens,
        }

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        first, last = (listed[0].name, listed[-1].name) if listed else (None, None)
        return {"data": [self.model(one) for one in listed], "has_more": False, "first_id": first, "last_id": last}


name, family = "anthropic_messages", "chat"
endpoints = Endpoints(
    paths={"/v1/messages": "chat"},
    version="anthropic-version",  # https://platform.claude.com/docs/en/api/versioning
)
view = ask.MessagesView()
fields = view.fields

# --- for clients


def keeps(body: Mapping[str, Any]) -> bool:
    """True for a thread, and for a diagnosis of the prompt cache: later requests refer to the message's id."""
    return body.get("thread") is not None or body.get("diagnostics") is not None


replies = Replies()
_READ = frozenset(shapes.Event.__struct_encode_fields__)
_TEXTS = tuple(("delta", field) for field in ("text", "thinking", "partial_json"))
answers = AnswerFacts(usage_at=(("message", "usage"), ("usage",)), reads=_READ, texts_at=_TEXTS, comments=True)
offers = Offers(
    tools=Tools(view.tooling, view.results, partial(steps_of, view), view.without_tools),
    stored=Stored(objects=ask.OBJECTS, keeps=keeps),
    reuse=Reuse(
        asides=plain.ASIDES,
        varies=view.varies,
        plain=plain.is_plain,
        prefix=view.prefix,
    ),
    thinking=view.thinking,
)
translation = ClientTranslation(
    decode_request,
    encode_answer,
    problem.encode_problem,
    client_stream.Encoder,
    view.without_hosted,
    # The last two mark thinking that its provider does not sign. Anthropic refuses it.
    traces=(b'"gemini:', b'"openai:', b'"extra_content"', b'"signature":""', b'"signature": ""'),
    frame=client_stream.frame,
)
read, texts, conversation = view.read, view.texts, view.conversation
observe, observe_edges = OBSERVER.observe, OBSERVER.observe_edges


def smallest(model: str) -> dict[str, Any]:
    return {"model": model, "max_tokens": 256, "messages": [{"role": "user", "content": "Hello"}]}


# --- for providers

able = Able(
    lacks=frozenset(("choices", "logprobs", "audio")),
    reads=_READ,
    texts_at=_TEXTS,
    cache_marks=True,
    tool_names=128,  # https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
    rates="anthropic-ratelimit-",  # https://platform.claude.com/docs/en/api/rate-limits#response-headers
)
decoder = Decoder


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001
    return "/messages"

"""OpenAI chat completions, as OpenAI and many other providers serve them.

Source: https://platform.openai.com/docs/api-reference/chat (request, chat completion object, chunk object).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from extproc.dialects import _replies, azure
from extproc.dialects._effort import openai_reasons
from extproc.dialects._steps import steps_of
from extproc.dialects.openai_chat import (
    ask,
    client_answer,
    client_request,
    plain,
    problem,
    provider_answer,
    provider_request,
    shapes,
)
from extproc.dialects.openai_chat.client_stream import Encoder
from extproc.dialects.openai_chat.provider_stream import Decoder
from extproc.dialects.openai_chat.report import OBSERVER
from extproc.dialects.openai_chat.said import said as said
from extproc.words.api import Able, AnswerFacts, ClientTranslation, Endpoints, Offers, Reuse, Stored, Tools
from extproc.words.dialect import Destination
from extproc.words.messages import Prompt

name, family = "openai_chat", "chat"
endpoints = Endpoints(paths={"/v1/chat/completions": "chat"}, aliases=azure("/v1/chat/completions"))
view = ask.ChatView()
fields = view.fields

# --- for clients

replies = _replies.openai
_READ = frozenset(shapes.Body.__struct_encode_fields__)
_TEXTS = (
    *(("choices", 0, "delta", field) for field in ("content", "reasoning_content", "reasoning", "refusal")),
    ("choices", 0, "delta", "tool_calls", 0, "function", "arguments"),
    ("choices", 0, "text"),  # the text of completions
)
answers = AnswerFacts(usage_at=(("usage",),), reads=_READ, texts_at=_TEXTS, comments=True)
offers = Offers(
    tools=Tools(view.tooling, view.results, partial(steps_of, view), view.without_tools),
    stored=Stored(objects=ask.OBJECTS),
    reuse=Reuse(
        asides=plain.ASIDES,
        varies=view.varies,
        plain=plain.is_plain,
        prefix=view.prefix,
        cache_key="prompt_cache_key",
    ),
    thinking=view.thinking,
    usage_request=view.usage_request,
)
translation = ClientTranslation(
    client_request.decode,
    client_answer.encode,
    lambda _status, found: problem.encode(found),
    Encoder,
    view.without_hosted,
    traces=(b'"thinking_blocks"', b'"thought_signature"'),
)
read, texts, conversation = view.read, view.texts, view.conversation
observe, observe_edges = OBSERVER.observe, OBSERVER.observe_edges


def smallest(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


# --- for providers

able = Able(
    reads=_READ,
    texts_at=_TEXTS,
    images=True,
    rates="x-ratelimit-",  # https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    reasons=openai_reasons,
)
decoder, decode_answer, decode_problem = Decoder, provider_answer.decode, problem.decode


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - the same for all
    return "/chat/completions"


def encode_request(prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
    return provider_request.encode(prompt, destination, destination.more)

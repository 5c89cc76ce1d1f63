"""Cohere's Chat API, version 2, for providers only.

Source: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream
"""

from __future__ import annotations

from extproc.dialects.cohere_chat import problem
from extproc.dialects.cohere_chat.provider_answer import decode_answer as decode_answer
from extproc.dialects.cohere_chat.provider_request import encode_request as encode_request
from extproc.dialects.cohere_chat.provider_stream import FIELDS, Decoder
from extproc.words.api import Able
from extproc.words.dialect import Destination

name, family = "cohere_chat", "chat"
able = Able(
    lacks=frozenset(("files", "audio", "choices")),
    reads=FIELDS,
    texts_at=(("delta", "message", "content", "text"),),
)
decoder, decode_problem = Decoder, problem.decode


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - the same for all
    return "/chat"

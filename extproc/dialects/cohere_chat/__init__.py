"""Cohere's Chat API, version 2, for providers only.

Source: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream
"""

from __future__ import annotations

from extproc.dialects.cohere_chat.problem import decode as decode_problem
from extproc.dialects.cohere_chat.provider_answer import decode_answer
from extproc.dialects.cohere_chat.provider_request import encode_request
from extproc.dialects.cohere_chat.provider_stream import FIELDS, Decoder
from extproc.words.api import Able
from extproc.words.dialect import Destination

__all__ = ["able", "decode_answer", "decode_problem", "decoder", "encode_request", "family", "name", "path"]

name, family = "cohere_chat", "chat"
able = Able(lacks=frozenset(("files", "audio", "choices")), reads=FIELDS)
decoder = Decoder


def path(destination: Destination, *, stream: bool) -> str:  # noqa: ARG001 - the same for all
    return "/chat"

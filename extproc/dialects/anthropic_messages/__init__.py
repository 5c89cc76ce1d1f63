"""Anthropic messages: as a client speaks it and as a provider does.

    reading.py           what the gateway reads of what it lets pass
    client_request.py    a client's request into the neutral form    provider_request.py  that into a provider's
    answer.py stream.py  answers, both ways                          problem.py           errors, both ways
    thinking.py          what each generation of models accepts      schema.py            schemas it can enforce
    shapes.py            what answers and events hold                usage.py             usage, both ways

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extproc.dialects.anthropic_messages import answer as answers
from extproc.dialects.anthropic_messages import client_request, provider_request, reading
from extproc.dialects.anthropic_messages import problem as problems
from extproc.dialects.anthropic_messages import stream as streams
from extproc.words.dialect import Ask, Destination, Dialect, Report, Text
from extproc.words.errors import OVERLOADED, Kind
from extproc.words.messages import Answer, Problem, Prompt


class AnthropicMessages(Dialect):
    name = "anthropic_messages"
    paths = {"/v1/messages": "chat"}  # noqa: RUF012
    cache_marks = True
    # The last two are thinking that its provider does not sign, which Anthropic refuses.
    traces = (b'"gemini:', b'"openai:', b'"extra_content"', b'"signature":""', b'"signature": ""')
    lacks = frozenset(("choices", "logprobs", "audio"))

    def read(self, body: Mapping[str, Any], *, counting: bool = False) -> Ask:
        """`counting`: the body of /v1/messages/count_tokens, which sets no limit."""
        return reading.read(body, counting=counting)

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        return reading.texts(body)

    def observe(self, data: bytes, report: Report) -> bool:
        reading.observe(data, report)
        return False  # usage comes unasked, so no event of it has to be hidden

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        type = "overloaded_error" if kind is OVERLOADED else problems.type_of(kind.status, kind.type)
        return problems.encode_error(message, type, kind.code, param)

    def cut_off(self, kind: Kind, message: str) -> bytes:
        return b"event: error\n" + super().cut_off(kind, message)

    # --- a client speaks it

    def decode_request(self, body: Mapping[str, Any]) -> Prompt:
        return client_request.decode_request(body)

    def encode_answer(self, answer: Answer) -> dict[str, Any]:
        return answers.encode_answer(answer)

    def encoder(self) -> streams.Encoder:
        return streams.Encoder()

    def encode_problem(self, status: int, problem: Problem) -> dict[str, Any]:
        return problems.encode_problem(status, problem)

    # --- a provider speaks it

    def path(self, destination: Destination, *, stream: bool) -> str:  # noqa: ARG002
        return "/messages"

    def encode_request(self, prompt: Prompt, destination: Destination) -> tuple[dict[str, Any], Sequence[str]]:
        return provider_request.encode_request(prompt, destination)

    def decode_answer(self, body: bytes) -> Answer:
        return answers.decode_answer(body)

    def decoder(self) -> streams.Decoder:
        return streams.Decoder()

    def decode_problem(self, status: int, body: bytes) -> Problem:
        return problems.decode_problem(status, body)


def count_tokens_answer(tokens: int) -> dict[str, Any]:
    """The answer of /v1/messages/count_tokens."""
    return {"input_tokens": tokens}


DIALECT = AnthropicMessages()

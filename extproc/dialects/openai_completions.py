"""OpenAI's older completions, without messages. They only pass through, to providers that serve them.

Source: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from extproc.dialects import MAX_TOKENS, _replies, _usual, azure, read_flag, read_integer, read_model
from extproc.dialects._batch import add_inputs
from extproc.dialects._conversation import pieces
from extproc.dialects._observer import Observer
from extproc.dialects._view import varies
from extproc.dialects.openai_chat.ask import check_stream_options, usage_request
from extproc.dialects.openai_chat.said import PADDED, QUIET
from extproc.dialects.openai_chat.usage import read_usage
from extproc.words.api import AnswerFacts, ClientTranslation, Endpoints, Offers, Reuse
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Endpoint, Fields, Report, Text
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.said import ANSWER, Closed, Piece, apart, loose

_MAX_CHOICES = 128
_DEFAULT_OUTPUT = 16  # OpenAI's default limit in tokens; other providers may write more


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    service_tier: Any = None
    error: Any = None


name, family = "openai_completions", "completions"
endpoints = Endpoints(paths={"/v1/completions": "text_completion"}, aliases=azure("/v1/completions"))
fields = Fields(
    model="model",
    fixed=("model", "stream", "stream_options", "n"),
    output_limits=("max_tokens",),
    needs={},
    spoken=frozenset(("prompt",)),
    files=frozenset(),
    opaque=frozenset(),
    options=("service_tier",),
    also=("best_of",),
)
answers = AnswerFacts(
    usage_at=(("usage",),),
    reads=frozenset(_Answer.__struct_encode_fields__),
    texts_at=(("choices", 0, "text"),),
    comments=True,
)
offers = Offers(
    reuse=Reuse(asides=frozenset(("user", "stream_options")), varies=varies),
    usage_request=usage_request,
)
replies = _replies.openai
translation: ClientTranslation | None = None


def texts(body: Mapping[str, Any]) -> Iterator[Text]:
    return _usual.texts(body, fields)


def read(body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG001
    ask = Ask(model=read_model(body), stream=read_flag(body, "stream"))
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list) or not prompt:
        raise Refusal(INVALID_REQUEST, "'prompt' must be a string or a list, not empty.", param="prompt")
    prompts = 1
    if isinstance(prompt, list):
        texts = all(isinstance(item, str) for item in prompt)
        lists = all(isinstance(item, list) for item in prompt)
        prompts = len(prompt) if texts or lists else 1
        ask.unreadable = "" if texts else "prompt"  # token ids are unreadable
    add_inputs(ask, prompt)
    ask.choices = prompts * max(
        read_integer(body, "n", 1, _MAX_CHOICES) or 1, read_integer(body, "best_of", 1, _MAX_CHOICES) or 1
    )
    ask.output_field = "max_tokens"
    limit = read_integer(body, "max_tokens", 0, MAX_TOKENS)
    ask.max_output_tokens = None if limit is None else max(1, limit)
    ask.usual_output = _DEFAULT_OUTPUT
    check_stream_options(body)
    return ask


def conversation(body: Mapping[str, Any]) -> Conversation:
    return Conversation(asked=pieces(body.get("prompt"), ()))


def smallest(model: str) -> dict[str, Any]:
    return {"model": model, "prompt": "Hello"}


def _read(answer: _Answer, report: Report) -> bool:
    report.model = answer.model or report.model
    if isinstance(answer.service_tier, str):
        report.options["service_tier"] = answer.service_tier
    if answer.error is not None:
        report.error = "provider_error"
    for choice in answer.choices or ():
        report.add_text(choice.text or "")
        if choice.finish_reason is not None and 0 <= choice.index < _MAX_CHOICES:
            report.finish_reasons[choice.index] = choice.finish_reason
    if answer.usage is None:
        return False
    report.add_usage(read_usage(answer.usage))
    return not answer.choices and answer.error is None


_OBSERVER = Observer(_Answer, _read)
observe, observe_edges = _OBSERVER.observe, _OBSERVER.observe_edges


def said(event: Any) -> Iterator[Piece | Closed]:
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list):
        yield from loose(event, "answer", QUIET)
        return
    for number, choice in enumerate(choices):
        if not isinstance(choice, dict):
            continue
        index = choice.get("index", number)
        if isinstance(choice.get("text"), str):
            beside = (choice, "logprobs", None) if choice.get("logprobs") is not None else None
            yield Piece(f"choices[{index}].text", choice, "text", (index, "text"), beside=beside, whole=ANSWER)
        if not choice.get("text"):
            yield from apart(choice, "logprobs", f"choices[{index}]", (index,))
        if choice.get("finish_reason") is not None:
            yield Closed((index,))
        yield from loose(choice, f"choices[{index}]", QUIET, without=("text",))
    yield from loose(event, "answer", QUIET, without=PADDED)

"""The gateway's reading of an answer that passes through.

Source: https://platform.openai.com/docs/api-reference/chat/object and
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extproc.dialects._observer import Observer
from extproc.dialects.openai_chat.provider_answer import arguments_of, blocks_of, find_usage, text_of, words_of
from extproc.dialects.openai_chat.shapes import MAX_CHOICES, Said, SaidFunction, Seen
from extproc.dialects.openai_chat.usage import read_usage
from extproc.words.dialect import Report


def _read(said: Seen, report: Report) -> bool:
    if type(model := said.model) is str and model:
        report.model = model
    if type(id := said.id) is str:
        report.id = id
    if type(tier := said.service_tier) is str:
        report.options["service_tier"] = tier
    if said.error is not None:
        report.error = "provider_error"
    for choice in said.choices or ():
        message = choice.delta or choice.message
        if message is not None:
            report.add_text(_text(message, report))
            if message.images and isinstance(message.images, list):
                report.pictures += len(message.images)
        reason = choice.finish_reason
        if reason is not None and isinstance(reason, str) and _is_index(choice.index):
            report.finish_reasons[choice.index] = reason
    told = find_usage(said)
    if told is None:
        return False
    report.add_usage(read_usage(told))
    return not said.choices and said.error is None


OBSERVER = Observer(Seen, _read)


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_CHOICES


def _text(said: Said, report: Report) -> str:
    """Billable text of a message: its words, and calls' names and arguments."""
    if (  # nearly always a text alone
        type(text := said.content) is str
        and said.reasoning_content is None
        and said.reasoning is None
        and said.refusal is None
        and said.tool_calls is None
        and said.function_call is None
    ):
        return text
    words = [*words_of(said)]
    if words[0] or said.thinking_blocks:
        report.thought.add(words[0], "".join([part.signature + part.redacted for part in blocks_of(said)]))
    for function in _functions(said) if said.tool_calls or said.function_call else ():
        words += text_of(function.name), arguments_of(function.arguments)
    return "".join(words)


def _functions(said: Said) -> Iterator[SaidFunction]:
    for call in said.tool_calls or ():
        if call.function is not None:
            yield call.function
    if said.function_call is not None:
        yield said.function_call

"""A kept answer in the form that a client asked for: the API, plain or streamed. `is_whole` decides which answers may
be kept.

An answer of the same form leaves as the bytes that the provider sent. Any other answer passes through the neutral form,
as a translation does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from extproc.cache.entry import Entry
from extproc.dialects import client_apis, provider_apis
from extproc.wire.framing.sse import SSE
from extproc.words.api import ClientAPI, ProviderAPI
from extproc.words.messages import (
    Answer,
    AnyAnswer,
    Choice,
    Delta,
    Ended,
    Event,
    Failed,
    Finished,
    Part,
    RefusalPart,
    Started,
    TextPart,
    ThinkingPart,
    ToolCall,
    Used,
)

_DONE = b"[DONE]"
"""The last event of streams in some APIs, which is not JSON."""
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def in_form(entry: Entry, client: ClientAPI, *, stream: bool) -> bytes | None:
    """The body of a kept answer for a client; None if the answer cannot be written in that form."""
    if entry.dialect == client.name and entry.stream == stream:
        return entry.body
    source, translation = provider_apis().get(entry.dialect), client.translation
    if source is None or translation is None:
        return None
    try:
        if entry.stream:
            events = list(_events(source, entry.body))
            if not stream:
                answer = fold(events)
                return None if answer is None else msgspec.json.encode(translation.encode_answer(answer))
        else:
            answer = source.decode_answer(entry.body)
            if not stream:
                return msgspec.json.encode(translation.encode_answer(answer))
            events = list(unfold(answer))
    except (ValueError, RecursionError):
        return None
    if not events or not isinstance(events[-1], Ended):
        return None
    encoder = translation.encoder()
    return b"".join([encoder.feed(event) for event in events])


def answer_of(entry: Entry) -> AnyAnswer | None:
    """The neutral form of an answer; None for one that broke off or is not readable, and for an API without a neutral
    form.
    """
    if (source := provider_apis().get(entry.dialect)) is None:
        return None
    try:
        return fold(_events(source, entry.body)) if entry.stream else source.decode_answer(entry.body)
    except (ValueError, RecursionError):
        return None


def _events(source: ProviderAPI, body: bytes) -> Iterator[Event]:
    assert source.decoder is not None, source.name
    framing, decoder = SSE(len(body) + 1), source.decoder()
    for frame in (*framing.feed(body), *framing.end()):
        if frame.data is not None:
            yield from decoder.feed(frame.data, frame.name)
    yield from decoder.end()


def is_whole(entry: Entry, *, choices: int, finished: int) -> bool:
    """True if each event of an answer is JSON, and each choice has content. The client asked for `choices` choices, and
    `finished` of them have an end. For an API without a neutral form only the JSON is checked.
    """
    source = provider_apis().get(entry.dialect)
    if client_apis()[entry.dialect].offers.reuse.inputs is not None:
        source = None
    try:
        if (entry.stream or source is None) and not all(map(_is_object, _data(entry))):
            return False
        if source is None:
            return True
    except (ValueError, RecursionError):
        return False
    answer = answer_of(entry)
    if not isinstance(answer, Answer):
        return False
    return choices <= len(answer.choices) <= finished and all(
        any(map(_says, choice.parts)) for choice in answer.choices
    )


def _says(part: Part) -> bool:
    """True for a part of an answer with content; thoughts do not count."""
    if isinstance(part, ThinkingPart):
        return False
    return bool(part.text.strip()) if isinstance(part, TextPart | RefusalPart) else True


def _data(entry: Entry) -> Iterator[bytes]:
    """The JSON of an answer, event by event."""
    if not entry.stream:
        yield entry.body
        return
    framing = SSE(len(entry.body) + 1)
    for frame in (*framing.feed(entry.body), *framing.end()):
        if frame.data is not None and frame.data != _DONE:
            yield frame.data


def _is_object(data: bytes) -> bool:
    try:
        _object(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def fold(events: Iterable[Event]) -> Answer | None:
    """A streamed answer as a plain one; None if it broke off."""
    answer, ended = Answer([]), False
    choices: dict[int, Choice] = {}
    parts: dict[tuple[int, int], TextPart | ThinkingPart | ToolCall | RefusalPart] = {}
    for event in events:
        match event:
            case Started():
                answer.id, answer.model, answer.created = event.id, event.model, event.created
                answer.one_call, answer.usage = event.one_call, event.usage
            case Delta():
                choice = choices.setdefault(event.choice, Choice([]))
                at = event.choice, event.block
                if at not in parts:
                    if (begun := _empty_part(event)) is None:
                        return None
                    parts[at] = begun
                    choice.parts.append(begun)
                _extend(parts[at], event)
            case Finished():
                choice = choices.setdefault(event.choice, Choice([]))
                choice.finish, choice.stop_sequence = event.reason, event.stop_sequence
            case Used():
                answer.usage = event.usage
            case Failed():
                return None
            case Ended():
                ended = True
    answer.choices = [choices[index] for index in sorted(choices)]
    return answer if ended and choices else None


def _empty_part(event: Delta) -> TextPart | ThinkingPart | ToolCall | RefusalPart | None:
    if event.kind == "text":
        return TextPart("")
    if event.kind == "thinking":
        return ThinkingPart()
    if event.kind == "tool_call":
        return ToolCall(event.id, event.name, "", namespace=event.namespace)
    return RefusalPart("") if event.kind == "refusal" else None


def _extend(part: TextPart | ThinkingPart | ToolCall | RefusalPart, event: Delta) -> None:
    if isinstance(part, ToolCall):
        part.arguments += event.text
        part.signature = event.signature or part.signature
        return
    part.text += event.text
    if isinstance(part, ThinkingPart):
        part.signature = event.signature or part.signature
        part.redacted = event.redacted or part.redacted


def unfold(answer: Answer) -> Iterator[Event]:
    """A plain answer as a stream: each part in one event. Raises ValueError for a part that has no streamed form."""
    yield Started(answer.id, answer.model, answer.created, answer.usage, answer.one_call)
    for index, choice in enumerate(answer.choices):
        for block, part in enumerate(choice.parts):
            match part:
                case TextPart():
                    yield Delta("text", part.text, block, index, logprobs=choice.logprobs)
                case RefusalPart():
                    yield Delta("refusal", part.text, block, index)
                case ThinkingPart():
                    yield Delta("thinking", part.text, block, index, redacted=part.redacted)
                    if part.signature:
                        yield Delta("thinking", "", block, index, signature=part.signature)
                case ToolCall():
                    more = {"signature": part.signature, "namespace": part.namespace}
                    yield Delta("tool_call", "", block, index, part.id, part.name, **more)
                    yield Delta("tool_call", part.arguments, block, index)
                case _:
                    raise ValueError("a part that is not streamed")
        yield Finished(choice.finish, index, choice.stop_sequence)
    if answer.usage is not None:
        yield Used(answer.usage)
    yield Ended()

"""Answers of providers that are not what their API says, in every dialect: read or refused, with their events in order.

The golden answers are edited, so an edit stands anywhere in an answer that is otherwise right.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from extproc.dialects import client_apis, provider_apis
from extproc.wire.framing.sse import SSE
from extproc.words.messages import Delta, Ended, Failed, Finished, Started
from tests.fuzz.edits import PROGRAMS, changed_json, vocabulary
from tests.fuzz.targets import GOLDEN

NONSENSE = [b"", b"null", b"[]", b"7", b"{}", b"<html>Bad gateway</html>", b"\xff", b"[" * 100_000, b"{" * 100_000]
NAMES = sorted(path.name for path in (GOLDEN / "answers").iterdir())
WHOLE = {"openai_chat": ChatCompletion}
STREAMED = {"openai_chat": ChatCompletionChunk}
each = pytest.mark.parametrize("name", NAMES)


@cache
def seeds(name: str) -> tuple[list[Any], list[Any]]:
    """The golden answers of a dialect: whole ones, and streams, each a list of names and payloads of events."""
    whole, streams = list[Any](), list[Any]()
    for path in sorted((GOLDEN / "answers" / name).glob("*.*")):
        data = path.read_bytes()
        if b"data: " in data:
            frames = [frame for frame in SSE().feed(data) if frame.data]
            streams.append([[frame.name, loaded(frame.data)] for frame in frames])
        else:
            value = json.loads(data)
            (streams if isinstance(value, list) else whole).append(value)
    return whole, streams


def loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


def encoded(value: Any) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


@each
@given(number=st.integers(0, 999), program=PROGRAMS)
def test_an_answer_is_read_or_refused(name, number, program):
    dialect, (whole, _) = provider_apis()[name], seeds(name)
    for value in changed_json(whole[number % len(whole)], program, *vocabulary(whole)):
        read(dialect, json.dumps(value).encode())


@each
@pytest.mark.parametrize("body", NONSENSE)
def test_a_body_without_a_field_of_the_api_is_no_answer_and_no_event(name, body):
    dialect = provider_apis()[name]
    with pytest.raises(ValueError):
        dialect.decode_answer(body)
    decoder = dialect.decoder()
    assert not [type(event) for event in (*decoder.feed(body, ""), *decoder.end()) if type(event) is not Failed]


@each
@given(body=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(name, body):
    dialect = provider_apis()[name]
    read(dialect, body)
    decoder = dialect.decoder()
    in_order([*decoder.feed(body, ""), *decoder.end()])


def read(dialect, body: bytes) -> None:
    problem = dialect.decode_problem(400, body)
    assert problem.message
    try:
        answer = dialect.decode_answer(body)
    except ValueError:
        return
    msgspec.json.encode(answer)
    if (client := client_apis().get(dialect.name)) is not None:
        json.dumps(client.translation.encode_problem(400, problem))
        checked(WHOLE.get(dialect.name), client.translation.encode_answer(answer))


def checked(type: Any, value: Any) -> None:
    """It is JSON, and what the official SDK expects of an answer. Log probabilities pass as they came."""
    json.dumps(value)
    if type is not None and isinstance(value, dict) and "error" not in value:
        type.model_validate(value | {"choices": [choice | {"logprobs": None} for choice in value["choices"]]})


@each
@given(number=st.integers(0, 999), program=PROGRAMS)
def test_the_order_of_events_holds_for_any_stream(name, number, program):
    _, streams = seeds(name)
    for frames in changed_json(streams[number % len(streams)], program, *vocabulary(streams)):
        decoder, found = provider_apis()[name].decoder(), []
        for frame in frames if isinstance(frames, list) else ():
            match frame:
                case [str(kind), payload]:
                    found += decoder.feed(encoded(payload), kind)
        in_order(found := [*found, *decoder.end()])
        if (client := client_apis().get(name)) is not None:
            encoder = client.translation.encoder()
            for frame in SSE().feed(b"".join(encoder.feed(event) for event in found)):
                checked(STREAMED.get(name), loaded(frame.data))


def in_order(found: list[Any]) -> None:
    """One beginning, one end behind which nothing comes, and blocks that are numbered in the order they began."""
    msgspec.json.encode(found)
    kinds = [type(event) for event in found]
    assert kinds.count(Started) <= 1
    assert not kinds or kinds[0] in (Started, Failed)
    assert kinds.count(Ended) + kinds.count(Failed) <= 1
    assert not {Ended, Failed} & set(kinds[:-1])
    assert Ended not in kinds or Finished in kinds
    finished = [event.choice for event in found if isinstance(event, Finished)]
    assert len(set(finished)) == len(finished)
    begun: dict[int, list[str]] = {}
    for event in found:
        if isinstance(event, Delta):
            blocks = begun.setdefault(event.choice, [])
            if event.block == len(blocks):
                blocks.append(event.kind)
            assert blocks[event.block] == event.kind

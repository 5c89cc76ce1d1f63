from __future__ import annotations

import json

import pytest

from extproc.framing.aws_eventstream import CORRUPT, AWSEventStream
from tests.doubles.faults import DONE, Event, Faults
from tests.doubles.framings import event_stream, json_array, sse

EVENTS = [Event(b'{"a":{"b":1}}'), Event(b'{"c":"d"}', "named"), DONE]


def styled(styles: str) -> Faults:
    return Faults(sse=frozenset(styles.split(",")) - {""})


def framed(styles: str) -> bytes:
    return b"".join(sse(EVENTS, styled(styles)))


@pytest.mark.parametrize(
    ("styles", "expected"),
    [
        ("", b'data: {"a":{"b":1}}\n\nevent: named\ndata: {"c":"d"}\n\ndata: [DONE]\n\n'),
        ("crlf", b'data: {"a":{"b":1}}\r\n\r\nevent: named\r\ndata: {"c":"d"}\r\n\r\ndata: [DONE]\r\n\r\n'),
        ("cr", b'data: {"a":{"b":1}}\r\revent: named\rdata: {"c":"d"}\r\rdata: [DONE]\r\r'),
        ("nospace", b'data:{"a":{"b":1}}\n\nevent:named\ndata:{"c":"d"}\n\ndata:[DONE]\n\n'),
        ("nodone", b'data: {"a":{"b":1}}\n\nevent: named\ndata: {"c":"d"}\n\n'),
        ("twodone", b'data: {"a":{"b":1}}\n\nevent: named\ndata: {"c":"d"}\n\ndata: [DONE]\n\ndata: [DONE]\n\n'),
        ("nofinal", b'data: {"a":{"b":1}}\n\nevent: named\ndata: {"c":"d"}\n\ndata: [DONE]'),
        ("nofinal,nodone,cr", b'data: {"a":{"b":1}}\r\revent: named\rdata: {"c":"d"}'),
        (
            "multiline",
            (
                b'data: {\ndata:  "a": {\ndata:   "b": 1\ndata:  }\ndata: }\n\n'
                b'event: named\ndata: {\ndata:  "c": "d"\ndata: }\n\ndata: [DONE]\n\n'
            ),
        ),
        (
            "comments",
            (
                b': keep-alive\n\ndata: {"a":{"b":1}}\n\n: keep-alive\n\nevent: named\ndata: {"c":"d"}\n\n'
                b": keep-alive\n\ndata: [DONE]\n\n"
            ),
        ),
    ],
)
def test_events_are_framed_in_every_sse_style(styles, expected):
    assert framed(styles) == expected


def test_an_event_is_one_piece_in_every_style():
    for styles in ("", "crlf", "comments", "multiline", "nofinal"):
        assert len(list(sse(EVENTS, styled(styles)))) == len(EVENTS)


def test_a_corrupt_event_stops_in_the_middle():
    assert b"".join(sse(EVENTS, Faults(corrupt=0))).startswith(b'data: {"a":{\n\nevent: named')


JSON_EVENTS = [Event(b'{"a":1}'), Event(b'{"b":2}', last=True)]


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(), b'[{"a":1},\r\n{"b":2}]'),
        (styled("nodone"), b'[{"a":1}'),
        (Faults(corrupt=0), b'[{"a,\r\n{"b":2}]'),
    ],
)
def test_events_are_framed_as_a_json_array(faults, expected):
    assert b"".join(json_array(JSON_EVENTS, faults)) == expected


AWS_EVENTS = [
    Event(b'{"a":1}', "messageStart"),
    Event(b'{"message":"no"}', "exception:modelStreamErrorException"),
    Event(b"{}", "metadata", last=True),
]


def test_events_are_framed_as_an_aws_event_stream():
    messages = list(event_stream(AWS_EVENTS, Faults()))
    events = AWSEventStream().feed(b"".join(messages))
    assert [(event.name, event.data) for event in events] == [(event.name, event.data) for event in AWS_EVENTS]
    assert [event.raw for event in events] == messages
    assert json.loads(events[1].data) == {"message": "no"}


@pytest.mark.parametrize(
    ("faults", "names"),
    [
        (styled("nodone"), ["messageStart", "exception:modelStreamErrorException"]),
        (styled("twodone"), ["messageStart", "exception:modelStreamErrorException", "metadata", "metadata"]),
        (Faults(corrupt=1), ["messageStart", CORRUPT]),
    ],
)
def test_faults_affect_event_streams(faults, names):
    events = AWSEventStream().feed(b"".join(event_stream(AWS_EVENTS, faults)))
    assert [event.name for event in events] == names

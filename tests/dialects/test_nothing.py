"""Events that carry nothing: what is left out when they come again makes no difference to any reader of a stream."""

import dataclasses
import random

import pytest

from extproc.dialects import client_apis
from extproc.wire.framing import Frame
from extproc.wire.framing.intake import Intake
from extproc.wire.framing.sse import SSE, carries_nothing
from extproc.words.dialect import Report
from tests.samples import exhaustive

READ = [name for name, dialect in client_apis().items() if dialect.answers.reads is not None]
EVENTS = [
    *('{"a":1}', '{"":0}', '{"a":"b"}', "{}", "[1]", '"x"', "{", '{"type":"ping"}', '{"type": "ping", "cost": "0"}'),
    *('{"choices":[]}', '{"choices":[{}]}', '{"choices":[{"delta":{"content":"a"}}]}', '{"choices":0}', '{"usage":{}}'),
    *(
        '{"choices":[{"finish_reason":"stop"}]}',
        '{"choices":[{"text":"a"}]}',
        '{"\\u0063hoices":[{"delta":{"content":"b"}}]}',
    ),
    *('{"usage":{"prompt_tokens":3,"completion_tokens":4}}', '{"error":null}', '{"model":"m"}', '{"model":"n"}'),
    *('{"type":"content_block_start","index":0,"content_block":{"type":"thinking"}}', '{"delta":"a"}', '{"index":0}'),
    *('{"type":"content_block_stop"}', '{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}'),
    *('{"type":"message_delta","usage":{"output_tokens":4}}', '{"type":"message_start","message":{"model":"m"}}'),
    *('{"type":"response.output_text.delta","delta":"a"}', '{"type":"response.created","response":{"model":"m"}}'),
    *('{"candidates":[]}', '{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}', '[{"candidates":[]}]'),
    *('{"candidates":[{"finishReason":"STOP"}]}', '{"usageMetadata":{}}', '{"usageMetadata":{"promptTokenCount":3}}'),
    *(
        '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"a"}}}}',
        '{"type":"unknown","text":"a"}',
    ),
    *(
        '{"a":#}',
        '{"x#": "b", "y":[]}',
        '{"x":"#"}',
        '{"id":"#"}',
        '{"choices":[],"x":#}',
        '{"index":#}',
        '{"x":1,"x":#}',
    ),
]
ENDS = ("\n\n", "\r\r", "\r\n\r\n", "\n\n\n")


def streams(number):
    """A stream of runs, each of which repeats up to three events. A `#` in them is a number that grows."""
    chance = random.Random(number)
    end = chance.choice(ENDS)
    for _ in range(8):
        few = chance.choices(EVENTS, k=chance.randint(1, 3))
        run = "".join(f"data: {one}{end}" for one in few) * chance.choice((1, 100))
        yield (
            "".join(f"{part}{at}" for at, part in enumerate(run.split("#")[:-1])).encode() + run.split("#")[-1].encode()
        )


def read(dialect, body, *, learn):
    """The report of a stream, the neutral events in it, its bytes, and the number of frames."""
    report, intake = Report(), Intake(SSE())
    sees = hasattr(dialect, "observe")
    decoder = dialect.decoder() if hasattr(dialect, "able") else None
    meant, raw, frames, more = [], [], 0, True
    while more:
        events = intake.take(body, True)
        body, more, frames = b"", intake.more, frames + len(events)
        raw += [event.raw for event in events]
        before = report.output_bytes, len(meant)
        for event in events:
            if event.data is not None and sees:
                dialect.observe(event.data, report)
            if event.data is not None and decoder is not None:
                meant += decoder.feed(event.data, "")
        if learn and before == (report.output_bytes, len(meant)):
            intake.learn(events, dialect.answers.reads, dialect.answers.texts_at)
    said = {field.name: str(getattr(report, field.name)) for field in dataclasses.fields(report)}
    return {name: value for name, value in said.items() if " object at " not in value}, meant, b"".join(raw), frames


@pytest.mark.parametrize("count", [30, pytest.param(150, marks=exhaustive)])
@pytest.mark.parametrize("name", READ)
def test_a_stream_reads_the_same_where_events_that_carry_nothing_are_left_out(name, count):
    dialect, saved = client_apis()[name], 0
    for number in range(count):
        body = b"".join(streams(number))
        every, learned = (read(dialect, body, learn=learn) for learn in (False, True))
        assert learned[:2] == every[:2], number
        assert learned[2] == every[2] == body
        saved += every[3] - learned[3]
    assert saved > 6 * count


@pytest.mark.parametrize("name", READ)
def test_objects_without_a_field_of_the_api_come_as_one_frame_whatever_they_hold(name):
    body = b"".join(b'event: x\ndata: {"a%d": %d, "b":"%d"}\n\n' % (at, at, at) for at in range(5_000))
    assert read(client_apis()[name], body, learn=True)[3] < 500, "those of the first slice, which teaches"


@pytest.mark.parametrize("name", READ)
def test_a_ping_and_an_unknown_object_carry_nothing(name):
    def nothing(data):
        return carries_nothing(Frame(data, data), client_apis()[name].answers.reads)

    assert all(map(nothing, (b'{"type":"ping"}', b'{"a":1}', b'{"a":{"usage":1}}', b'{"error":null}')))
    something = b'{"error":{"message":"m"}}', b'{"usage":{"n":1},"usageMetadata":{"n":1}}'
    assert not any(map(nothing, (*something, b"{", b"[1]")))

import gzip

import pytest

from extproc.wire.framing.aws_eventstream import AWSEventStream, encode
from extproc.wire.framing.inflate import Inflate
from extproc.wire.framing.intake import SLICE, TURN, Intake
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.sse import SSE
from extproc.words.errors import Refusal

EVENT = b'data: {"a":1}\n\n'


def steps(intake, *chunks):
    """The events of each step."""
    out = []
    for index, chunk in enumerate(chunks):
        out.append(intake.take(chunk, index == len(chunks) - 1))
        while intake.more:
            assert not intake.ended
            out.append(intake.take(b"", False))
    assert intake.ended
    return out


def joined(found):
    return b"".join(event.raw for step in found for event in step)


def test_a_step_has_no_more_events_than_a_turn():
    body = EVENT * 5000 + b'data: {"b":2}'
    found = steps(Intake(SSE()), body)
    assert max(map(len, found)) == TURN
    assert joined(found) == body


def test_the_usual_piece_is_one_step():
    assert [len(step) for step in steps(Intake(SSE()), EVENT * 3, EVENT, b"")] == [3, 1, 0]


def test_a_step_cuts_no_more_bytes_than_a_slice():
    body = b": nothing\n\n" * 50_000
    found = steps(Intake(SSE()), body)
    assert max(len(event.raw) for step in found for event in step) <= SLICE + 20
    assert joined(found) == body


def test_a_compressed_answer_is_read_in_slices():
    body = EVENT * 100_000
    found = steps(Intake(SSE(), Inflate(1 << 24)), gzip.compress(body))
    assert max(sum(len(event.raw) for event in step) for step in found) <= SLICE
    assert joined(found) == body


def test_a_compressed_answer_that_is_cut_short_is_broken():
    intake = Intake(SSE(), Inflate(1 << 24))
    steps(intake, gzip.compress(EVENT * 100_000)[:-9])
    assert intake.broken


def test_a_plain_answer_is_one_step_of_one_event():
    [[event]] = steps(Intake(WholeBody()), b"{" + b" " * (1 << 20) + b"}")
    assert len(event.raw) == 2 + (1 << 20)


NOTHING = {
    "blank lines": b"\n",
    "blank lines of another kind": b"\r\n",
    "comments": b": ping\n\n",
    "a comment without an end": b": ping\n",
    "fields without data": b"event: a\nid: 7\n\n",
    "no data": b"data:\n\n",
    "no key": b"data: {}\n\ndata: 17\n\n",
    "no JSON": b"data: {\n\n",
}


@pytest.mark.parametrize("pattern", NOTHING.values(), ids=NOTHING)
def test_a_stream_that_carries_nothing_ends_beyond_its_limit(pattern):
    intake = Intake(SSE(8 << 10, empty_limit=64 << 10))
    body = pattern * ((256 << 10) // len(pattern))
    size = 0
    with pytest.raises(Refusal, match=r"\d+ KiB in a row without content") as refused:
        for at in range(0, len(body), 5_000):
            size += len(joined([intake.take(body[at : at + 5_000], False)]))
    assert refused.value.kind.code == "provider_bad_answer"
    assert 64 << 10 < size < (64 << 10) + 3 * (8 << 10)


def test_messages_without_name_and_key_are_nothing_as_well():
    intake = Intake(AWSEventStream(empty_limit=64 << 10))
    with pytest.raises(Refusal, match="without content"):
        steps(intake, *[encode({}, b"") * 500] * 20)


@pytest.mark.parametrize("event", [EVENT, b"data: [DONE]\n\n"])
def test_content_between_what_carries_nothing_lets_a_stream_go_on(event):
    body = (b": ping\n\n" * 4_000 + event) * (10 if event is EVENT else 1) + b": ping\n\n" * 4_000
    assert joined(steps(Intake(SSE(empty_limit=64 << 10)), body)) == body


def test_an_event_over_its_limit_in_small_pieces_is_something():
    body = b'data: {"a":"' + b"x" * (512 << 10) + b'"}\n\n'
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    assert joined(steps(Intake(SSE(4 << 10, empty_limit=64 << 10)), *pieces)) == body


def test_an_answer_whose_bytes_wait_pauses_when_it_took_more_than_its_share(monkeypatch):
    """An eighth of the loop's time, and 50 ms ahead. An answer without more bytes never pauses."""
    clock, spent = [0.0], [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.thread_time", lambda: spent[0])
    intake = Intake(SSE())
    intake.take(b'data: {"x":"y"}\n\n' * 100_000, False)
    pauses, steps = 0.0, 0
    while intake.more and steps < 2_000:
        events, steps = intake.take(b"", False), steps + 1
        spent[0] += 0.0004
        clock[0] += 0.0004
        intake.pace(events)
        pauses += intake.pause
        clock[0] += intake.pause
    assert spent[0] / clock[0] == pytest.approx(0.125 * (1 + 0.05 / clock[0]), rel=0.01)
    assert pauses > 0
    events = intake.take(b"", False)
    while intake.more:
        events = intake.take(b"", False)
    spent[0] += 1.0
    intake.pace(events)
    assert intake.pause == 0.0


def test_bytes_without_content_are_read_at_two_mebibytes_a_second(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.thread_time", lambda: 0.0)
    intake = Intake(SSE(empty_limit=1 << 30))
    events = intake.take(b": ping\n\n" * (1 << 20), False)
    while intake.more:
        intake.pace(events)
        clock[0] += intake.pause
        events = intake.take(b"", False)
    assert clock[0] == pytest.approx(8 * (1 << 20) * 60e-9 / 0.125 - 0.05, rel=0.01)

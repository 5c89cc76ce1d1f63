"""Every cell of the state table at the top of `connection.py`."""

import pytest

from tests.transport.peers import Talk, data, message, request, reset, window

STATES = ("idle", "open", "half closed", "left", "closed by the peer", "closed by us", "left and ended")
FRAMES = {
    "HEADERS": request(1),
    "HEADERS with END_STREAM": request(1, end=True),
    "DATA": message(1, b"a"),
    "DATA with END_STREAM": data(1, end=True),
    "RST_STREAM": reset(1),
    "WINDOW_UPDATE": window(1, 1),
}
TAKEN, PASSED = "taken", "passed over"
CLOSED, WRONG = "STREAM_CLOSED", "PROTOCOL_ERROR"
EXPECTED = {
    "idle": (["opened"], ["opened", "ended"], WRONG, WRONG, WRONG, WRONG),
    "open": (WRONG, WRONG, ["message"], ["ended"], ["gone"], []),
    "half closed": (CLOSED, CLOSED, CLOSED, CLOSED, ["gone"], []),
    "left": ([], [], [], [], [], []),
    "closed by the peer": (CLOSED, CLOSED, CLOSED, CLOSED, [], []),
    "closed by us": (CLOSED, CLOSED, CLOSED, CLOSED, [], []),
    "left and ended": (CLOSED, CLOSED, CLOSED, CLOSED, [], []),
}
CELLS = [(state, name, expected) for state in STATES for name, expected in zip(FRAMES, EXPECTED[state], strict=True)]


def in_state(state):
    """A connection whose stream 1 is in that state. Stream 3 is always open."""
    one = Talk()
    if state == "idle":
        return one
    one.tell(request(1, end=state in ("half closed", "closed by us")))
    if state == "closed by the peer":
        one.tell(reset(1))
    if state in ("closed by us", "left", "left and ended"):
        one.end(1)
    if state == "left and ended":
        one.tell(data(1, end=True))
    one.tell(request(3))
    one.heard()
    return one


@pytest.mark.parametrize(("state", "name", "expected"), CELLS, ids=[f"{state}: {name}" for state, name, _ in CELLS])
def test_a_frame_in_a_state_has_the_effect_of_the_table(state, name, expected):
    one = in_state(state)
    events = one.tell(FRAMES[name])
    if isinstance(expected, str):
        assert (events, one.code) == ([], expected)
        return
    assert [kind for kind, id, *_ in events if id == 1] == expected
    assert (one.code, one.heard()) == (None, [])
    one.check()
    if state != "idle":
        assert one.tell(message(3, b"others go on")) == [("message", 3, b"others go on")]


@pytest.mark.parametrize("name", FRAMES)
def test_streams_beyond_the_last_goaway_are_skipped(name):
    one = Talk()
    one.connection.drain()
    one.tell(b"\0\0\x08\x06\x01\0\0\0\0" + one.heard()[1][2][0])
    one.heard()
    assert one.tell(FRAMES[name]) == []
    assert (one.code, one.heard()) == (None, [])


def test_a_stream_that_both_sides_ended_is_forgotten():
    for last in (data(1, end=True), reset(1), request(1, end=True)):
        one = in_state("left")
        assert list(one.connection._left) == [1]
        one.tell(last)
        assert list(one.connection._left) == []

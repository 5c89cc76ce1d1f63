"""A peer that keeps to the protocol loses nothing. Each message is delivered once and in order, and each answer comes
back, with any windows, any pace of the handler and any cutting of the bytes. No state is left behind.
"""

import pytest
from hpack import Decoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.wire.transport import TransportLimits
from tests.transport import peers
from tests.transport.peers import Talk, begin, data, frame, grpc, request, reset, window

LIMITS = TransportLimits(message=5_000, stream_window=1_000, connection_window=66_000, queued_messages=1_000)


class Call:
    """One call as its client sees it."""

    def __init__(self, id, first):
        self.id = id
        self.told = []  # messages
        self.unsent = b""
        self.window = LIMITS.stream_window  # window for what it sends
        self.granted = first  # window for what it gets
        self.ends = self.ended = self.left = False
        self.got = b""
        self.status = None
        self.heard = []  # read by the handler
        self.answers = []
        self.early = False  # the handler ended it


class Conversation:
    def __init__(self, first, *, bytewise):
        self.talk = Talk(LIMITS, bytewise=bytewise, begun=False)
        self.first = first
        self.window = 65_535  # of the connection, for what the client sends
        self.granted = 65_535  # and for what it gets
        self.calls = {}
        self.decoder = Decoder()
        self.waiting = []  # (stream, message): not yet answered by the handler
        self.tell(begin())
        self.nearly_use_up_the_window()
        self.tell(peers.settings(window=first))

    def nearly_use_up_the_window(self):
        """Use up the connection's window for answers. It begins with 64 KiB, which no setting changes."""
        self.calls[1] = call = Call(1, 65_535)
        self.tell(request(1), data(1, grpc(b""), end=True))
        self.window -= 5
        call.told, call.ends, call.ended = [b""], True, True
        self.answer(None, 0, 1, [b"x" * 65_000])

    # --- the client

    def tell(self, *frames):
        for kind, id, *content in self.talk.tell(*frames):
            if kind == "message":
                self.waiting.append((id, content[0]))
            elif kind in ("ended", "drained"):
                self.go_on(id)
            elif kind == "gone":
                self.waiting = [one for one in self.waiting if one[0] != id]
        self.hear()

    def open(self, *_):
        id = 2 * len(self.calls) + 1
        self.calls[id] = Call(id, self.first)
        self.tell(request(id))

    def say(self, call, number, cut):
        if not call.ends:
            content = bytes([number]) * (number**2 * 10 % 3000)
            call.told.append(content)
            call.unsent += grpc(content)
            self.push(call, number, cut)

    def push(self, call, number, cut):
        """Send as much as the windows allow, in pieces."""
        while call.unsent and not call.left:
            room = min(call.window, self.window, len(call.unsent), cut * 50 + 1)
            if room <= 0:
                return
            piece, call.unsent = call.unsent[:room], call.unsent[room:]
            call.window -= room
            self.window -= room
            self.tell(data(call.id, piece))
        if call.ends and not call.ended and not call.left:
            call.ended = True
            self.tell(data(call.id, end=True))

    def end(self, call, number, cut):
        call.ends = True
        self.push(call, number, cut)

    def reset(self, call, number, _cut):
        if number > 15 and not call.left:
            call.left = True
            self.tell(reset(call.id))

    def grant(self, call, number, cut):
        if cut % 2:
            self.granted += number * 100 + 1
            self.tell(window(0, number * 100 + 1))
        elif call.status is None and not call.left:
            call.granted += number * 50 + 1
            self.tell(window(call.id, number * 50 + 1))

    def set(self, _call, number, cut):
        if cut == 7:
            for call in self.calls.values():
                call.granted += number * 30 - self.first
            self.first = number * 30
            self.tell(peers.settings(window=self.first))

    def ping(self, *_):
        self.tell(frame(peers.PING, 0, 0, b"12345678"))

    def hear(self):
        for name, id, what in self.talk.heard():
            call = self.calls.get(id)
            if name == "WindowUpdate":
                assert what > 0
                if id == 0:
                    self.window += what
                else:
                    call.window += what
            elif name == "Data":
                assert call.status is None
                assert 0 < len(what) <= min(call.granted, self.granted), "more than was granted"
                call.granted -= len(what)
                self.granted -= len(what)
                call.got += what
            elif name == "Headers":
                headers = dict(self.decoder.decode(what.data))
                if "END_STREAM" in what.flags:
                    call.status = int(headers["grpc-status"])
            elif name == "RstStream":
                assert (what, call.status, call.ended) == (0, 0, False), "only behind an early end"
                call.left = True
            else:
                assert name in ("Settings", "Ping"), f"{name}: {what}"

    # --- the handler

    def answer(self, _call, number, cut, answers=()):
        """Answer the message that has waited longest or shortest, with none, one or several."""
        if not self.waiting:
            return
        id, content = self.waiting.pop(0 if cut % 2 else -1)
        call = self.calls[id]
        call.heard.append(content)
        for answer in answers or [bytes([index]) * (len(content) * index) for index in range(number % 4)]:
            call.answers.append(answer)
            self.talk.send(id, answer)
        self.go_on(id)
        self.hear()

    def finish(self, call, number, _cut):
        """End a call early, while the handler is idle."""
        stream = self.talk.streams.get(call.id)
        if number > 17 and stream is not None and not stream.busy and not stream.over and stream.last is None:
            call.early = True
            self.talk.end(call.id)
            self.hear()

    def go_on(self, id):
        stream = self.talk.streams[id]
        if stream.unsent or stream.over or stream.last is not None:
            return
        if (content := self.talk.take(id)) is not None:
            self.waiting.append((id, content))
        elif stream.ended:
            self.talk.end(id)

    # --- both sides

    def act(self, which, stream, number, cut):
        if which == "open" or len(self.calls) == 1:
            if len(self.calls) < 7:
                self.open()
            return
        call = list(self.calls.values())[stream % len(self.calls)]
        getattr(self, which)(call, number, cut)
        self.talk.check()

    def settle(self):
        """Both sides do all they can. Then no work may be left."""
        for call in self.calls.values():
            call.ends = True
        for _ in range(1000):
            before = self.state()
            while self.waiting:
                self.answer(None, 1, 1)
            for call in self.calls.values():
                self.push(call, 0, 20)
                self.grant(call, 20, 0)
                self.grant(call, 20, 1)
            if before == self.state():
                break
        self.talk.check()
        assert self.talk.connection.fault is None
        assert self.talk.connection.streams == {}
        for call in self.calls.values():
            if call.status is None:
                assert call.left, f"call {call.id} never ends"
                assert call.heard == call.told[: len(call.heard)]
                continue
            assert call.status == 0
            assert call.got == b"".join(map(grpc, call.answers))
            assert call.heard == (call.told[: len(call.heard)] if call.early else call.told)

    def state(self):
        return [(len(call.got), len(call.heard), call.status, len(call.unsent)) for call in self.calls.values()]


ACTIONS = st.tuples(
    st.sampled_from(
        ["open", "say", "say", "say", "end", "reset", "grant", "set", "ping", "answer", "answer", "answer", "finish"]
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.integers(0, 20),
)


def holds(actions, first, bytewise):
    one = Conversation(first, bytewise=bytewise)
    for action in actions:
        one.act(*action)
    one.settle()


@settings(max_examples=100)
@given(st.lists(ACTIONS, max_size=60), st.sampled_from([0, 1, 30, 600, 65_535]), st.booleans())
def test_a_polite_peer_loses_nothing(actions, first, bytewise):
    holds(actions, first, bytewise)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(4))
@settings(max_examples=5_000, suppress_health_check=list(HealthCheck), database=None)
@given(actions=st.lists(ACTIONS, max_size=80), first=st.sampled_from([0, 1, 30, 600, 65_535]), bytewise=st.booleans())
def test_a_polite_peer_loses_nothing_20_000_times(part, actions, first, bytewise):
    holds(actions, first, bytewise)

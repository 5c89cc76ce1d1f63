"""h2 as a client. It raises an error for everything the server does against the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import Settings

from tests.transport.peers import PING, REQUEST, begin, frame, grpc, parsed


class Answer:
    """The messages and the status of one stream."""

    def __init__(self):
        self.headers = {}
        self.data = b""
        self.trailers = {}
        self.ended = False
        self.reset = None

    @property
    def messages(self):
        found, rest = [], self.data
        while rest:
            compressed, size = struct.unpack(">BL", rest[:5])
            assert compressed == 0
            assert len(rest) >= 5 + size, "a message is not whole"
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found

    @property
    def status(self):
        found = {**self.headers, **self.trailers}.get("grpc-status")
        return None if found is None else int(found)


class H2Peer:
    """One connection. With `grants`, windows are opened again as data comes."""

    def __init__(self, *, grants=True, settings=None):
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        if settings:
            self.h2.local_settings = Settings(client=True, initial_values=settings)
        self.grants = grants
        self.answers = {}
        self.goaway = []
        self.closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, path, **options):
        peer = cls(**options)
        peer.reader, peer.writer = await asyncio.open_unix_connection(path)
        peer.h2.initiate_connection()
        peer.flush()
        try:
            yield peer
        finally:
            peer.writer.close()

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    def begin(self, method, *extra, end=False):
        id = self.h2.get_next_available_stream_id()
        headers = [(name, f"/test.Service/{method}" if name == ":path" else value) for name, value in REQUEST]
        self.h2.send_headers(id, [*headers, *extra], end_stream=end)
        self.answers[id] = Answer()
        self.flush()
        return id

    async def send(self, id, *messages, end=False, raw=None):
        """Send messages as far as the windows allow, waiting for more."""
        rest = b"".join(map(grpc, messages)) if raw is None else raw
        while rest:
            room = min(self.h2.local_flow_control_window(id), self.h2.max_outbound_frame_size)
            if room:
                self.h2.send_data(id, rest[:room])
                rest = rest[room:]
            else:
                self.flush()
                await self.hear()
        if end:
            self.h2.end_stream(id)
        self.flush()
        await self.writer.drain()

    def reset(self, id, code=8):
        self.h2.reset_stream(id, code)
        self.flush()

    async def hear(self, timeout=20.0):
        """Read the next data. Returns False at the end of the connection."""
        async with asyncio.timeout(timeout):
            received = await self.reader.read(1 << 20)
        if not received:
            self.closed = True
            return False
        for event in self.h2.receive_data(received):
            answer = self.answers.get(getattr(event, "stream_id", None))
            if isinstance(event, ResponseReceived):
                answer.headers = dict(event.headers)
            elif isinstance(event, DataReceived):
                answer.data += event.data
                if self.grants and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                answer.trailers = dict(event.headers)
            elif isinstance(event, StreamEnded):
                answer.ended = True
            elif isinstance(event, StreamReset):
                answer.reset = event.error_code
            elif isinstance(event, ConnectionTerminated):
                self.goaway.append((event.last_stream_id, event.error_code))
        self.flush()
        return True

    async def until(self, true):
        while not true():
            assert await self.hear(), "the connection ended"

    async def answer(self, id, count=None):
        """The answer of a stream, when it is complete or when `count` messages of it have arrived."""
        answer = self.answers[id]
        if count is None:
            await self.until(lambda: answer.ended or answer.reset is not None)
        else:
            await self.until(lambda: _whole(answer.data) >= count)
        return answer


def _whole(data):
    found, at = 0, 0
    while len(data) - at >= 5 and len(data) - at - 5 >= (size := struct.unpack_from(">L", data, at + 1)[0]):
        found, at = found + 1, at + 5 + size
    return found


class RawPeer:
    """One connection in plain frames, because h2 sends nothing after a GOAWAY."""

    def __init__(self):
        self.heard = []
        self.rest = b""

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, path):
        peer = cls()
        peer.reader, peer.writer = await asyncio.open_unix_connection(path)
        peer.tell(begin())
        try:
            yield peer
        finally:
            peer.writer.close()

    def tell(self, *frames):
        self.writer.write(b"".join(frames))

    async def hear(self, timeout=20.0):
        """Read the next frames, answering pings. Returns False at the end of the connection."""
        async with asyncio.timeout(timeout):
            received = await self.reader.read(1 << 20)
        self.rest += received
        size = 0
        while len(self.rest) - size >= 9 and len(self.rest) - size - 9 >= (
            length := int.from_bytes(self.rest[size : size + 3])
        ):
            size += 9 + length
        heard, self.rest = parsed(self.rest[:size]), self.rest[size:]
        for name, _, what in heard:
            if name == "Ping" and not what[1]:
                self.tell(frame(PING, 1, 0, what[0]))
        self.heard += heard
        return bool(received)

    async def until(self, name, id=0, count=1):
        """Wait for `count` frames of that name on a stream. Returns their contents."""
        while len(found := [what for one, stream, what in self.heard if (one, stream) == (name, id)]) < count:
            assert await self.hear(), f"the connection ended after {self.heard}"
        return found

    async def to_the_end(self):
        while await self.hear():
            pass

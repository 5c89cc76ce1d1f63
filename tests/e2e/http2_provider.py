"""A provider that speaks HTTP/2 over TLS, as the large ones do. It keeps to the windows that Envoy grants."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset

FRAME = 16_384


class Http2Provider:
    """Answers a request that contains the word `endless` with `piece` again and again, any other one with `whole`."""

    def __init__(self, whole: bytes, piece: bytes, certificate: tuple[str, str]) -> None:
        self.whole = whole
        self.frame = (piece * (FRAME // len(piece) + 1))[:FRAME]
        self.url = ""
        self._certificate = certificate

    @contextmanager
    def running(self) -> Iterator[Http2Provider]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), loop).result()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _listen(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._certificate)
        context.set_alpn_protocols(["h2"])
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, ssl=context)
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._server.sockets:  # Python 3.11 forgets connections that it accepted just before `close`
            loop.remove_reader(listener.fileno())
        await asyncio.sleep(0.01)
        self._server.close()
        transports = loop._transports  # type: ignore[attr-defined]
        for transport in list(transports.values()):  # also of those in their handshake, which have no peer yet
            transport.abort()
        await asyncio.sleep(0.01)  # for the loop to close the sockets


class _Peer(asyncio.Protocol):
    _transport: asyncio.Transport

    def __init__(self, provider: Http2Provider) -> None:
        self._provider = provider
        self._http2 = H2Connection(H2Configuration(client_side=False))
        self._asked: dict[int, bytes] = {}
        self._left: dict[int, bytes | None] = {}  # what each answer has yet to send; None: without end
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http2.initiate_connection()
        self._send()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        http2 = self._http2
        for event in http2.receive_data(data):
            if isinstance(event, DataReceived):
                assert event.stream_id is not None
                self._asked[event.stream_id] = self._asked.get(event.stream_id, b"") + event.data
                http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                assert event.stream_id is not None
                http2.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/event-stream")])
                asked = self._asked.pop(event.stream_id)
                self._left[event.stream_id] = None if b"endless" in asked else self._provider.whole
            elif isinstance(event, StreamReset):
                self._left.pop(event.stream_id, None)
        self._pump()

    def _pump(self) -> None:
        """Send a frame of each answer in turn, until no window or no room is left."""
        going = True
        while going and not self._full:
            going = False
            for stream, left in list(self._left.items()):
                room = min(FRAME, self._http2.local_flow_control_window(stream))
                part = (self._provider.frame if left is None else left)[:room]
                if not part:
                    continue
                going = True
                self._http2.send_data(stream, part, end_stream=part == left)
                if part == left:
                    del self._left[stream]
                elif left is not None:
                    self._left[stream] = left[len(part) :]
            self._send()
        self._send()

    def _send(self) -> None:
        if data := self._http2.data_to_send():
            self._transport.write(data)

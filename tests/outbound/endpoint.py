"""HTTP servers on loopback that follow a test, hostile ones included."""

from __future__ import annotations

import http.server
import threading
import time
from contextlib import contextmanager, suppress


@contextmanager
def endpoint(answer):
    """A server that runs `answer(handler)`. Gives its host:port, and the requests it received."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("content-length", 0))
            asked.append((self.command, self.path, dict(self.headers.items()), self.rfile.read(length).decode()))
            with suppress(OSError):  # the client disconnected
                answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def keeping(answer, *, tls=None):
    """A server that keeps connections, and runs `answer(handler)`. Gives its host:port, and the connections it took."""
    connections = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            connections.append(self.client_address)

        def do_POST(self):
            self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with suppress(OSError):
                answer(self)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        # A handshake belongs to the thread of its connection: the server has to go on, and to stop.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", connections
    finally:
        server.shutdown()
        server.server_close()


def reply(body, status=200, **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw(data):
    return lambda handler: handler.wfile.write(data)


def drip(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    for _ in range(2000):
        handler.wfile.write(b".")
        time.sleep(0.01)


def drip_the_body(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
    for _ in range(2000):
        handler.wfile.write(b" ")
        time.sleep(0.01)


def drip_without_length(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(2000):
        handler.wfile.write(b" ")
        time.sleep(0.01)


def silence(handler):
    handler.rfile.read(1)  # until the client disconnects


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" " * 65_536)

"""A small model server for tests of pools: chat completions, vLLM's metrics, and the ways in which a pod fails."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close resets the connection


class Pod:
    """A server on 127.0.0.1. `waiting`, `kv_cache` and `adapters` are what its metrics tell; `delay` are the seconds
    until an answer begins; `hangs` leaves requests without an answer. `bodies` are the requests it got.
    """

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.waiting = 0
        self.kv_cache = 0.0
        self.adapters = ""
        self.delay = 0.0
        self.pause = 0.0  # seconds between two events of a stream
        self.hangs = False
        self.running = 0
        self.bodies: list[Any] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self.start()
        self.address = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, at the same port as before."""
        pod = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                pod._open.add(self.connection)

            def finish(self) -> None:
                pod._open.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                pod._write(self, pod.metrics().encode(), "text/plain")

            def do_POST(self) -> None:
                body = json.loads(_body(self))
                body["headers"] = dict(self.headers)
                with suppress(OSError):
                    pod._chat(self, body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """Stop listening and reset every connection, as the end of a process does."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        for each in list(self._open):
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.shutdown(socket.SHUT_RDWR)

    def metrics(self) -> str:
        return (
            f'vllm:num_requests_waiting{{engine="0"}} {self.waiting}\n'
            f'vllm:num_requests_running{{engine="0"}} {self.running}\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {self.kv_cache}\n'
            f'vllm:lora_requests_info{{running_lora_adapters="{self.adapters}"}} 1\n'
        )

    def _chat(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.bodies.append(body)
            self.running += 1
        try:
            until(lambda: not self.hangs or self._server is None, 60)
            time.sleep(self.delay)
            if body.get("stream"):
                self._stream(handler, body)
            else:
                choice = {"index": 0, "message": {"role": "assistant", "content": self.name}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
                answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"]}
                self._write(handler, json.dumps(answer | {"choices": [choice], "usage": usage}).encode())
        finally:
            with self._lock:
                self.running -= 1

    def _stream(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        for word in (self.name, " says", " hello"):
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            _chunk(handler, b"data: %s\n\n" % json.dumps(head | {"choices": [choice]}).encode())
            time.sleep(self.pause)
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        _chunk(handler, b"data: %s\n\n" % json.dumps(head | {"choices": [choice], "usage": usage}).encode())
        _chunk(handler, b"data: [DONE]\n\n")
        _chunk(handler, b"")

    def _write(self, handler: BaseHTTPRequestHandler, body: bytes, kind: str = "application/json") -> None:
        handler.send_response(200)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    """The body of a request, of known length or in chunks."""
    if (length := handler.headers["content-length"]) is not None:
        return handler.rfile.read(int(length))
    found = b""
    while size := int(handler.rfile.readline(), 16):
        found += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return found


def _chunk(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    handler.wfile.flush()


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, at most some seconds."""
    ends = time.monotonic() + seconds
    while not holds() and time.monotonic() < ends:
        time.sleep(0.01)

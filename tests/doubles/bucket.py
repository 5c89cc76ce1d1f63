"""An S3-compatible store in memory: PUT with `if-none-match: *`, GET, and the errors that AWS gives.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@contextmanager
def serve_bucket(access_key: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The store's address, and its objects by `bucket/name`. It takes requests that are signed with `access_key`."""
    objects: dict[str, bytes] = {}
    lock = threading.Lock()

    class Store(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            found = objects.get(self._name())
            if self._refusal(b"") is None:
                self._answer(404, "NoSuchKey") if found is None else self._answer(200, body=found)

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            if self._refusal(data) is not None:
                return
            with lock:
                if self.headers.get("if-none-match") == "*" and self._name() in objects:
                    self._answer(412, "PreconditionFailed")
                    return
                objects[self._name()] = data
            self._answer(200)

        def _name(self) -> str:
            return unquote(self.path.lstrip("/"))

        def _refusal(self, data: bytes) -> str | None:
            code = None
            if f"Credential={access_key}/" not in self.headers.get("authorization", ""):
                code = "InvalidAccessKeyId"
            elif self.headers.get("x-amz-content-sha256") != hashlib.sha256(data).hexdigest():
                code = "XAmzContentSHA256Mismatch"
            if code is not None:
                self._answer(403 if code == "InvalidAccessKeyId" else 400, code)
            return code

        def _answer(self, status: int, code: str = "", body: bytes = b"") -> None:
            body = body or (f"<Error><Code>{code}</Code></Error>".encode() if code else b"")
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Store) as address:
        yield address, objects


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server in this process, on threads."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

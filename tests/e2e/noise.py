"""A provider that sends a pattern as fast as it can, and a client that reads it, for tests that time other requests.

Both are processes of their own with the lowest priority: beside them a test measures the gateway, not its own threads.

    python -P noise.py provider           serve a pattern from standard input; the first line of output is the port
    python -P noise.py client HOST PORT   send a request from standard input and read the answer; the end of standard
                                          input ends it, and the line of output is the number of bytes
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@contextmanager
def sending(pattern: bytes) -> Iterator[str]:
    """The URL of a provider that answers everything with `pattern`, again and again."""
    process = _begin("provider")
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pattern)
        process.stdin.close()
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def reading(host: str, port: int, request: bytes, sizes: list[int]) -> Iterator[None]:
    """A client that reads an answer while the block runs. Adds the bytes that it has read."""
    process = _begin("client", host, str(port))
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(len(request).to_bytes(4, "big") + request)
        process.stdin.flush()
        assert process.stdout.readline() == b"begun\n"
        yield
        process.stdin.close()
        sizes.append(int(process.stdout.readline()))


def _begin(*arguments: str) -> subprocess.Popen[bytes]:
    command = ("nice", "-n", "19", sys.executable, "-P", __file__, *arguments)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _provide(pattern: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)  # noqa: T201
        while True:
            threading.Thread(target=_send, args=(server.accept()[0], pattern), daemon=True).start()


def _send(peer: socket.socket, pattern: bytes) -> None:
    with peer, suppress(OSError):
        peer.recv(1 << 20)
        peer.sendall(HEAD)
        while True:
            peer.sendall(pattern)


def _read(host: str, port: int) -> None:
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    with socket.create_connection((host, port), 30) as peer:
        peer.sendall(sys.stdin.buffer.read(size))
        read = len(peer.recv(1 << 18))
        print("begun", flush=True)  # noqa: T201

        def stop() -> None:
            sys.stdin.buffer.read()
            peer.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=stop, daemon=True).start()
        with suppress(OSError):
            while data := peer.recv(1 << 18):
                read += len(data)
    print(read, flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "provider":
        _provide(sys.stdin.buffer.read())
    else:
        _read(sys.argv[2], int(sys.argv[3]))

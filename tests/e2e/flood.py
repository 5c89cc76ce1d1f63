"""Large bodies sent again and again: `python -m tests.e2e.flood URL KEY KIND THREADS PORT`.

A process of its own, which lets others go first: it stands for other machines. It is the provider of these requests,
too, on PORT. Ends with its standard input, and prints how often each status came.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from tests.e2e.raw import message, send

MIB = 1 << 20
SIZE = 19 * MIB


ANSWER = b'{"id":"1","object":"chat.completion","model":"sink","choices":[{"index":0,"message":{"role":"assistant",\
"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def said(content: bytes) -> bytes:
    return b'{"model":"sink","messages":[{"role":"user","content":"' + content + b'"}]}'


def listed(message: bytes, times: int) -> bytes:
    return b'{"model":"sink","messages":[' + b",".join([message] * times) + b"]}"


def spoken(content: bytes) -> bytes:
    return b'{"role":"user","content":"' + content + b'"}'


KINDS: Mapping[str, Callable[[], bytes]] = {
    "objects": lambda: listed(b"{}", SIZE // 3),
    "numbers": lambda: said(b"")[:-1] + b',"x":[' + b"1," * (SIZE // 2) + b"1]}",
    "brackets": lambda: b"[" * SIZE,
    "white space": lambda: b"{" + b" " * SIZE + said(b"Hi")[1:],
    "escapes": lambda: said(rb"\n" * (SIZE // 2)),
    "escaped text": lambda: said(rb"\u4e2d" * (SIZE // 6)),
    "wide text": lambda: said("\U0001f600".encode() + b"a" * (4 * MIB - 9)),
    "too wide text": lambda: said("\U0001f600".encode() + b"a" * SIZE),
    "wide messages": lambda: listed(spoken("\U0001f600".encode() + b"a" * 250), SIZE // 300),
    "messages": lambda: listed(spoken(b"Hello, you. " * 300), SIZE // 3660),
    "prompt": lambda: said(b"Tell me a story, please. " * (SIZE // 25)),
}


def provide(connection: socket.socket) -> None:
    """Read requests and answer each."""
    buffer = bytearray(MIB)
    with connection:
        while data := connection.recv(65536):
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            left = next(int(line[15:]) for line in lines if line.startswith(b"content-length:")) - len(body)
            while left > 0:
                left -= connection.recv_into(buffer)
            connection.sendall(HEAD % len(ANSWER) + ANSWER)


def listen(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=provide, args=(connection,), daemon=True).start()


def main() -> None:
    url, key, kind, threads, port = sys.argv[1:]
    os.nice(10)
    threading.Thread(target=listen, args=(int(port),), daemon=True).start()
    body = KINDS[kind]()
    headers = [
        *(("host", "gateway.test"), ("authorization", f"Bearer {key}"), ("content-type", "application/json")),
        ("content-length", str(len(body))),
    ]
    head, over, statuses = message(headers=headers), threading.Event(), Counter[str]()

    def work() -> None:
        while not over.is_set():
            try:
                reply = send(url, head, body)
            except OSError:
                reply = None
            statuses[str(reply.status if reply else None)] += 1

    workers = [threading.Thread(target=work, daemon=True) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    print("ready", flush=True)  # noqa: T201 - to who started it
    sys.stdin.read()
    over.set()
    for worker in workers:
        worker.join(30)
    print(json.dumps(statuses), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

"""The drain of an Envoy through its admin socket: Envoy asks clients to reconnect, and the drain waits for open
requests. A mark in a file makes the processor's /readyz answer 503, so that load balancers choose another gateway.

`extproc drain` and the supervisor of `extproc up` run this file as a script. It imports little, and nothing of the
package: beside an Envoy in a pod it waits for its signal in 9 MB.

Arguments: the admin socket, seconds of notice, seconds of grace, the file of the mark or an empty text, and `wait` to
begin at SIGTERM or SIGINT. The mark holds the word that /readyz says, and the time until which it counts: seconds since
the epoch.

An Envoy that gets SIGTERM ends at once, and its image has no client for its admin socket. The mark is a file because
the container that drains and the processor may share only a directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OPEN = "http.public.downstream_rq_active"
"""Envoy's gauge of the requests at the public listener."""
_BEGIN = "/drain_listeners?graceful&skip_exit"
"""Admin path that begins a drain: answers carry `connection: close`, or HTTP/2's GOAWAY; new connections are still
accepted.
"""
AT_ONCE = ("--drain-strategy", "immediate")
"""Arguments of an Envoy to be drained: it asks all clients at once, not a growing share over ten minutes."""
_EVERY = 0.1  # seconds between two readings of the gauge
_TIMEOUT = 5.0  # seconds for an answer of Envoy
_QUIET = 1.0  # seconds of waiting before a line says so
_STOPPED_WITHIN = 10.0  # seconds after a drain within which Envoy is stopped; the mark counts as long


def take_over(path: str, notice: float, grace: float, mark: str, *, wait: bool) -> NoReturn:
    """Replace this process by the script."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal during the exec waits for sigwait
    os.execv(sys.executable, [sys.executable, "-I", "-S", *command(path, notice, grace, mark), *["wait"] * wait])  # noqa: S606


def command(path: str, notice: float, grace: float, mark: str = "") -> list[str]:
    """The path of this script and its arguments."""
    return [__file__, path, str(notice), str(grace), mark]


def main() -> int:
    """Returns 0 when no request is open any more, or Envoy is gone; 1 when the grace is over, at a second signal, and
    when Envoy does not answer.
    """
    _, path, notice, grace, mark, *wait = sys.argv
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if wait:
        signal.sigwait(SIGNALS)
    write_mark(mark, float(notice) + float(grace))
    try:
        return drain(path, float(notice), float(grace))
    except (FileNotFoundError, ConnectionError) as error:  # Envoy is gone, or never ran
        say(f"nothing to drain: no Envoy answers at {path} ({error.strerror or error})")
        return 0
    except OSError as error:
        say(f"{path}: {error.strerror or error}: Envoy is not drained")
        return 1
    finally:
        write_mark(mark, _STOPPED_WITHIN)


def write_mark(file: str, seconds: float, word: str = "draining") -> None:
    """Write the mark, valid for some seconds from now. If its directory does not exist, /readyz does not change."""
    if not file:
        return
    new = f"{file}.new"
    try:
        mark = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(mark, f"{word} {time.time() + seconds}".encode())
        os.close(mark)
        os.rename(new, file)  # noqa: PTH104 - pathlib takes memory
    except OSError as error:
        say(f"{file}: {error.strerror}: load balancers do not learn of the drain by /readyz")


def drain(path: str, notice: float, grace: float) -> int:
    """Drain for at least `notice` seconds, in which load balancers choose another gateway, and at most `grace` more.
    Raises OSError.
    """
    ask(path, "POST", _BEGIN)
    begun, told = time.monotonic(), False
    while (waited := time.monotonic() - begun) < notice or opened(path):
        if waited >= notice + grace:
            say("the grace is over; open requests are cut")
            return 1
        if waited >= notice + _QUIET and not told:
            told = True
            say(f"waiting for {opened(path)} open requests, at most {grace:.0f} s")
        time.sleep(_EVERY)
        if signal.sigpending() & set(SIGNALS):  # `sigtimedwait` may report one falsely after a pause of the process
            return 1
    return 0


def opened(path: str) -> int:
    """The number of requests at the public listener. Raises OSError."""
    for line in ask(path, "GET", f"/stats?filter={OPEN}").splitlines():
        name, _, number = line.partition(": ")
        if name == OPEN and number.isdecimal():
            return int(number)
    return 0


def ask(path: str, method: str, what: str) -> str:
    """The body of Envoy's answer. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
        head = f"{method} {what} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    if not answer:
        raise ConnectionError("Envoy ended without an answer")
    answered, _, body = answer.partition(b"\r\n\r\n")
    status, _, headers = answered.lower().partition(b"\r\n")
    if b" 200 " not in status + b" ":
        raise OSError(f"Envoy refused {what.partition('?')[0]}")
    if b"transfer-encoding: chunked" in headers:
        body = _whole(body)
    return body.decode(errors="replace")


def _whole(chunks: bytes) -> bytes:
    """The chunked body, as far as it has arrived. Raises OSError."""
    body = b""
    while chunks:
        line, _, chunks = chunks.partition(b"\r\n")
        try:
            size = int(line, 16)
        except ValueError:
            raise OSError("Envoy's answer is broken") from None
        body, chunks = body + chunks[:size], chunks[size + 2 :] if size else b""
    return body


def say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

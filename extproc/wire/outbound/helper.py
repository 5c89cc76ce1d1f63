"""Processes of their own that answer questions: for libraries whose memory and pauses this process must not have.

`Helper` asks, `serve` answers, over a socket pair that is the helper's standard input. A message is its length in four
bytes and its content; an answer begins with a byte that tells it from an error. The helper ends when its peer has gone,
or when nothing was asked for a while; the next question starts another one.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

_LENGTH = 4  # bytes
_PIECE = 1 << 20  # bytes that are received at a time
_REST = 10.0  # seconds without another start after a helper failed
_ANSWER, _ERROR = b"+", b"-"


class HelperError(Exception):
    """A helper gave no answer. The text says why."""


class Helper:
    """Asks one question after the other, for threads. A helper that ended is replaced, once for each question."""

    def __init__(self, command: Sequence[str], *, within: float, rest: float | None = None) -> None:
        self._command = command
        self._within = within  # seconds for an answer, a start included
        self._rest = rest  # seconds, `_REST` unless given
        self._ends = 0  # calls of `end`
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._failed = 0.0  # when a helper last failed, monotonic

    @property
    def pid(self) -> int | None:
        """The process that answers, None where the next question starts one."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(self, question: bytes) -> bytes:
        """Raises HelperError. `end` ends the call."""
        ends = self._ends
        with self._lock:
            if self._failed and time.monotonic() - self._failed < (_REST if self._rest is None else self._rest):
                raise HelperError("it failed a moment ago")
            for tries_left in (1, 0):
                try:
                    peer = self._connected()
                    if self._ends != ends:
                        raise ConnectionAbortedError("it was ended")
                    _send(peer, question)
                    answer = _receive(peer)
                    break
                except OSError as error:  # an answer that takes too long is one, too
                    self._drop()
                    if self._ends != ends:
                        raise HelperError("it was ended") from None
                    if isinstance(error, TimeoutError) or not tries_left:
                        self._failed = time.monotonic()
                        late = f"it took longer than {self._within:.0f} s"
                        why = late if isinstance(error, TimeoutError) else str(error) or type(error).__name__
                        raise HelperError(why) from None
        if not answer.startswith(_ANSWER):
            raise HelperError(answer[1:].decode())
        return answer[1:]

    def begin(self) -> None:
        """Start the process, so that the next question waits less for it."""
        if self._lock.acquire(blocking=False):
            try:
                self._connected()
            except OSError:  # `ask` reports it
                self._drop()
            finally:
                self._lock.release()

    def _connected(self) -> socket.socket:
        if self._peer is not None:
            return self._peer
        self._peer, theirs = socket.socketpair()
        self._peer.settimeout(self._within)
        with theirs:
            self._process = process = subprocess.Popen(  # noqa: S603 - the command is the program's own
                self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        threading.Thread(target=process.wait, name="helper", daemon=True).start()  # it leaves no zombie
        return self._peer

    def end(self) -> None:
        """End the process, and the calls that wait for it. The next question starts another one."""
        self._ends += 1
        if (process := self._process) is not None:
            process.kill()
        if self._lock.acquire(blocking=False):  # otherwise the call that has it drops the process
            try:
                self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        """Forget the process, which ends."""
        if self._peer is not None:
            self._peer.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._peer = None


def serve(answer: Callable[[bytes], bytes], idle: float | None) -> None:
    """Answer questions until the peer has gone, or has asked nothing for `idle` seconds. The name of an exception is
    the text of a HelperError.
    """
    with socket.socket(fileno=0) as peer:
        peer.settimeout(idle)
        try:
            while True:
                question = _receive(peer)
                try:
                    reply = _ANSWER + answer(question)
                except Exception as error:  # noqa: BLE001 - the peer reports it
                    reply = _ERROR + type(error).__name__.encode()
                _send(peer, reply)
        except OSError:
            return


def _send(peer: socket.socket, message: bytes) -> None:
    peer.sendall(len(message).to_bytes(_LENGTH, "big") + message)


def _receive(peer: socket.socket) -> bytes:
    return _exactly(peer, int.from_bytes(_exactly(peer, _LENGTH), "big"))


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = peer.recv(min(_PIECE, size - len(found)))
        if not piece:
            raise ConnectionResetError("it ended")
        found += piece
    return bytes(found)

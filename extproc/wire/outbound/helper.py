"""Helper processes that answer questions: they keep a library's memory and pauses out of this process.

`Helper` asks, `serve` answers, over a socket pair that is the helper's standard input. A message is its length in four
bytes and its content. The first byte of a reply marks an answer or an error. The helper ends with its peer, or after a
time without questions. The next question starts another helper.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

_LENGTH = 4  # bytes of a message's length
_PIECE = 1 << 20  # most bytes received at once
_REST = 10.0  # seconds without a restart after a helper failed
_ANSWER, _ERROR = b"+", b"-"


class HelperError(Exception):
    """A question without an answer. The message is the reason."""


class Helper:
    """Asks a helper process one question at a time; safe for threads. A question replaces an ended process, once."""

    def __init__(self, command: Sequence[str], *, within: float, rest: float | None = None) -> None:
        self._command = command
        self._within = within  # seconds for an answer, including a start of the process
        self._rest = rest  # seconds without a restart; `_REST` if None
        self._ends = 0  # count of calls of `end`
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._failed = 0.0  # monotonic time of the last failure

    @property
    def pid(self) -> int | None:
        """Id of the helper's process; None when the next question starts one."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(self, question: bytes) -> bytes:
        """Ask a question, and return the answer. Raises HelperError, also when `end` is called meanwhile."""
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
                except OSError as error:  # TimeoutError is an OSError: the answer took too long
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
        """Start the process, so that the next question need not wait for it."""
        if self._lock.acquire(blocking=False):
            try:
                self._connected()
            except OSError:  # `ask` reports the error
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
        threading.Thread(target=process.wait, name="helper", daemon=True).start()  # the thread reaps the ended process
        return self._peer

    def end(self) -> None:
        """End the process, and the calls that wait for it. The next question starts another process."""
        self._ends += 1
        if (process := self._process) is not None:
            process.kill()
        if self._lock.acquire(blocking=False):  # otherwise the call with the lock drops the process
            try:
                self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        """End the process and forget it."""
        if self._peer is not None:
            self._peer.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._peer = None


def serve(answer: Callable[[bytes], bytes], idle: float | None) -> None:
    """Answer questions until the peer is gone, or asks nothing for `idle` seconds. The name of an exception is the
    message of the peer's HelperError.
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

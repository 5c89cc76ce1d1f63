"""The thread that serves HTTP. It listens at once, and imports its applications (3 MB) with the first connection."""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from extproc.operate.admin.spare import Probe, Spare
from extproc.wire.transport.unix_socket import private

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TELL_EVERY = 60.0  # seconds between two log lines about missing descriptors
_SILENT = 20_000  # milliseconds for which a client may read nothing of its answer


class LoopErrors:
    """Handles errors of the loop. Missing descriptors make one log line in `_TELL_EVERY` seconds. asyncio waits a
    second before it accepts again; `spares` answer probes meanwhile.
    """

    def __init__(self, spares: Sequence[Spare] = ()) -> None:
        self._told = -_TELL_EVERY
        self._spares = spares

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _SHORT:
            loop.default_exception_handler(context)
            return
        for spare in self._spares:
            spare.begin(loop)
        if loop.time() - self._told >= _TELL_EVERY:
            self._told = loop.time()
            log.error("status and admin accept no connections: %s", error.strerror)


class HTTPThread:
    """Serves applications, each on its own address, from one thread with its own event loop."""

    def __init__(self) -> None:
        self._doors: list[tuple[Callable[[], ASGIApp], socket.socket]] = []
        self._spares: list[Spare] = []
        self._wake: socket.socket | None = None  # `stop` closes it

    def add(self, make: Callable[[], ASGIApp], host: str, port: int, probe: Probe | None = None) -> int:
        """Serve the application from `make` at an address, on the thread; returns the port. `probe` answers while no
        descriptor is free. Raises OSError at once if the port is not available.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        # On Linux connections inherit both. Without TCP_NODELAY a body waits 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT)
        self._doors.append((make, listener))
        if probe is not None:
            self._spares.append(Spare(listener, probe))
        bound: int = listener.getsockname()[1]
        return bound

    def add_private(self, make: Callable[[], ASGIApp], path: str) -> None:
        """Serve an application on a unix socket that only this user can connect to."""
        listener = socket.socket(socket.AF_UNIX)
        with private(path):
            listener.bind(path)
        listener.listen()
        self._doors.append((make, listener))

    def start(self) -> None:
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=(woken,), name="admin", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._wake is not None:
            self._wake.close()
            self._thread.join(timeout=5)
        for spare in self._spares:
            spare.close()
        for _, listener in self._doors:
            listener.close()

    def _run(self, woken: socket.socket) -> None:
        with woken:
            ready, _, _ = select.select([woken, *(listener for _, listener in self._doors)], [], [])
            if woken not in ready:
                logging.getLogger("uvicorn").setLevel(logging.WARNING)
                asyncio.run(self._serve(woken))

    async def _serve(self, woken: socket.socket) -> None:
        from extproc.operate.admin.http import HttpServer  # noqa: PLC0415 - see above

        servers = [HttpServer(make(), listener) for make, listener in self._doors]
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(woken)
            for server in servers:
                server.end()

        loop.set_exception_handler(LoopErrors(self._spares))
        loop.add_reader(woken, end)
        await asyncio.gather(*(server.run_until_ended() for server in servers))

"""Lists of servers whose tools depend on the session or its user (`lists: session`): a catalogue for each session.

A client that asks for lists gets fresh ones: read within the last second, and without a call to the server since. Calls
use older lists, unless these lack the name.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from extproc.tools.mcp.catalogue import Catalogue, Voice, look_again
from extproc.tools.mcp.link import ServerError, SessionGoneError

if TYPE_CHECKING:
    from extproc.tools.mcp.call import Call
    from extproc.tools.mcp.servers import Servers

_PATIENCE = 8.0  # most seconds to read lists within a request; Envoy aborts a request after 10
_NEW = 1.0  # seconds for which lists are fresh


@dataclass(slots=True)
class _Read:
    task: asyncio.Task[Catalogue]
    at: float  # time of the reading, monotonic seconds
    used: bool = False  # True: a call went to the server since

    @property
    def found(self) -> Catalogue | None:
        """The catalogue; None if it could not be read, or was not read yet."""
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result() if done else None


class OwnLists:
    """Lists by session and server."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._read: OrderedDict[tuple[str, str, int], _Read] = OrderedDict()

    async def get(self, owner: str, name: str, call: Call, *, refresh: float, new: bool) -> Catalogue | None:
        """The catalogue of a server in the session of `owner`, at most `refresh` seconds old. None: not readable."""
        key, now = _key(owner, name, call), time.monotonic()
        read = self._read.get(key)
        if read is None or self._is_old(read, now - read.at, refresh, new=new):
            read = self._read[key] = _Read(self._servers.spawn(self._look(owner, name, call)), now)
            while len(self._read) > self._servers.limits.session_lists:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        if not read.task.done():
            await asyncio.sleep(0)  # lets this coroutine run in a task
            await asyncio.wait([read.task], timeout=_PATIENCE)
        return read.found

    def used(self, owner: str, call: Call) -> None:
        """Note a call to the server, because it may change the lists."""
        if (read := self._read.get(_key(owner, call.server, call))) is not None:
            read.used = True

    def end(self, owner: str, name: str) -> None:
        """Forget the lists of a client's session."""
        self._read.pop((owner, name, 0), None)

    def _is_old(self, read: _Read, age: float, refresh: float, *, new: bool) -> bool:
        if not read.task.done():
            return False
        return read.found is None or age > refresh or (new and (age > _NEW or read.used))

    async def _look(self, owner: str, name: str, call: Call) -> Catalogue:
        servers = self._servers
        server = servers.by_name[name]
        if (base := server.catalogue) is None:
            raise ServerError("server_unavailable")
        for last in (False, True):
            session, version = "", base.version_for(modern=call.modern)
            if base.sessions and version == base.legacy:
                opened = await servers.session(owner, name, call.session)
                session, version = opened.id, opened.version
            try:
                voice = Voice(version, session, call.capabilities)
                found = await look_again(base, name, server.link, servers.limits, voice)
            except SessionGoneError:
                if last:
                    raise ServerError("server_unavailable") from None
                servers.drop(owner, name, session)
            else:
                server.remember(found, servers.limits.tools)
                servers.changed(found)
                return found
        raise AssertionError


def _key(owner: str, name: str, call: Call) -> tuple[str, str, int]:
    """The key of lists. It includes the client's abilities, because requests without a session may each state other
    ones.
    """
    return owner, name, 0 if call.session is not None else hash(msgspec.json.encode(call.capabilities))

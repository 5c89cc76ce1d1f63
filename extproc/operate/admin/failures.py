"""Failed authentications at the admin API, by the address of the client: a limit, a log line and a count.

An address that guesses is refused for the rest of a minute, whatever token it sends. Other addresses are served
meanwhile, so no stranger locks an operator out. An IPv6 network counts as one address, because one client may own all
its addresses.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds for which failures of an address count, and seconds between two log lines."""
MOST_KNOWN = 4096
"""Most addresses that are remembered. The address that failed first is forgotten first."""
_NETWORK = 64  # bits of an IPv6 network

Outcome = Literal["invalid_token", "too_many"]


class Failures:
    """`limit` failures of one address in a minute; 0: no limit. `count` is called for each refusal."""

    def __init__(
        self,
        limit: int,
        count: Callable[[Outcome], None] = lambda _outcome: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._count = count
        self._now = now
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()  # time of its first failure, number
        self._logged = -WINDOW
        self._unlogged = 0  # failures since the latest log line

    def wait(self, address: str) -> int:
        """Seconds for which an address is refused; 0 if it is not. A refusal is counted."""
        begun, failed = self._known.get(_peer(address), (0.0, 0))
        left = begun + WINDOW - self._now()
        if not self._limit or failed < self._limit or left <= 0:
            return 0
        self._count("too_many")
        return int(left) + 1

    def add(self, address: str) -> None:
        """Count a wrong token."""
        now, peer = self._now(), _peer(address)
        begun, failed = self._known.get(peer, (now, 0))
        if begun + WINDOW <= now:
            self._known.pop(peer, None)
            begun, failed = now, 0
        self._known[peer] = begun, failed + 1
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        self._count("invalid_token")
        self._unlogged += 1
        if now - self._logged >= WINDOW:
            log.warning("the admin API refused %d wrong tokens, the latest from %s", self._unlogged, peer)
            self._logged, self._unlogged = now, 0


def _peer(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or ipaddress.IPv6Network((found, _NETWORK), strict=False))
    return str(found)

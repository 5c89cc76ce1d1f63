"""Gateway keys that operators make while the gateway runs, for consumers of the settings.

They are rows of the ledger's database, hashes alone, and are read every two seconds. The counters store may be flushed,
and keys would come and go with its counts.
"""

from __future__ import annotations

import msgspec


class IssuedKey(msgspec.Struct, frozen=True):
    """A key in the form that is stored. Times are in epoch seconds; `hash` is `hash_key`'s."""

    id: str
    hash: str
    consumer: str
    name: str
    created: float
    created_by: str = ""
    expires: float | None = None
    revoked: float | None = None

"""Gateway keys that operators make while the gateway runs, for consumers of the settings.

Keys are rows of the ledger's database, stored as hashes, and are read every two seconds. They are not in the counters
store, because that may be flushed.
"""

from __future__ import annotations

import msgspec


class IssuedKey(msgspec.Struct, frozen=True):
    """A stored key. Times are in epoch seconds; `hash` is the result of `hash_key`, `ending` the key's last characters,
    empty for one that an earlier release made.
    """

    id: str
    hash: str
    consumer: str
    name: str
    created: float
    created_by: str = ""
    expires: float | None = None
    revoked: float | None = None
    ending: str = ""

"""The ledger: one row for each authenticated exchange, with its consumer, model, usage and cost. No bodies, no
credentials.

   sqlite:PATH                                          one host; its processes share the file
   postgresql://user@host/db?password=env:NAME          a fleet
   memory:                                              a trial; the rows end with the process

Rows are queued by the event loop (`Ledger.add`), written by a thread in batches, and read with `Ledger.usage`. This
file and `query.py` need no database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from extproc.money.ledger.url import parse
from extproc.money.texts import Traits
from extproc.words.tries import FailedTry
from extproc.words.values import has_package, is_private

if TYPE_CHECKING:
    from extproc.money.ledger.ledger import Ledger

EXPIRED = "expired"
"""The `usage_source` of a row written at the end of a lease. The exchange's own row replaces it. It is `complete` when
its charges are those of a settle.
"""
PENDING = "pending"
"""The `usage_source` of a row whose usage is not known yet, such as a batch's. A later row of the exchange has the
usage.
"""


class LedgerError(Exception):
    """The ledger cannot be opened or does not answer. Its text holds no secret and no row."""


class SchemaError(LedgerError):
    """The database answers, but this release cannot use it."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One exchange. Texts are cut to 256 bytes, integers to the range of a column (`rows.py`); nothing is refused.

    `time` is the start, in seconds since the epoch. `cost` is in nano-USD: 0 where no provider was asked, None where
    the price is unknown. `charges` are the counters' charges by scope, in the unit of the budget (nano-USD for money);
    None: not known.
    """

    id: str
    time: float
    request_id: str = ""
    consumer: str = ""
    team: str = ""
    key: str = ""
    labels: Mapping[str, str] = {}
    operation: str = ""
    model: str = ""  # the requested model
    target: str = ""  # the entry of `models` that served
    provider: str = ""
    provider_model: str = ""
    attempts: int = 0
    status: int = 0  # 0: no answer
    error: str = ""
    outcome: str = "ok"  # one of OUTCOMES
    stream: bool = False
    complete: bool = True
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: str = "none"  # provider | disputed | estimated | pending | expired | none
    cost: int | None = None
    price_version: str = ""
    duration_ms: int = 0
    first_token_ms: int | None = None
    guardrails: Sequence[str] = ()
    denied_by: str = ""
    charges: Mapping[str, int] | None = None
    cache: str = ""  # an outcome of `cache.caching`; empty: the cache had no part in it
    saved: int = 0  # nano-USD that a hit saved, or would have saved in shadow mode
    tries: Sequence[FailedTry] = ()  # the failed tries
    prompt_saved: int = 0  # nano-USD that the provider's prompt cache saved
    prompt_extra: int = 0  # nano-USD that writing to it cost
    run: str = ""  # see `words.runs`; empty: the exchange belongs to no run
    endpoint: str = ""  # endpoint of a pool that answered, `ip:port`
    levels: Mapping[str, tuple[int, int, int]] | None = None  # by count: used before, limit, asked for
    traits: Traits | None = None  # of an answer that is compared with others


def check_ledger(url: str) -> None:
    """Raise ValueError for a `url` that `open_ledger` would refuse. Opens nothing; the error repeats no secret."""
    parsed = parse(url)
    if parsed.server is not None and not has_package("psycopg"):
        raise ValueError("postgresql: needs a driver: pip install 'llm-extproc[postgres]'")


def doubt_ledger(url: str) -> Iterator[str]:
    """Lints of a URL that `check_ledger` accepted."""
    parsed = parse(url)
    if parsed.path is None and parsed.server is None:
        yield "memory: loses all rows when the process ends, and grows until then"
    if parsed.server is not None:
        password = parsed.server.password
        if password is not None and password.read() is None:
            yield f"{password} is not set: the ledger cannot be written"
        if not (parsed.server.is_encrypted or parsed.server.is_local or is_private(parsed.server.host)):
            yield "the connection is not encrypted: add sslmode=verify-full"


def open_ledger(url: str) -> Ledger:
    """Open a ledger at a URL that `check_ledger` accepts. If the server does not answer yet, rows wait and it is tried
    again.

    Raises LedgerError when the database cannot be used: a path that cannot be opened, a schema of a newer release.
    """
    check_ledger(url)
    from extproc.money.ledger.ledger import Ledger  # noqa: PLC0415 - settings are checked without it

    return Ledger(parse(url))

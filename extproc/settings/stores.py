"""`stores:` of the filter YAML."""

from __future__ import annotations

from pydantic import Field, model_validator

from extproc import stores
from extproc.cache.stores import check as check_cache
from extproc.money.ledger import check_ledger
from extproc.words.values import PositiveDuration, SecretRef, Section


class StoresSettings(Section):
    """The databases that hold budgets' counts, the ledger and kept answers."""

    counters: str = Field(
        "sqlite:data/counters.db",
        description="Store of budgets' counts: `sqlite:path` for one machine, `memory:` for tests, or "
        "`redis://user@host:6379/0?password=env:NAME` for several machines (`rediss://` with TLS; "
        "`redis://s1,s2,s3?sentinel=NAME` through Sentinels).",
    )
    timeout: PositiveDuration = Field(
        stores.TIMEOUT,
        ge=0.01,
        le=2,
        description="Silence of the counters store after which its calls fail, `10ms` to `2s`: a Redis that answers no "
        "call, or an SQLite file that another process has locked. Time in which this process is too busy to listen "
        "does not count. After five failures in a row the store is left alone for a second.",
    )
    patience: PositiveDuration = Field(
        stores.PATIENCE,
        ge=0.1,
        le=8,
        description="Longest wait of a request for a counters store that answers other requests, `100ms` to `8s`. A "
        "burst waits for its turn, and is refused only after this time.",
    )
    ledger: str = Field(
        "sqlite:data/ledger.db",
        description="Store of the ledger, which has one row for each exchange: `sqlite:path` for one machine, "
        "`postgresql://user@host/db?password=env:NAME` for several, or `memory:` for tests.",
    )
    ledger_keep: PositiveDuration | None = Field(
        None,
        description="Age at which rows of the ledger are deleted, at most `366d`. Without it rows are kept forever.",
    )

    cache: str = Field(
        "memory:",
        description="Store of kept answers, where `cache.rules` keep any: `memory:` for one process, `sqlite:path` for "
        "one machine, or a Redis as for `counters`, but a database of its own that may evict. Off memory, answers are "
        "encrypted with `cache.key`.",
    )
    object_key: SecretRef | None = Field(
        None,
        description="Key that seals the ids of objects which providers keep (stored responses, files, batches), as "
        "`env:NAME` or `file:/path`; the same for all replicas. Default: the key of the provider that keeps the "
        "object. Set it where keys of providers are replaced, because the ids sealed with one are void without it.",
    )

    @property
    def waits(self) -> stores.Waits:
        return stores.Waits(self.timeout, self.patience)

    @model_validator(mode="after")
    def _known(self) -> StoresSettings:
        stores.check_counters(self.counters)
        check_ledger(self.ledger)
        check_cache(self.cache)
        return self

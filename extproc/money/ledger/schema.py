"""The tables, and the numbered steps that migrate a database from each version to the next."""

from __future__ import annotations

from extproc.money.ledger import EXPIRED, PENDING, SchemaError
from extproc.money.ledger.rows import COLUMNS
from extproc.money.ledger.sql import POSTGRESQL, Cursor, places

_PARTS = ", ".join(f"{name}_{part} BIGINT NOT NULL DEFAULT 0" for name in ("took", "first") for part in range(18))

# A released step never changes. Steps expand: a new column has a default, so that the release before still writes and
# reads. A step that takes something away, or changes what a value means, raises READABLE_FROM.
STEPS = (
    (
        # Columns that reports read come first: SQLite reads a row only up to the last needed column.
        """CREATE TABLE exchanges (
            id {text} NOT NULL PRIMARY KEY,
            time BIGINT NOT NULL,
            consumer {text} NOT NULL,
            team {text} NOT NULL,
            key {text} NOT NULL,
            operation {text} NOT NULL,
            model {text} NOT NULL,
            target {text} NOT NULL,
            provider {text} NOT NULL,
            provider_model {text} NOT NULL,
            attempts BIGINT NOT NULL,
            status BIGINT NOT NULL,
            error {text} NOT NULL,
            outcome {text} NOT NULL,
            stream BOOLEAN NOT NULL,
            usage_source {text} NOT NULL,
            cache {text} NOT NULL,
            input_tokens BIGINT NOT NULL,
            output_tokens BIGINT NOT NULL,
            cached_tokens BIGINT NOT NULL,
            cache_write_tokens BIGINT NOT NULL,
            reasoning_tokens BIGINT NOT NULL,
            cost BIGINT,
            saved BIGINT NOT NULL,
            prompt_saved BIGINT NOT NULL,
            prompt_extra BIGINT NOT NULL,
            duration_ms BIGINT NOT NULL,
            first_token_ms BIGINT,
            labels {json} NOT NULL,
            request_id {text} NOT NULL,
            complete BOOLEAN NOT NULL,
            price_version {text} NOT NULL,
            guardrails {json} NOT NULL,
            denied_by {text} NOT NULL,
            charges {json},
            tries {json}
        )""",
        "CREATE INDEX exchanges_by_time ON exchanges (time, id)",
        "CREATE INDEX exchanges_by_consumer ON exchanges (consumer, time)",
        "CREATE INDEX exchanges_by_request ON exchanges (request_id)",
        "CREATE INDEX exchanges_with_findings ON exchanges (time, id) WHERE guardrails <> '[]'",
        # Tables of sums, which `rollups.py` fills.
        """CREATE TABLE rollup_units (
            start BIGINT NOT NULL,
            cube {text} NOT NULL,
            state {text} NOT NULL,
            claimed BIGINT NOT NULL,
            PRIMARY KEY (start, cube)
        )""",
        """CREATE TABLE rollups (
            cube {text} NOT NULL,
            start BIGINT NOT NULL,
            value {text} NOT NULL DEFAULT '',
            consumer {text} NOT NULL DEFAULT '',
            team {text} NOT NULL DEFAULT '',
            key {text} NOT NULL DEFAULT '',
            operation {text} NOT NULL DEFAULT '',
            model {text} NOT NULL DEFAULT '',
            target {text} NOT NULL DEFAULT '',
            provider {text} NOT NULL DEFAULT '',
            provider_model {text} NOT NULL DEFAULT '',
            status BIGINT NOT NULL DEFAULT 0,
            error {text} NOT NULL DEFAULT '',
            outcome {text} NOT NULL DEFAULT '',
            stream BOOLEAN NOT NULL DEFAULT FALSE,
            usage_source {text} NOT NULL DEFAULT '',
            cache {text} NOT NULL DEFAULT '',
            requests BIGINT NOT NULL,
            refused BIGINT NOT NULL,
            errors BIGINT NOT NULL,
            priced BIGINT NOT NULL,
            input_tokens BIGINT NOT NULL,
            output_tokens BIGINT NOT NULL,
            cached_tokens BIGINT NOT NULL,
            cache_write_tokens BIGINT NOT NULL,
            reasoning_tokens BIGINT NOT NULL,
            hits BIGINT NOT NULL,
            saved BIGINT NOT NULL,
            shadow_hits BIGINT NOT NULL,
            would_save BIGINT NOT NULL,
            prompt_saved BIGINT NOT NULL,
            prompt_extra BIGINT NOT NULL,
            cost_low BIGINT NOT NULL,
            cost_high BIGINT NOT NULL,
            """
        + _PARTS
        + ")",
        "CREATE INDEX rollups_by_cube ON rollups (cube, start, value)",
        """CREATE TABLE gateway_keys (
            id {text} NOT NULL PRIMARY KEY,
            hash {text} NOT NULL UNIQUE,
            consumer {text} NOT NULL,
            name {text} NOT NULL,
            created BIGINT NOT NULL,
            created_by {text} NOT NULL,
            expires BIGINT,
            revoked BIGINT
        )""",
        """CREATE TABLE audit (
            number BIGINT NOT NULL PRIMARY KEY,
            id {text} NOT NULL UNIQUE,
            time BIGINT NOT NULL,
            consumer {text} NOT NULL,
            event {text} NOT NULL,
            digest {text} NOT NULL,
            hash {text} NOT NULL
        )""",
        "CREATE INDEX audit_by_time ON audit (time)",
        "CREATE INDEX audit_by_consumer ON audit (consumer) WHERE consumer <> ''",
        """CREATE TABLE audit_sent (
            sink {text} NOT NULL PRIMARY KEY,
            number BIGINT NOT NULL,
            hash {text} NOT NULL,
            claimed BIGINT NOT NULL
        )""",
        "CREATE TABLE ended_sessions (id {text} NOT NULL PRIMARY KEY, until BIGINT NOT NULL)",
    ),
    (
        "ALTER TABLE exchanges ADD COLUMN run {text} NOT NULL DEFAULT ''",
        "CREATE INDEX exchanges_by_run ON exchanges (run, time) WHERE run <> ''",
    ),
    ("ALTER TABLE ledger_version ADD COLUMN readable_from BIGINT NOT NULL DEFAULT 0",),
    ("ALTER TABLE gateway_keys ADD COLUMN ending {text} NOT NULL DEFAULT ''",),
    (
        """CREATE TABLE texts (
            id {text} NOT NULL PRIMARY KEY,
            time BIGINT NOT NULL,
            consumer {text} NOT NULL,
            key {text} NOT NULL,
            content {text} NOT NULL
        )""",
        "CREATE INDEX texts_by_time ON texts (time)",
        "CREATE INDEX texts_by_consumer ON texts (consumer)",
    ),
    ("ALTER TABLE exchanges ADD COLUMN endpoint {text} NOT NULL DEFAULT ''",),
    ("ALTER TABLE exchanges ADD COLUMN levels {json}",),
    ("ALTER TABLE exchanges ADD COLUMN traits {json}",),
    (
        """CREATE TABLE capacity (
            provider {text} NOT NULL,
            time BIGINT NOT NULL,
            replicas BIGINT NOT NULL,
            cost BIGINT NOT NULL,
            PRIMARY KEY (provider, time)
        )""",
    ),
)
VERSION = len(STEPS)
READABLE_FROM = 3
"""Oldest version whose release can serve with this schema: the way back from an upgrade."""

# Key of an advisory lock in PostgreSQL: a number that no other program in the database uses.
_LOCK = 7_310_868_733_423_012


_USAGE = (
    *("complete", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("usage_source", "cost", "price_version", "prompt_saved", "prompt_extra"),
)


def _replaced(name: str) -> str:
    kept = "" if name in _USAGE else f"CASE WHEN exchanges.usage_source = '{PENDING}' THEN exchanges.{name} ELSE "
    return f"{name} = {kept}excluded.{name}{' END' * bool(kept)}"


# The exchange's own row replaces a row that was written at the end of a lease. The earlier charges stay, unless the new
# row has charges. A second end of a lease replaces such a row only with the final charges of a settle (`complete`). A
# row with pending usage later gets its usage alone; a pending row itself replaces nothing.
INSERT = (
    f"INSERT INTO exchanges ({', '.join(COLUMNS)}) VALUES ({places(len(COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(_replaced(name) for name in COLUMNS if name not in ("id", "charges"))
    + ", charges = coalesce(excluded.charges, exchanges.charges) "
    f"WHERE excluded.usage_source <> '{PENDING}' AND (exchanges.usage_source = '{PENDING}' "
    f"OR exchanges.usage_source = '{EXPIRED}' AND "
    f"(excluded.usage_source <> '{EXPIRED}' OR excluded.complete AND excluded.charges <> exchanges.charges))"
)
"""The one statement that writes rows, for values in the order of COLUMNS."""

AMEND = (
    "UPDATE exchanges SET charges = ? WHERE id = ? "  # noqa: S608
    f"AND usage_source <> '{EXPIRED}' AND (charges IS NULL OR ?)"
)
"""Gives an exchange's own row the charges of its lease's end, so that counters and ledger agree. Parameters: charges,
id, and whether a settle made the charges; if not, they only fill a row without charges.
"""


def migrate(cursor: Cursor) -> None:
    """Migrate the database to VERSION, in the cursor's transaction for writing. Of several callers at once, one does
    it. Raises SchemaError when a newer release wrote the database in a way that this one cannot serve.
    """
    if cursor.dialect is POSTGRESQL:
        cursor.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        encoding = cursor.value("SHOW server_encoding")
        if encoding != "UTF8":
            raise SchemaError(f"the database's encoding is {encoding}; the ledger needs UTF8")
    cursor.execute("CREATE TABLE IF NOT EXISTS ledger_version (version BIGINT NOT NULL)")
    version = cursor.value("SELECT max(version) FROM ledger_version") or 0
    if version > VERSION:
        if cursor.value("SELECT max(readable_from) FROM ledger_version") <= VERSION:
            return
        raise SchemaError(f"the ledger was written by a newer release (schema {version}, this one knows {VERSION})")
    if version == VERSION:
        return
    for step in STEPS[version:]:
        for statement in step:
            cursor.execute(statement.format(**cursor.dialect.types))
    cursor.execute("DELETE FROM ledger_version")
    cursor.execute(f"INSERT INTO ledger_version (version, readable_from) VALUES ({VERSION}, {READABLE_FROM})")  # noqa: S608

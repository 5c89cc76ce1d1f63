"""The table, and the numbered steps that migrate a database from each version to the next.

`STEPS` create the table, `table.py` describes it to queries; a test compares the two. A released step stays as it is.
"""

from __future__ import annotations

from typing import Any

from extproc.money.ledger import EXPIRED, SchemaError
from extproc.money.ledger.rows import COLUMNS

# `{text}` and `{json}` differ: PostgreSQL orders text by its locale unless told, SQLite by bytes.
_TYPES = {
    "sqlite": {"text": "TEXT", "json": "TEXT"},
    "postgresql": {"text": 'TEXT COLLATE "C"', "json": "JSONB"},
}

STEPS = (
    (
        # Columns of reports stand first: SQLite reads a row only as far as it must.
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
            input_tokens BIGINT NOT NULL,
            output_tokens BIGINT NOT NULL,
            cached_tokens BIGINT NOT NULL,
            cache_write_tokens BIGINT NOT NULL,
            reasoning_tokens BIGINT NOT NULL,
            cost BIGINT,
            labels {json} NOT NULL,
            request_id {text} NOT NULL,
            complete BOOLEAN NOT NULL,
            price_version {text} NOT NULL,
            duration_ms BIGINT NOT NULL,
            first_token_ms BIGINT,
            guardrails {json} NOT NULL,
            denied_by {text} NOT NULL,
            charges {json}
        )""",
        "CREATE INDEX exchanges_by_time ON exchanges (time, id)",
        "CREATE INDEX exchanges_by_consumer ON exchanges (consumer, time)",
        "CREATE INDEX exchanges_by_request ON exchanges (request_id)",
    ),
    (
        "ALTER TABLE exchanges ADD COLUMN cache {text} NOT NULL DEFAULT ''",
        "ALTER TABLE exchanges ADD COLUMN saved BIGINT NOT NULL DEFAULT 0",
    ),
    ("ALTER TABLE exchanges ADD COLUMN tries {json}",),
    (
        # `rollups.py` fills them.
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
            value {text} NOT NULL,
            consumer {text} NOT NULL,
            team {text} NOT NULL,
            key {text} NOT NULL,
            operation {text} NOT NULL,
            model {text} NOT NULL,
            target {text} NOT NULL,
            provider {text} NOT NULL,
            provider_model {text} NOT NULL,
            status BIGINT NOT NULL,
            error {text} NOT NULL,
            outcome {text} NOT NULL,
            stream BOOLEAN NOT NULL,
            usage_source {text} NOT NULL,
            cache {text} NOT NULL,
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
            cost_low BIGINT NOT NULL,
            cost_high BIGINT NOT NULL,
            took_0 BIGINT NOT NULL, took_1 BIGINT NOT NULL, took_2 BIGINT NOT NULL, took_3 BIGINT NOT NULL,
            took_4 BIGINT NOT NULL, took_5 BIGINT NOT NULL, took_6 BIGINT NOT NULL, took_7 BIGINT NOT NULL,
            took_8 BIGINT NOT NULL, took_9 BIGINT NOT NULL, took_10 BIGINT NOT NULL,
            first_0 BIGINT NOT NULL, first_1 BIGINT NOT NULL, first_2 BIGINT NOT NULL, first_3 BIGINT NOT NULL,
            first_4 BIGINT NOT NULL, first_5 BIGINT NOT NULL, first_6 BIGINT NOT NULL, first_7 BIGINT NOT NULL,
            first_8 BIGINT NOT NULL, first_9 BIGINT NOT NULL, first_10 BIGINT NOT NULL
        )""",
        "CREATE INDEX rollups_by_cube ON rollups (cube, start, value)",
    ),
    (
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
            id {text} NOT NULL PRIMARY KEY,
            time BIGINT NOT NULL,
            actor {text} NOT NULL,
            role {text} NOT NULL,
            action {text} NOT NULL,
            detail {text} NOT NULL
        )""",
        "CREATE INDEX audit_by_time ON audit (time, id)",
    ),
    ("CREATE INDEX exchanges_with_findings ON exchanges (time, id) WHERE guardrails <> '[]'",),
    tuple(
        f"ALTER TABLE {table} ADD COLUMN {name} BIGINT NOT NULL DEFAULT 0"
        for table in ("exchanges", "rollups")
        for name in ("prompt_saved", "prompt_extra")
    ),
    ("CREATE TABLE ended_sessions (id {text} NOT NULL PRIMARY KEY, until BIGINT NOT NULL)",),
    (
        # Parts of the histograms below 125 ms. The rollups are made again from the rows, which outlive them.
        *[
            f"ALTER TABLE rollups ADD COLUMN {name}_{number} BIGINT NOT NULL DEFAULT 0"
            for name in ("took", "first")
            for number in range(11, 18)
        ],
        "UPDATE rollup_units SET state = 'stale'",
    ),
)
VERSION = len(STEPS)  # 9

# a key of PostgreSQL's advisory locks: a number that no other program in the database takes
_LOCK = 7_310_868_733_423_012


def insert(placeholder: str) -> str:
    """The one statement that writes rows, for values in the order of COLUMNS: `?` or `%s`.

    The exchange's own row replaces one that a lease's end wrote; the charges then stay, unless the row has its own. A
    lease's end replaces such a row only with the charges of a settle (`complete`), which are final.
    """
    changes = [f"{name} = excluded.{name}" for name in COLUMNS if name not in ("id", "charges")]
    changes.append("charges = coalesce(excluded.charges, exchanges.charges)")
    return (
        f"INSERT INTO exchanges ({', '.join(COLUMNS)}) VALUES ({', '.join([placeholder] * len(COLUMNS))}) "  # noqa: S608
        f"ON CONFLICT (id) DO UPDATE SET {', '.join(changes)} "
        f"WHERE exchanges.usage_source = '{EXPIRED}' "
        f"AND (excluded.usage_source <> '{EXPIRED}' "
        "OR excluded.complete AND excluded.charges <> exchanges.charges)"
    )


def amend(placeholder: str) -> str:
    """The statement that gives an exchange's own row the charges of its lease's end, so that counters and ledger agree:
    for charges, id, and whether they are those of a settle. Others only fill a row without charges.
    """
    return (
        f"UPDATE exchanges SET charges = {placeholder} WHERE id = {placeholder} "  # noqa: S608
        f"AND usage_source <> '{EXPIRED}' AND (charges IS NULL OR {placeholder})"
    )


def replaced(placeholder: str, count: int) -> str:
    """The statement that finds the times of the rows that `insert` may replace, for so many ids."""
    ids = ", ".join([placeholder] * count)
    return f"SELECT time FROM exchanges WHERE usage_source = '{EXPIRED}' AND id IN ({ids})"  # noqa: S608


def prune(placeholder: str) -> str:
    """The statement that deletes the oldest rows: those from before a time in microseconds, at most so many."""
    return (
        "DELETE FROM exchanges WHERE id IN "  # noqa: S608
        f"(SELECT id FROM exchanges WHERE time < {placeholder} ORDER BY time, id LIMIT {placeholder})"
    )


def migrate(cursor: Any, dialect: str) -> None:
    """Migrate the database to VERSION, in the cursor's transaction. Of several callers at once, one does it.

    On SQLite that transaction must be IMMEDIATE. Raises SchemaError when a newer release wrote the database.
    """
    if dialect == "postgresql":
        cursor.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        cursor.execute("SHOW server_encoding")
        (encoding,) = cursor.fetchone()
        if encoding != "UTF8":
            raise SchemaError(f"the database's encoding is {encoding}; the ledger needs UTF8")
    cursor.execute("CREATE TABLE IF NOT EXISTS ledger_version (version BIGINT NOT NULL)")
    cursor.execute("SELECT max(version) FROM ledger_version")
    version = cursor.fetchone()[0] or 0
    if version > VERSION:
        raise SchemaError(f"the ledger was written by a newer release (schema {version}, this one knows {VERSION})")
    if version == VERSION:
        return
    for step in STEPS[version:]:
        for statement in step:
            cursor.execute(statement.format(**_TYPES[dialect]))
    cursor.execute("DELETE FROM ledger_version")
    cursor.execute(f"INSERT INTO ledger_version VALUES ({VERSION})")  # noqa: S608

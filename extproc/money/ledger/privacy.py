"""The end of a consumer's records: its rows lose every name of it, or are deleted. Sums with these names are
deleted.
"""

# ruff: noqa: S608 - names and numbers of this package only; texts are values
from __future__ import annotations

from extproc.money.ledger import rollups
from extproc.money.ledger.database import Database
from extproc.money.ledger.rows import text
from extproc.money.ledger.sql import places

FORGOTTEN = "(forgotten)"
"""Name of the consumer in rows that are kept for their cost."""
BATCH = 1000  # rows of one transaction
_EMPTIED = (
    f"consumer = '{FORGOTTEN}', key = '', request_id = '', labels = '{{}}', guardrails = '[]', denied_by = '', "
    "charges = NULL, levels = NULL, traits = NULL, run = ''"
)


def forget(database: Database, consumer: str, *, delete: bool) -> int:
    """Anonymise or delete up to BATCH rows of a consumer, and delete the sums of their hours and days. Returns the
    number of rows. Raises LedgerError.
    """
    with database.change() as cursor:
        rollups.share(cursor)
        found = cursor.rows(f"SELECT id, time FROM exchanges WHERE consumer = ? LIMIT {BATCH}", (text(consumer),))
        if found:
            change = "DELETE FROM exchanges" if delete else f"UPDATE exchanges SET {_EMPTIED}"
            cursor.execute(f"{change} WHERE id IN ({places(len(found))})", [id for id, _ in found])
            rollups.erase(cursor, [time for _, time in found])
    return len(found)

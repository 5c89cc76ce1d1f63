"""Writes the tables of metrics on their page: `python -m extproc.operate.telemetry.page docs/telemetry.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from extproc.operate.telemetry.declared import declared
from extproc.operate.telemetry.groups import GROUPS


def written(page: str) -> str:
    """The page with the rows of all groups, each below its heading."""
    for group in GROUPS:
        begin, heading, rest = page.partition(f"| {group.heading} | meaning |\n|---|---|\n")
        rows = "".join(f"| `{one.name}` | {one.text} |\n" for one in declared(group))
        page = begin + heading + rows + rest[rest.index("\n\n") + 1 :]
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")

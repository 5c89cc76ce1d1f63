"""The command: a table of the checks, their number, and their results."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bench.soak import minutes
from bench.soak.plan import FULL, SHORT
from bench.soak.run import Soak
from bench.soak.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Budgets under load, and what must hold.")
    parser.add_argument("--short", action="store_true", help="a tenth of the requests, two kills, SQLite as the ledger")
    parser.add_argument(
        "--minutes", type=float, help="another soak: so many minutes of mixed load; memory and leaks are judged"
    )
    options = parser.parse_args()
    if options.minutes is not None:
        return minutes.run(options.minutes)
    plan = SHORT if options.short else FULL
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        world = World(plan, Path(folder), postgres=not options.short)
        try:
            world.start()
            findings = asyncio.run(Soak(world, plan).run())
        finally:
            world.stop()
        print(f"\n{findings.table()}\n\n{time.perf_counter() - start:.0f} s")
        if not findings.held:
            print(world.log[-4000:], file=sys.stderr)
    return 0 if findings.held else 1


if __name__ == "__main__":
    sys.exit(main())

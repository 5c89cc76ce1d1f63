"""Run pytest over the folders of tests, several at a time.

    python tests/parts.py [options of pytest]

pytest-xdist collects every test in every process and reports each to a controller. Most tests of this project take
milliseconds, so that took a third of the time of `make unit`. Here each process collects its own folders alone. A part
is a folder that waits, or one that is large, or several small ones. The largest begin first, in turn with those whose
tests wait. The output of a part is printed when it has ended.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path

HERE = Path(__file__).parent
NOT_HERE = {"e2e"}
"""Folders whose tests share gateways: xdist gives each of their files to one process."""
WAITING = {"ledger", "stores", "transport", "admin"}
"""Folders whose tests wait for PostgreSQL, Redis or time-outs: others use the cores meanwhile."""
SMALL = 0.06
"""Share of all tests' text below which folders are put together: a process costs a second before its first test."""
NOTHING_COLLECTED = 5


def parts() -> list[list[str]]:
    """The paths for each process, in the order in which they begin."""
    loose = list(HERE.glob("test_*.py"))
    folders = [path for path in HERE.iterdir() if path.is_dir() and path.name not in NOT_HERE]
    sized = [(sum(path.stat().st_size for path in folder.rglob("test_*.py")), [str(folder)]) for folder in folders]
    sized.append((sum(path.stat().st_size for path in loose), [str(path) for path in loose]))
    least = SMALL * sum(size for size, _ in sized)
    found: list[tuple[int, list[str]]] = []
    for size, paths in sorted(filter(itemgetter(0), sized), reverse=True):
        alone = any(WAITING & {Path(path).name for path in [*paths, *(found[-1][1] if found else [])]})
        if found and found[-1][0] < least and not alone:
            found[-1] = (found[-1][0] + size, [*found[-1][1], *paths])
        else:
            found.append((size, paths))
    ordered = [paths for _, paths in sorted(found, reverse=True)]
    waiting = [paths for paths in ordered if WAITING & {Path(path).name for path in paths}]
    busy = [paths for paths in ordered if paths not in waiting]
    return [paths for both in zip_longest(waiting, busy) for paths in both if paths is not None]


def run(paths: Sequence[str], options: Sequence[str]) -> tuple[int, Counter[str]]:
    """Run one part and print what it printed. Returns its exit status, and the numbers of passed, failed, … tests."""
    command = [sys.executable, "-m", "pytest", "-q", *options, *paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if not re.fullmatch(r"[.sx]+ +\[ *\d+%\]", line)]
    names = " ".join(dict.fromkeys(path.name if path.is_dir() else "tests" for path in map(Path, paths)))
    last = lines[-1] if lines else ""
    print(f"{names}: {last}" if done.returncode in (0, NOTHING_COLLECTED) else done.stdout, flush=True)
    return done.returncode, Counter({word: int(number) for number, word in re.findall(r"(\d+) (\w+)(?=.* in )", last)})


def main(options: Sequence[str]) -> int:
    begun, total = time.monotonic(), Counter[str]()
    with ThreadPoolExecutor((os.cpu_count() or 2) + 2) as pool:  # more than cores: many tests wait
        ended = list(pool.map(lambda paths: run(paths, options), parts()))
    for _, counts in ended:
        total += counts
    print(", ".join(f"{number} {what}" for what, number in total.items()), f"in {time.monotonic() - begun:.0f} s")
    return 0 if {status for status, _ in ended} <= {0, NOTHING_COLLECTED} and total["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

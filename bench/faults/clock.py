"""The processor with a clock that steps: `python -m bench.faults.clock FILE serve …`. FILE has the seconds by which the
clock is off; it is read once a second.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


class Clock:
    """`time.time`, off by the seconds in `file`."""

    def __init__(self, file: Path) -> None:
        self._file, self._real = file, time.time
        self._read, self._off = 0.0, 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._read > 1.0:
            self._read, self._off = now, float(self._file.read_text() or 0)
        return self._real() + self._off


if __name__ == "__main__":
    time.time = Clock(Path(sys.argv.pop(1)))  # before anything imports it
    from extproc.__main__ import main

    sys.argv[0] = "extproc"
    sys.exit(main())

"""`python -m tests.doubles.up --config FILE`: `extproc up`, with strict doubles as its mock providers."""

from __future__ import annotations

import sys

from extproc.__main__ import main
from extproc.cli import up

up.MOCK = (sys.executable, "-m", "tests.doubles")
sys.argv[:1] = ["extproc", "up"]
sys.exit(main())

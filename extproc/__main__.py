"""`python -m extproc`, and what the installed command `extproc` calls."""

from __future__ import annotations

import sys

from extproc.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

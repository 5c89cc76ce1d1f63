"""Entry point of `python -m extproc` and of the installed command `extproc`."""

from __future__ import annotations

import sys

from extproc.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

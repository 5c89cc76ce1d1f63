"""`extproc import`: settings from those of another gateway."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from extproc.cli._litellm import convert

EXAMPLES = """\
  extproc import litellm config.yaml > gateway.yaml      a configuration of LiteLLM's proxy
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gateway", choices=["litellm"], help="gateway whose configuration it is")
    parser.add_argument("file", type=Path, metavar="FILE", help="its configuration file")


def run(options: argparse.Namespace) -> int:
    """Print the settings, and on standard error what has no counterpart. Raises ValueError, OSError."""
    text, notes = convert(options.file.read_text(encoding="utf-8"), str(options.file))
    print(text, end="")
    for note in notes:
        print(f"{options.file}: {note}", file=sys.stderr)
    return 0

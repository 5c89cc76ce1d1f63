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
    """Print the settings, and on standard error notes and a summary. Returns 1 when the settings need a hand before
    they are valid. Raises ValueError, OSError.
    """
    file = str(options.file)
    try:
        found = convert(options.file.read_text(encoding="utf-8"), file)
    except UnicodeDecodeError:
        raise ValueError(f"{file}:1:1: file: the file is not UTF-8") from None
    print(found.text, end="")
    for note in found.notes:
        print(note.show(file), file=sys.stderr)
    for problem in found.wrong:
        print(f"correct this in the settings printed: {problem.show('line')}", file=sys.stderr)
    print(found.summary, file=sys.stderr)
    return int(bool(found.wrong))

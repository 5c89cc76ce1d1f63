"""`python -m extproc.mock`."""

from __future__ import annotations

import argparse
import sys

from extproc.mock import add_arguments, run

parser = argparse.ArgumentParser(prog="extproc mock", description="A deterministic LLM provider for tests.")
add_arguments(parser)
sys.exit(run(parser.parse_args()))

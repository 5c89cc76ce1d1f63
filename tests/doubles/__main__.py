"""`python -m tests.doubles`: a double alone, as `extproc mock` is the mock alone."""

from __future__ import annotations

import argparse
import sys

from tests.doubles import add_arguments, run

parser = argparse.ArgumentParser(prog="doubles", description="A strict provider for tests.")
add_arguments(parser)
sys.exit(run(parser.parse_args()))

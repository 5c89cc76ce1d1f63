"""`extproc keys`: gateway keys and their hashes."""

from __future__ import annotations

import argparse
import sys

from extproc.access.auth import hash_key, make_key
from extproc.cli._options import read_secret

EXAMPLES = """\
  extproc keys                            a new key for its owner, and its hash for the settings
  extproc keys --stdin < key.txt          the hash of a key that exists
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key-secret",
        default="env:EXTPROC_KEY_SECRET",
        metavar="env:NAME|file:PATH",
        help="auth.key_secret of the settings (default: env:EXTPROC_KEY_SECRET)",
    )
    parser.add_argument("--stdin", action="store_true", help="hash the key on standard input")


def run(options: argparse.Namespace) -> int:
    """Print a key and its hash. Raises ValueError without the secret."""
    secret = read_secret(options.key_secret, "--key-secret", "; make one with: openssl rand -hex 32")
    if options.stdin:
        print(f"hash: {hash_key(sys.stdin.readline().strip(), secret)}")
        return 0
    key = make_key()
    print(f"key:  {key}\nhash: {hash_key(key, secret)}")
    print("Give the key to its owner; put `{hash: …}` in the consumer's keys. The key is not stored.", file=sys.stderr)
    return 0

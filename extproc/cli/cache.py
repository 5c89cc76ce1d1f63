"""`extproc cache`: the size of the cache of answers, and the deletion of answers."""

from __future__ import annotations

import argparse

from extproc.cli._admin import add_gateway, connect

_VERDICTS = ("verified_same", "verified_different", "verify_failures")
EXAMPLES = """\
  extproc cache stats                      answers, their size and the limit
  extproc cache forget --consumer ci-bot   delete the answers to one consumer's requests
  extproc cache clear                      delete all answers
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["stats", "forget", "clear"], help="what to do")
    parser.add_argument("--consumer", help="name of the consumer to forget")
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Raises OSError when the gateway does not answer, ValueError when it refuses."""
    if (options.what == "forget") is not (options.consumer is not None):
        raise ValueError("forget needs --consumer NAME; no other takes it")
    gateway = connect(options)
    if options.what == "stats":
        found = gateway.json("/cache")
        limit = f" of {found['limit']:,}" if found["limit"] else ""
        print(f"{found['entries']:,} answers, {found['bytes']:,}{limit} bytes")
        print(f"{found['waiting']:,} requests wait for equal ones; the store failed {found['failures']:,} times")
        if found["vectors"]:
            print(f"{found['vectors']:,} questions to compare, {found['vector_bytes']:,} bytes")
        same, different, failed = (found[name] for name in _VERDICTS)
        if asked := same + different + failed:
            print(f"{asked:,} pairs verified: {same:,} same, {different:,} different, {failed:,} without a verdict")
        return 0
    deleted = gateway.json("/cache/forget", body={"consumer": options.consumer})["deleted"]
    print(f"{deleted:,} answers deleted")
    return 0

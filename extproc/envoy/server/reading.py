"""`python -m extproc.envoy.server.reading FILE`: large settings, read and checked for the processor that serves
meanwhile.

Their text is on standard input, a `Read` on standard output. It is a process of its own because reading takes seconds
in which other threads of the processor hardly run, and because a process can be ended at any moment.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.settings import config
from extproc.settings.document import ConfigError, Problem


class Read(msgspec.Struct):
    """Plain values without errors in them, dates as text; or the problems."""

    tree: Mapping[str, Any] = {}
    problems: Sequence[Problem] = ()


def main() -> None:
    gc.disable()  # it ends soon
    try:
        found = Read(config.parse_tree(sys.stdin.buffer.read().decode(), sys.argv[1])[0])
    except ConfigError as error:
        found = Read(problems=error.problems)
    sys.stdout.buffer.write(msgspec.msgpack.encode(found))


if __name__ == "__main__":
    main()

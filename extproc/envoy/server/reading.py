"""`python -m extproc.envoy.server.reading FILE`: large settings, read and checked for the processor that serves
meanwhile.

A question is the text, its answer a `ReadSettings`. It is a process of its own because reading takes seconds
in which other threads of the processor hardly run, and because a process can be ended at any moment. It answers one
question, whose memory ends with it; the next one finds another process that has already begun.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.settings import config
from extproc.settings.document import ConfigError, SettingsProblem
from extproc.wire.outbound.helper import serve


class ReadSettings(msgspec.Struct):
    """Plain values without errors in them, dates as text; or the problems."""

    tree: Mapping[str, Any] = {}
    problems: Sequence[SettingsProblem] = ()


def answer(text: bytes) -> bytes:
    try:
        found = ReadSettings(config.parse_tree(text.decode(), sys.argv[1])[0])
    except ConfigError as error:
        found = ReadSettings(problems=error.problems)
    return msgspec.msgpack.encode(found)


if __name__ == "__main__":
    gc.disable()  # it ends with its answer
    serve(answer, None)

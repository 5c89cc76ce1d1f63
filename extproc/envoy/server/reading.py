"""`python -m extproc.envoy.server.reading FILE`: reads and checks large settings while the processor serves.

A question is the settings' text, the answer a `ReadSettings`. Reading takes seconds, in which other threads of the same
process would hardly run; and a process can be ended at any moment. A process answers one question, so its memory is
freed; the next process is started in advance.
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
    """Plain values of valid settings, with dates as text; or their problems."""

    tree: Mapping[str, Any] = {}
    problems: Sequence[SettingsProblem] = ()


def answer(text: bytes) -> bytes:
    try:
        found = ReadSettings(config.parse_tree(text.decode(), sys.argv[1])[0])
    except ConfigError as error:
        found = ReadSettings(problems=error.problems)
    return msgspec.msgpack.encode(found)


if __name__ == "__main__":
    gc.disable()  # the process ends after its answer
    serve(answer, None)

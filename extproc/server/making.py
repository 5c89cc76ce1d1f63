"""`python -m extproc.server.making`: Envoy's resources for the processor that gives them to it.

An `Ask` on standard input is answered by `Made` on standard output. It is a process of its own because Envoy's types
take 60 MB and half a second.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from typing import Any

import msgspec
import pydantic.dataclasses

from extproc.settings import bound, config
from extproc.words.resources import Ask


def main() -> None:
    """Raises ConfigError when the settings do not load; they did in the process that asks."""
    gc.disable()  # it ends soon
    # Envoy's types are dataclasses of pydantic. To compile their validators would take twice the time of all the rest;
    # Envoy validates what it gets.
    setattr(pydantic.dataclasses, "dataclass", _dataclass)  # noqa: B010
    setattr(pydantic.dataclasses, "rebuild_dataclass", lambda *_, **__: None)  # noqa: B010
    from extproc.envoy_config.dynamic import make  # noqa: PLC0415 - after that

    ask = msgspec.json.decode(sys.stdin.buffer.read(), type=Ask)
    settings = bound.fixed(config.parse(ask.text), config.parse(ask.first))
    made = make(settings, ask.text, ask.secrets, ask.before, socket=ask.socket)
    sys.stdout.buffer.write(msgspec.json.encode(made))


def _dataclass(kind: Any = None, *, config: Any = None, **options: Any) -> Any:  # noqa: ARG001
    if kind is None:
        return lambda each: dataclasses.dataclass(each, **options)
    return dataclasses.dataclass(kind, **options)


if __name__ == "__main__":
    main()

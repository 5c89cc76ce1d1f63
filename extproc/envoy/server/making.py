"""`python -m extproc.envoy.server.making`: Envoy's resources for the processor that gives them to it.

An `Ask` on standard input is answered by `Made` on standard output. It is a process of its own because Envoy's types
take 60 MB and half a second.
"""

from __future__ import annotations

import gc
import sys

import msgspec

from extproc.envoy.resources import Ask
from extproc.envoy.resources.plain import plain
from extproc.settings import bound, config
from extproc.wire.framing import shapes


def main() -> None:
    """Raises ConfigError when the settings do not load; they did in the process that asks."""
    gc.disable()  # it ends soon
    with plain():
        from extproc.envoy.envoy_config.dynamic import make  # noqa: PLC0415

    ask = shapes.decode(sys.stdin.buffer.read(), Ask)
    settings = bound.fixed(config.parse(ask.text), config.parse(ask.first))
    made = make(settings, ask.text, ask.secrets, ask.before, socket=ask.socket)
    sys.stdout.buffer.write(msgspec.json.encode(made))


if __name__ == "__main__":
    main()

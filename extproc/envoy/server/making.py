"""`python -m extproc.envoy.server.making`: Envoy's resources for the processor that gives them to it.

It answers a `ResourceQuery` by `Made`. Envoy's types take 60 MB and half a second of import, so they stay out of the
processor. The process lives on for a while, because changes of settings come in groups.
"""

from __future__ import annotations

import contextlib
import gc

import msgspec

from extproc.envoy.resources import ResourceQuery
from extproc.envoy.resources.plain import plain
from extproc.settings import bound, config
from extproc.wire.framing import shapes
from extproc.wire.outbound.helper import serve

_IDLE = 30.0  # seconds without a question until it ends


def answer(question: bytes) -> bytes:
    """Raises ConfigError when the settings do not load; they did in the process that asks."""
    with plain():
        from extproc.envoy.envoy_config.dynamic import make  # noqa: PLC0415

    ask = shapes.decode(question, ResourceQuery)
    settings = bound.fixed(config.parse(ask.text), config.parse(ask.first))
    return msgspec.json.encode(make(settings, ask.text, ask.secrets, ask.before, socket=ask.socket))


def main() -> None:
    gc.disable()  # modules stay, and answers leave no cycles that matter
    with contextlib.suppress(ImportError), plain():  # the answer says so
        import extproc.envoy.envoy_config.dynamic  # noqa: F401, PLC0415
    gc.freeze()
    gc.enable()
    serve(answer, _IDLE)


if __name__ == "__main__":
    main()

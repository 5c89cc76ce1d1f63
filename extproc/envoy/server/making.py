"""`python -m extproc.envoy.server.making`: makes Envoy's resources for the processor.

The answer to a `ResourceQuery` is `Made`. Importing Envoy's types takes 60 MB and half a second, so the processor does
not import them. This process waits for further questions, because changes of settings come in groups.
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

_IDLE = 30.0  # seconds without a question until the process ends


def answer(question: bytes) -> bytes:
    """Make resources. Raises ConfigError for settings that do not load, although they did in the asking process."""
    with plain():
        from extproc.envoy.envoy_config.dynamic import make  # noqa: PLC0415

    ask = shapes.decode(question, ResourceQuery)
    settings = bound.fixed(config.parse(ask.text), config.parse(ask.first))
    return msgspec.json.encode(make(settings, ask.text, ask.secrets, ask.before, socket=ask.socket))


def main() -> None:
    gc.disable()  # modules stay in memory, and answers leave no significant cycles
    with contextlib.suppress(ImportError), plain():  # the answer reports a missing package
        import extproc.envoy.envoy_config.dynamic  # noqa: F401, PLC0415
    gc.freeze()
    gc.enable()
    serve(answer, _IDLE)


if __name__ == "__main__":
    main()

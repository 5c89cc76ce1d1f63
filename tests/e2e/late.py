"""Random delays in what a gateway does beside its answers: `make late`.

Records, lines of the log, rows, reports of the console, reloads and lists of MCP servers come some time after the
answer that a test has. On a quiet machine that is a millisecond, and a test that does not wait for them passes by luck.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

PLACES = {
    "extproc.operate.admin.guard:Guard.__call__": 0.1,
    "extproc.exchange.gateway:GatewayStream.on_end": 0.25,
    "extproc.money.ledger.writer:Writer._write_batch": 0.8,
    "extproc.tools.mcp.servers:Servers._look": 0.3,
    "extproc.upstream.mock.connection:Connection._play": 0.02,
    "extproc.envoy.server.discovery:Discovery.offer": 0.4,
    "extproc.envoy.server.reload:Reloads.look": 0.8,
    "extproc.operate.telemetry.lines:Lines._write": 0.5,
}
"""Methods, and the most seconds by which each call begins late."""


def delay() -> None:
    """Delay the methods in this process, where `EXTPROC_TESTS_LATE` is set."""
    if not os.environ.get("EXTPROC_TESTS_LATE"):
        return
    for place, most in PLACES.items():
        module, _, path = place.partition(":")
        name, _, method = path.partition(".")
        kind = getattr(import_module(module), name)
        setattr(kind, method, _late(getattr(kind, method), most))


def _late(method: Callable[..., Any], most: float) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def begin_late(*words: Any, **named: Any) -> Any:
            await asyncio.sleep(random.random() * most)
            return await method(*words, **named)

        return begin_late

    @wraps(method)
    def wait(*words: Any, **named: Any) -> Any:
        time.sleep(random.random() * most)
        return method(*words, **named)

    return wait

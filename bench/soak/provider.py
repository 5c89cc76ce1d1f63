"""The mock provider with a log of every request of a soak: `python -m bench.soak.provider PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys

from extproc.upstream.mock import Options, serve

KEPT = 100_000


async def main(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await serve(Options(port=port, log_size=KEPT))
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))

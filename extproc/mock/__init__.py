"""The built-in mock: a provider in a process of its own, for `extproc up`, the examples and the benchmarks."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from extproc.mock import faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from extproc.mock.connection import Server

_EPILOG = """\
The mock answers OpenAI's chat completions, responses, embeddings and models, and Anthropic's messages, plain and
streamed. An answer repeats the last user message; extproc/mock/conversation.py says when it calls a tool or thinks.
For tests: GET /requests lists the requests (GET /requests?count counts them), PUT /control {"fault": "status=503"}
changes --fault, DELETE /control clears fault and list, GET /healthz answers 200.

"""


@dataclass(frozen=True)
class Options:
    """The command line as values. Port 0 picks a free one; `fault` applies to every request; sizes are bytes."""

    address: str = "127.0.0.1"
    port: int = 0
    name: str = "mock"
    api_key: str | None = None
    fault: str = ""
    body_limit: int = 64 * 2**20
    log_size: int = 1000  # requests


def add_arguments(
    parser: argparse.ArgumentParser,
    parse: Callable[[str], object] = faults.parse,
    epilog: str = _EPILOG + str(faults.__doc__),
) -> None:
    """Declare the arguments of `extproc mock`. `parse` raises FaultError for a fault that the mock does not know."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = epilog.replace("%", "%%")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 picks a free one (default: %(default)s)")
    parser.add_argument("--name", default="mock", help="value of the header x-mock-name (default: %(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help="the key that requests must carry (default: none)")
    parser.add_argument("--fault", type=checked(parse), default="", metavar="SUFFIXES", help="faults of every request")


def checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """An argparse type: the text itself, if `parse` takes it."""

    def check(text: str) -> str:
        try:
            parse(text)
        except faults.FaultError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


async def serve(options: Options) -> Server:
    """Start a mock provider in this event loop."""
    from extproc.mock.connection import Server  # noqa: PLC0415 - the command line is read without them
    from extproc.mock.provider import Mock  # noqa: PLC0415

    return await Server(Mock(options), options).listen()


def run(
    args: argparse.Namespace,
    kind: type[Options] = Options,
    start: Callable[..., Awaitable[Server]] = serve,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0, or 1 after an OSError on standard error."""
    given = {field.name: getattr(args, field.name) for field in fields(kind) if hasattr(args, field.name)}
    try:
        import uvloop  # noqa: PLC0415

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(kind(**given), start))
    except OSError as error:
        sys.stderr.write(f"mock provider {args.name} cannot serve: {error}\n")
        return 1
    return 0


async def _until_stopped(options: Options, start: Callable[..., Awaitable[Server]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await start(options)
    sys.stdout.write(f"mock provider {options.name} listening on {server.url}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.close()

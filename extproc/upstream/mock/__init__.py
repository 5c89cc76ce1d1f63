"""The built-in mock: a provider in a process of its own, for `extproc up`, the examples and the benchmarks."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import fields

import uvloop

from extproc.upstream.mock import faults
from extproc.upstream.mock.connection import MockServer
from extproc.upstream.mock.endpoints import Options
from extproc.upstream.mock.provider import Mock

EPILOG = """\
The mock answers OpenAI's chat completions, responses, embeddings and models, and Anthropic's messages, plain and
streamed. An answer repeats the last user message; extproc/upstream/mock/conversation.py says when it calls a tool.
At /mcp it is an MCP server with some tools, a prompt and a resource.
For tests: GET /requests lists the requests (GET /requests?count counts them), PUT /control {"fault": "status=503"}
changes --fault, {"poisoned": true} the description of an MCP tool, DELETE /control clears all of it, GET /healthz
answers 200.
"""


def add_arguments(parser: argparse.ArgumentParser, parse: Callable[[str], object] = faults.parse) -> None:
    """Declare the arguments of `extproc mock`. `parse` raises FaultError for a fault that is not known."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{parser.epilog or ''}\n{EPILOG}\n{faults.__doc__}".replace("%", "%%")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 picks a free one (default: %(default)s)")
    parser.add_argument("--name", default="mock", help="value of the header x-mock-name (default: %(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help="the key that requests must carry (default: none)")
    known = checked(lambda text: parse(text) and text)
    parser.add_argument("--fault", type=known, default="", metavar="SUFFIXES", help="faults of every request")


def checked(read: Callable[[str], object]) -> Callable[[str], object]:
    """An argparse type, made from a reader that raises FaultError."""

    def check(text: str) -> object:
        try:
            return read(text)
        except faults.FaultError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


async def serve(options: Options) -> MockServer:
    """Start a mock provider in this event loop."""
    return await MockServer(Mock(options), options).listen()


def run(
    args: argparse.Namespace, kind: type[Options] = Options, start: Callable[..., Awaitable[MockServer]] = serve
) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0, or 1 when the mock cannot listen."""
    options = kind(**{field.name: getattr(args, field.name) for field in fields(kind) if field.name in args})
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(options, start))
    except OSError as error:
        sys.stderr.write(f"mock provider {options.name} cannot serve: {error}\n")
        return 1
    return 0


async def _until_stopped(options: Options, start: Callable[..., Awaitable[MockServer]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await start(options)
    print(f"mock provider {options.name} listening on {server.url}", flush=True)  # noqa: T201
    await stop.wait()
    await server.close()

"""A deterministic LLM provider in a process of its own: upstream of `extproc up`, of the tests and the benchmarks."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.mock import faults

if TYPE_CHECKING:
    from extproc.mock.server import Server

_EPILOG = """\
Every dialect is spoken, each at the paths of its API: OpenAI's chat completions, responses, embeddings and models,
Anthropic's messages (also as Vertex and Bedrock have them), Gemini (also as Vertex has it), Bedrock's Converse and
Titan, Cohere. Requests are checked as the real APIs check them, and the same words get the same answer in each; what
makes it call tools or think is told in extproc/mock/scene.py. Signatures of AWS are verified if AWS_SECRET_ACCESS_KEY
is set. For tests: GET /requests lists what was asked (GET /requests?count only counts), PUT /control
{"fault": "status=503"} changes --fault, DELETE /control clears fault and list, GET /healthz answers 200.

"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line as values. Port 0 picks a free one; `fault` applies to every request."""

    address: str = "127.0.0.1"
    port: int = 0
    name: str = "mock"
    api_key: str | None = None
    fault: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_delay: float = 0.0
    body_limit: int = 64 * 2**20
    log_size: int = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `extproc mock`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (_EPILOG + (faults.__doc__ or "")).replace("%", "%%")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 picks a free one (default: %(default)s)")
    parser.add_argument("--name", default="mock", help="in x-mock-name and system_fingerprint (default: %(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help="demand this key (default: none)")
    parser.add_argument("--fault", type=_fault, default="", metavar="SUFFIXES", help="faults of every request")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument("--tls-delay", type=_seconds, default=0.0, metavar="TIME", help="wait before the handshake")


def _fault(text: str) -> str:
    try:
        faults.parse(text)
    except faults.FaultError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    try:
        return faults.seconds(text)
    except faults.FaultError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    fields = ("address", "port", "name", "api_key", "fault", "tls_cert", "tls_key", "tls_delay")
    options = Options(**{name: getattr(args, name) for name in fields})
    try:
        import uvloop  # noqa: PLC0415 - only makes it faster
    except ImportError:
        loop_factory = asyncio.new_event_loop
    else:
        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_until_stopped(options))
    except OSError as error:
        sys.stderr.write(f"mock provider {options.name} cannot serve: {error}\n")
        return 1
    return 0


async def _until_stopped(options: Options) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await serve(options)
    sys.stdout.write(f"mock provider {options.name} listening on {server.url}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.close()


async def serve(options: Options) -> Server:
    """Start a mock provider in this event loop."""
    from extproc.mock import server  # noqa: PLC0415 - h11 comes with the extra `local` only

    return await server.start(options)

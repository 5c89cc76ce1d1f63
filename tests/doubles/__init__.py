"""The strict doubles: deterministic providers for tests. They speak every API and refuse what the real APIs refuse.

They extend the built-in mock with the same server and log and with further faults. Unlike the mock's, their APIs share
no code with the gateway. `python -m tests.doubles --help` tells how to start one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from extproc.upstream import mock
from tests.doubles import faults
from tests.doubles.provider import Double
from tests.doubles.server import Options, Server

__all__ = ["Options", "add_arguments", "run", "serve"]

_EPILOG = """\
Every dialect is spoken, each at the paths of its API: OpenAI's chat completions, responses, embeddings and models,
Anthropic's messages (also as Vertex and Bedrock have them), Gemini (also as Vertex has it), Bedrock's Converse and
Titan, Cohere. Requests are checked as the real APIs check them, and the same words get the same answer in each; what
makes it call tools or think is told in tests/doubles/scene.py. Signatures of AWS are verified if AWS_SECRET_ACCESS_KEY
is set. GET /requests, PUT and DELETE /control, and GET /healthz are those of `extproc mock`.

"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `extproc mock`, and those of TLS."""
    mock.add_arguments(parser, faults.parse)
    parser.epilog = (_EPILOG + faults.__doc__).replace("%", "%%")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    seconds = mock.checked(mock.faults.seconds)
    parser.add_argument("--tls-delay", type=seconds, default=0.0, metavar="TIME", help="wait before the handshake")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    return mock.run(args, Options, serve)


async def serve(options: Options) -> Server:
    """Start a double in this event loop."""
    return await Server(Double(options), options).listen()

"""A processor that does nothing, on either transport, to measure the transport alone. `python -m bench.noop`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import uvloop

from extproc.envoy.server import access_log, answers, wire
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Transport
from extproc.wire.transport.grpcio_server import GrpcioServer
from extproc.wire.transport.native import NativeServer
from extproc.wire.transport.server_tls import MutualTLS

_HEADERS = pb.HeadersResponse(response=pb.CommonResponse())
_BODY = pb.BodyResponse(response=pb.CommonResponse())
ANSWERS: dict[str, Sequence[bytes]] = {
    "request_headers": (pb.ProcessingResponse(request_headers=_HEADERS).SerializeToString(),),
    "request_body": (pb.ProcessingResponse(request_body=_BODY).SerializeToString(),),
    "response_headers": (pb.ProcessingResponse(response_headers=_HEADERS).SerializeToString(),),
    "response_body": (pb.ProcessingResponse(response_body=_BODY).SerializeToString(),),
}


class Nothing:
    """One ext_proc stream. Each message is answered with "continue", or with what `--answers` says."""

    done = False

    async def on_message(self, data: bytes) -> Sequence[bytes]:
        message = pb.ProcessingRequest.FromString(data)
        phase = message.WhichOneof("request")
        if phase == "response_body" and phase not in ANSWERS:  # it was asked for, and goes back
            return (answers.piece(message.response_body.body, message.response_body.end_of_stream),)
        return ANSWERS[phase]

    async def on_half_close(self) -> Sequence[bytes]:
        return ()

    async def on_end(self) -> None:
        """Nothing to close."""


class Unread(Nothing):
    """One stream of access log entries, which nobody reads."""

    async def on_message(self, _data: bytes) -> Sequence[bytes]:
        return ()


async def serve(transport: str, path: str, tls: MutualTLS | None) -> None:
    """`path`: a socket, or with `tls` host:port."""
    calls = {
        f"/{wire.SERVICE}/{wire.METHOD}": lambda _metadata: Nothing(),
        f"/{access_log.SERVICE}/{access_log.METHOD}": lambda _metadata: Unread(),
    }
    server: Transport
    if tls is not None:
        server = GrpcioServer(calls, address=path, tls=tls)
    else:
        server = {"native": NativeServer, "grpcio": GrpcioServer}[transport](calls, path)
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["native", "grpcio"], required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--tls", type=Path, help="folder of tls.crt, tls.key, ca.crt; the socket is host:port then")
    parser.add_argument("--answers", type=Path, help="JSON: by phase, the messages to answer with, in base64")
    options = parser.parse_args()
    if options.answers is not None:
        recorded = json.loads(options.answers.read_text())
        ANSWERS.clear()
        ANSWERS.update({phase: [b64decode(answer) for answer in found] for phase, found in recorded.items()})
    files = [str(options.tls / name) for name in ("tls.crt", "tls.key", "ca.crt")] if options.tls else []
    secured = MutualTLS(*files, ["localhost"], lambda *_files: "") if files else None
    uvloop.run(serve(options.transport, options.socket, secured))

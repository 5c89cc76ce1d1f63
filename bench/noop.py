"""A processor that does nothing, on either transport, to measure the transport alone. `python -m bench.noop`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence

import uvloop

from extproc.pb import extproc_pb2 as pb
from extproc.server import wire
from extproc.transport.grpcio_server import GrpcioServer
from extproc.transport.native import NativeServer

_HEADERS = pb.HeadersResponse(response=pb.CommonResponse())
_BODY = pb.BodyResponse(response=pb.CommonResponse())
ANSWERS = {
    "request_headers": pb.ProcessingResponse(request_headers=_HEADERS).SerializeToString(),
    "request_body": pb.ProcessingResponse(request_body=_BODY).SerializeToString(),
    "response_headers": pb.ProcessingResponse(response_headers=_HEADERS).SerializeToString(),
    "response_body": pb.ProcessingResponse(response_body=_BODY).SerializeToString(),
}


class Nothing:
    """One ext_proc stream. Each message is answered with "continue"."""

    done = False

    async def on_message(self, data: bytes) -> Sequence[bytes]:
        return (ANSWERS[pb.ProcessingRequest.FromString(data).WhichOneof("request")],)

    async def on_half_close(self) -> Sequence[bytes]:
        return ()

    async def on_end(self) -> None:
        """Nothing to close."""


async def serve(transport: str, path: str) -> None:
    calls = {f"/{wire.SERVICE}/{wire.METHOD}": lambda _metadata: Nothing()}
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
    options = parser.parse_args()
    uvloop.run(serve(options.transport, options.socket))

"""An endpoint picker of another project, as the Gateway API Inference Extension defines the protocol."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from extproc.wire.pb import extproc_pb2 as pb

KEY = "x-gateway-destination-endpoint"


class ExternalPicker:
    """A picker on 127.0.0.1 that sends every request to `chosen`. `status`: it refuses with that status. `asked` are
    the bodies it read, `served` the endpoints that it was told.
    """

    def __init__(self) -> None:
        self.chosen = ""
        self.status = 0
        self.asked: list[Any] = []
        self.served: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.start()

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(0), self._loop).result(10)

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handler = grpc.stream_stream_rpc_method_handler(
            self._process, pb.ProcessingRequest.FromString, pb.ProcessingResponse.SerializeToString
        )
        service = "envoy.service.ext_proc.v3.ExternalProcessor"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Process": handler}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def _process(self, messages: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        body = b""
        async for message in messages:
            phase = message.WhichOneof("request")
            if phase == "request_headers" and message.request_headers.end_of_stream:
                yield self._choice()
            elif phase == "request_body":
                body += message.request_body.body
                if message.request_body.end_of_stream:
                    self.asked.append(json.loads(body))
                    if self.status:
                        yield pb.ProcessingResponse(immediate_response={"status": {"code": self.status}})
                        return
                    yield self._choice()
                    yield _piece("request_body", body, end=True)
            elif phase == "response_headers":
                told = message.metadata_context.filter_metadata["envoy.lb"].fields
                self.served.append(told[f"{KEY}-served"].string_value)
                yield pb.ProcessingResponse(response_headers={"response": {}})
            elif phase == "response_body":
                part = message.response_body
                yield _piece("response_body", part.body, end=part.end_of_stream)
            elif phase in ("request_trailers", "response_trailers"):
                yield pb.ProcessingResponse(**{phase: {}})

    def _choice(self) -> Any:
        header = {"header": {"key": KEY, "raw_value": self.chosen.encode()}, "append_action": 2}
        answer = pb.ProcessingResponse(
            request_headers={"response": {"header_mutation": {"set_headers": [header]}, "clear_route_cache": True}}
        )
        answer.dynamic_metadata.update({"envoy.lb": {KEY: self.chosen}})
        return answer


def _piece(phase: str, body: bytes, *, end: bool) -> Any:
    streamed = {"streamed_response": {"body": body, "end_of_stream": end}}
    return pb.ProcessingResponse(**{phase: {"response": {"body_mutation": streamed}}})

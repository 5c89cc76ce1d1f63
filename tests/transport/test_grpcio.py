"""The official library's moments that no client can bring about on purpose."""

import asyncio

import grpc.aio

from extproc.wire.transport.grpcio_server import GrpcioServer
from tests.transport.services import Services


class LeftContext:
    """The library's side of a call whose client has cancelled it: nothing can be sent any more."""

    async def read(self):
        return b"[2, 0]"

    async def write(self, answer):
        raise grpc.aio.InternalError("execute_batch")

    async def abort(self, code, details):
        raise grpc.aio.InternalError("execute_batch")

    def invocation_metadata(self):
        return ()


async def test_a_client_that_leaves_while_an_answer_is_sent_is_no_bug(tmp_path, caplog):
    services = Services()
    server = GrpcioServer(services.calls(), str(tmp_path / "extproc.sock"))
    await server._serve("/test.Service/Steps", services.calls()["/test.Service/Steps"], None, LeftContext())
    assert services.last.ends == 1
    assert caplog.text == ""


async def test_a_stop_survives_a_client_that_leaves_in_its_moment(tmp_path):
    server = GrpcioServer(Services().calls(), str(tmp_path / "extproc.sock"))
    await server.start()
    server._calls[LeftContext()] = None
    await asyncio.wait_for(server.stop(0), 5)


class AbortedContext(LeftContext):
    """The library's side of a call that has just ended itself with an error."""

    async def abort(self, code, details):
        raise grpc.aio.UsageError("Abort already called!")


async def test_a_stop_survives_a_call_that_fails_in_its_moment(tmp_path):
    server = GrpcioServer(Services().calls(), str(tmp_path / "extproc.sock"))
    await server.start()
    server._calls[AbortedContext()] = None
    await asyncio.wait_for(server.stop(0), 5)

"""Conversations with the native transport, and servers that run it."""

import asyncio

import pytest
import uvloop

from extproc.wire.transport import TransportLimits
from extproc.wire.transport.grpcio_server import GrpcioServer
from extproc.wire.transport.native import NativeServer
from tests.transport.peers import Talk
from tests.transport.services import Services


def pytest_asyncio_loop_factories(config, item):
    """The gateway runs on uvloop. The native transport is tested on asyncio's own loop too."""
    loops = {"uvloop": uvloop.new_event_loop}
    return loops | {"asyncio": asyncio.new_event_loop} if item.path.name == "test_native.py" else loops


@pytest.fixture(params=[False, True], ids=["whole", "byte by byte"])
def talk(request):
    """`talk(limits)`: a connection that is fed whole, then byte by byte."""
    made = []

    def make(limits=None, **more):
        made.append(Talk(limits, bytewise=request.param, **more))
        return made[-1]

    yield make
    for one in made:
        one.check()


class Running:
    """A transport that serves `services` at `path`."""

    def __init__(self, kind, path):
        self.kind = kind
        self.path = str(path)
        self.services = Services()
        self.server = None

    async def start(self, limits=None):
        server = {"native": NativeServer, "grpcio": GrpcioServer}[self.kind]
        self.server = server(self.services.calls(), self.path, limits=limits or TransportLimits(message=32 << 20))
        await self.server.start()
        return self

    async def stop(self, grace=0.0):
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop(grace)
            self.services.check()


@pytest.fixture(params=["native", "grpcio"])
async def running(request, tmp_path):
    """A running transport. After the test it is stopped; by then every call has ended exactly once."""
    one = Running(request.param, tmp_path / "extproc.sock")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def native(tmp_path):
    """Starts the native transport with the given limits."""
    made = []

    async def make(limits=None):
        made.append(await Running("native", tmp_path / f"{len(made)}.sock").start(limits))
        return made[-1]

    yield make
    for one in made:
        await one.stop()

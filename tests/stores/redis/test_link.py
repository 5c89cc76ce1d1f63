"""The connection to Redis when the server does not answer."""

import asyncio
import socket
import time
from types import SimpleNamespace

import pytest
import uvloop
from redis.asyncio import Connection

from extproc.stores import StoreError
from extproc.stores.redis import RedisURL
from extproc.stores.redis.link import RedisLink, _Line, packed
from extproc.stores.redis.silence import Silence
from extproc.wire.outbound.breaker import FAILURES
from extproc.wire.transport.steps import Begun


@pytest.fixture
def mute():
    """A port that accepts connections and stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_connection_that_another_call_gave_up_is_a_failure_and_no_cancellation(mute):
    """A call that ended as cancelled would leave Envoy without an answer."""
    link = RedisLink(RedisURL("127.0.0.1", mute), "{x}", "return 1", "0" * 40, Silence(0.1, 60))

    async def late():
        await asyncio.sleep(0.05)
        await link.call("levels")

    calls = [asyncio.create_task(link.call("levels")) for _ in range(FAILURES)] + [asyncio.create_task(late())]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(error, StoreError) for error in found] == [True] * len(calls), found
    await link.close()


async def test_a_cancelled_call_stays_cancelled(mute):
    link = RedisLink(RedisURL("127.0.0.1", mute), "{x}", "return 1", "0" * 40, Silence(5.0, 60))
    calls = [asyncio.create_task(link.call("levels")) for _ in range(2)]
    await asyncio.sleep(0.05)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    assert not calls[1].done()
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await link.close()


async def test_a_call_may_begin_outside_of_a_task(mute):
    """The first step of a gRPC call does so."""
    link = RedisLink(RedisURL("127.0.0.1", mute), "{x}", "return 1", "0" * 40, Silence(0.05, 60))
    loop = asyncio.get_running_loop()
    found = loop.create_future()

    def begin():
        assert asyncio.current_task() is None
        call = link.call("levels")
        found.set_result(loop.create_task(Begun(call, call.send(None))))

    loop.call_soon(begin)
    with pytest.raises(StoreError, match="no answer within 50 ms"):
        await (await found)
    await link.close()


def test_a_connection_that_closed_in_this_turn_is_a_failure_and_no_bug(mute):
    """To write to it is a RuntimeError in uvloop, before its reader has seen the end."""

    async def scenario():
        _, writer = await asyncio.open_connection("127.0.0.1", mute)
        silent = asyncio.get_running_loop().create_future()
        connection = SimpleNamespace(
            _writer=writer,
            pack_command=lambda *_: [b"x"],
            read_response=lambda **_: silent,
            disconnect=lambda **_: asyncio.sleep(0),
        )
        line = _Line(connection, Silence(0.1, 60))
        writer.transport.abort()
        with pytest.raises(ConnectionError):
            await line.ask("PING")
        await line.close()

    uvloop.run(scenario())


def test_a_pause_of_the_process_does_not_use_up_the_patience():
    """What arrived in the pause is read by a task, some turns of the loop after the timer that is overdue."""

    async def wait() -> str:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)

            def hear() -> None:
                loop.remove_reader(ours)
                loop.call_soon(loop.call_soon, lambda: answer.done() or answer.set_result("heard"))

            loop.add_reader(ours, hear)
            waiting = asyncio.create_task(Silence(0.1, 0.2).wait(answer))
            await asyncio.sleep(0)
            theirs.send(b"x")
            time.sleep(0.5)  # the process stands still, and the answer arrives
            return await waiting

    assert uvloop.run(wait()) == "heard"


def test_a_command_is_packed_as_the_client_packs_it():
    client = Connection(encoding_errors="surrogatepass")
    for command in (("PING",), ("EVALSHA", "a" * 40, "1", "{x}", "ü", b"\0\r\n", "\ud800", "")):
        assert packed(command) == b"".join(client.pack_command(*command))

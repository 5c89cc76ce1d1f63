"""The native transport on asyncio: grouping of writes, tasks, connections, start and stop."""

import ast
import asyncio
import logging
import socket
import stat
from pathlib import Path

import grpc.aio
import pytest

import extproc
from extproc.wire.transport import TransportLimits
from extproc.wire.transport.native import NativeServer, Peer
from tests.transport.conftest import Running
from tests.transport.h2_peer import H2Peer, RawPeer
from tests.transport.peers import PING, begin, data, frame, message, parsed, request, reset, settings, window
from tests.transport.peers import grpc as grpc_message
from tests.transport.services import Services

MOST = (1 << 31) - 1


class Wire:
    """A transport of asyncio's that keeps the written bytes."""

    def __init__(self):
        self.writes = []
        self.closed = self.aborted = self.paused = False

    def set_write_buffer_limits(self, high):
        self.high = high

    def write(self, data):
        assert not self.closed
        self.writes.append(parsed(data))

    def is_closing(self):
        return self.closed

    def write_eof(self):
        self.closed = True

    def abort(self):
        self.closed = self.aborted = True

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


class Wired:
    """A connection without a socket."""

    def __init__(self, limits=None):
        self.services = Services()
        self.server = NativeServer(self.services.calls(), "/nowhere", limits)
        self.wire, self.peer = self.connect()
        self.tell(begin(window=MOST), window(0, MOST - 65_535))
        self.heard()

    def connect(self):
        wire, peer = Wire(), Peer(self.server)
        peer.connection_made(wire)
        return wire, peer

    def tell(self, *frames):
        self.peer.data_received(b"".join(frames))

    def heard(self):
        """Names and streams of the frames in each write since the last call."""
        writes, self.wire.writes = self.wire.writes, []
        return [[(name, id) for name, id, _ in write] for write in writes]


@pytest.fixture
async def wired():
    return Wired()


def echo(id, *messages, method="Echo", end=False):
    return (
        request(id, path=f"/test.Service/{method}")
        + b"".join(message(id, one) for one in messages)
        + (data(id, end=True) if end else b"")
    )


# --- writes


async def test_answers_to_one_read_leave_in_one_write(wired):
    wired.tell(echo(1, b"a", b"b"), echo(3, b"c", method="Twice"), frame(PING, 0, 0, b"12345678"), echo(5, end=True))
    [write] = wired.heard()
    assert sorted(write) == sorted(
        [
            *[("Headers", 1), ("Data", 1), ("Data", 1)],
            *[("Headers", 3), ("Data", 3), ("Data", 3)],
            *[("Ping", 0), ("Headers", 5)],
        ]
    )


async def test_the_end_leaves_with_the_last_answer(wired):
    wired.tell(echo(1, b"a", end=True), echo(3, b"b", method="Once"))
    assert wired.heard() == [
        [("Headers", 1), ("Data", 1), ("Headers", 1), ("Headers", 3), ("Data", 3), ("Headers", 3), ("RstStream", 3)]
    ]


async def test_calls_released_together_leave_in_one_write(wired):
    for id in (1, 3, 5):
        wired.tell(echo(id, b"x", method="Slow"))
    assert wired.heard() == []
    wired.services.go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert wired.heard() == [[(name, id) for id in (1, 3, 5) for name in ("Headers", "Data")]]


async def test_an_empty_write_is_not_made(wired):
    wired.tell(echo(1, b"a", method="Sum"), reset(1))
    assert wired.heard() == []


# --- no task unless a call waits


async def test_calls_that_do_not_wait_create_no_tasks(wired):
    wired.tell(*(echo(id, b"a", b"b", method="Twice", end=True) for id in range(1, 21, 2)))
    assert len(asyncio.all_tasks()) == 1 + 10, "only their ends wait, in these services"
    assert [call.heard for call in wired.services.made] == [[b"a", b"b"]] * 10


async def test_a_call_may_be_cancelled_before_its_task_has_run(wired):
    """The call still learns of it, because it may hold a reservation."""
    wired.tell(echo(1, method="Slow"))
    wired.tell(message(1, b"a"), message(1, b"b"), reset(1))
    [call] = wired.services.made
    await wired.services.ended(call)
    assert (call.cancelled, call.heard, call.ends) == (True, [b"a"], 1)


async def test_turn():
    """A large read is handled in turns with other work, and completely, without further reads."""
    wired = Wired(TransportLimits(turn=10))
    wired.tell(echo(1), echo(3, b"a"), message(1, b"x") * 5000)
    first, second = wired.services.made
    assert (len(first.heard), len(second.heard)) == (7, 1), "two began, and eight messages"
    wired.heard()
    for turn in range(2, 500):
        await asyncio.sleep(0)
        assert len(first.heard) == min(10 * turn - 3, 5000)
        [write] = wired.heard()
        assert len(write) <= 13
    while len(first.heard) < 5000:
        await asyncio.sleep(0)


async def test_a_peer_that_does_not_read_gets_no_turn():
    wired = Wired(TransportLimits(turn=10))
    wired.tell(echo(1), message(1, b"x") * 100)
    [call] = wired.services.made
    assert len(call.heard) == 9
    wired.peer.pause_writing()
    for _ in range(5):
        await asyncio.sleep(0)
    wired.tell(message(1, b"y"))
    assert len(call.heard) == 9
    wired.peer.resume_writing()
    for _ in range(12):
        await asyncio.sleep(0)
    assert len(call.heard) == 101


async def test_waiting_messages_of_a_reset_call_are_dropped(wired):
    """The client never saw an answer that depends on them."""
    wired.tell(echo(1))
    wired.tell(message(1, b"a"), message(1, b"b"), reset(1))
    [call] = wired.services.made
    await wired.services.ended(call)
    assert call.heard == [b"a"]


async def test_messages_before_the_reset_of_an_answered_call_are_handled(wired):
    wired.tell(request(1, path="/test.Service/Echo"), message(1, b"a"))
    wired.tell(message(1, b"b"), message(1, b"c"), message(1, b"d"), reset(1))
    await asyncio.sleep(0.01)
    [call] = wired.services.made
    assert (call.heard, call.ends) == ([b"a", b"b", b"c", b"d"], 1)


async def test_none_is_handled_beside_a_message_that_waits(wired):
    wired.tell(request(1, path="/test.Service/Later"), message(1, b"a"))
    await asyncio.sleep(0.01)
    wired.tell(message(1, b"b"), message(1, b"c"), reset(1))
    await asyncio.sleep(0.01)
    [call] = wired.services.made
    assert (call.heard, call.ends) == ([b"a", b"b"], 1)


async def test_a_call_reset_in_the_same_read_is_not_made(wired):
    wired.tell(echo(1, b"a"), reset(1), echo(3, b"b"))
    assert [call.heard for call in wired.services.made] == [[b"b"]]


@pytest.mark.parametrize("ends", ["lost", "stopped"])
async def test_a_call_still_waiting_for_its_turn_is_not_made_after_the_end(ends):
    wired = Wired(TransportLimits(turn=1))
    wired.tell(echo(1), echo(3), echo(5))
    if ends == "lost":
        wired.peer.connection_lost(None)
    else:
        wired.peer.end()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [call.ends for call in wired.services.made] == [1]


async def test_thousands_of_messages_may_wait_for_one(wired):
    wired.tell(echo(1, method="Slow"), message(1, b"x") * 5000, data(1, end=True))
    [call] = wired.services.made
    assert call.heard == [b"x"]
    wired.services.go.set()
    await wired.services.ended(call)
    assert len(call.heard) == 5000


async def test_a_failed_call_does_not_stop_the_others(wired, caplog):
    wired.tell(echo(1, b"now", method="Fail"), echo(3, b"x", method="Unmade"), echo(5, b"a"))
    [write] = wired.heard()
    assert write == [
        *[("Headers", 1), ("RstStream", 1), ("Headers", 3), ("RstStream", 3)],
        *[("Headers", 5), ("Data", 5)],
    ]
    await wired.services.ended(wired.services.made[0])
    assert [call.ends for call in wired.services.made] == [1, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "a call of /test.Service/Fail failed: a bug",
        "a call of /test.Service/Unmade failed: a bug",
    ]


async def test_a_call_that_fails_after_its_client_disconnected_is_logged(wired, caplog):
    wired.tell(echo(1, b"late", method="Fail"))
    await asyncio.sleep(0)
    wired.tell(reset(1))
    await wired.services.ended()
    assert caplog.records == [], "cancelled is not failed"
    wired.tell(echo(3, end=True, method="FailAtTheEnd"))
    assert [record.getMessage() for record in caplog.records] == ["a call of /test.Service/FailAtTheEnd failed: a bug"]


async def test_a_deadline_is_left_to_the_client(native):
    running = await native()
    async with H2Peer.connect(running.path) as peer:
        id = peer.begin("Slow", ("grpc-timeout", "1m"))
        await peer.send(id, b"x", end=True)
        await asyncio.sleep(0.1)
        running.services.go.set()
        answer = await peer.answer(id)
        assert (answer.messages, answer.status) == ([b"x"], 0)


async def test_a_refusal_of_compressed_messages_names_the_encoding(native):
    running = await native()
    async with grpc.aio.insecure_channel(f"unix:{running.path}", compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test.Service/Echo")(b"x" * 1000)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


# --- the end of a connection


async def test_a_broken_peer_gets_a_goaway_and_its_calls_end(wired, caplog):
    wired.tell(echo(1, b"a"), echo(3, b"b", method="Slow"))
    wired.heard()
    with caplog.at_level(logging.WARNING):
        wired.tell(echo(5, b"c"), data(0, b"x"), echo(7, b"never"))
    assert wired.heard() == [[("GoAway", 0), ("Headers", 5), ("Data", 5)]]
    assert wired.wire.closed
    assert "PROTOCOL_ERROR" in caplog.text
    wired.peer.connection_lost(None)
    for call in wired.services.made:
        await wired.services.ended(call)
    assert [call.ends for call in wired.services.made] == [1, 1, 1]
    assert wired.server.peers == set()


async def test_a_broken_peer_that_does_not_close_is_closed(native, caplog):
    running = await native()
    async with RawPeer.connect(running.path) as peer:
        peer.tell(data(0, b"x"))
        async with asyncio.timeout(5):
            await peer.to_the_end()
            assert peer.heard[-1][0] == "GoAway"
            peer.tell(data(0, b"x"))
            while running.server.peers:
                await asyncio.sleep(0.05)


async def test_a_peer_that_does_not_read_is_not_read_from(wired):
    wired.peer.pause_writing()
    assert wired.wire.paused
    wired.peer.resume_writing()
    assert not wired.wire.paused


async def test_unread(native):
    """With wide windows, a client that keeps asking and never reads is owed little more than the limit."""
    running = await native(TransportLimits(unread=100_000))
    reader, writer = await asyncio.open_unix_connection(running.path)
    writer.transport.pause_reading()
    writer.write(begin(window=MOST) + window(0, MOST - 65_535))
    writer.write(request(1, path="/test.Service/Count"))
    for _ in range(2000):
        writer.write(message(1, b"[1, 10000]"))
    await asyncio.sleep(0.3)
    [peer] = running.server.peers
    assert len(running.services.last.heard) < 2000
    owed = peer._transport.get_write_buffer_size()
    assert owed > 100_000
    writer.transport.resume_reading()
    while len(running.services.last.heard) < 2000:
        assert await reader.read(1 << 20)
    writer.close()


async def test_connections(native):
    running = await native(TransportLimits(connections=2))
    peers = [await asyncio.open_unix_connection(running.path) for _ in range(3)]
    assert await peers[2][0].read() == b""
    assert [len(await reader.read(9)) for reader, _ in peers[:2]] == [9, 9]
    peers[0][1].close()
    while len(running.server.peers) == 2:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_unix_connection(running.path)
    assert len(await reader.read(9)) == 9
    for _, one in [*peers, (reader, writer)]:
        one.close()


# --- start and stop


async def test_only_the_owner_can_connect(native):
    running = await native()
    assert stat.S_IMODE(Path(running.path).stat().st_mode) == 0o600


async def test_the_socket_of_a_killed_process_is_removed(native, tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "0.sock"))
    running = await native()
    async with H2Peer.connect(running.path) as peer:
        await peer.hear()


@pytest.mark.parametrize("taken", ["file", "socket"])
async def test_a_file_or_a_served_socket_at_the_path_is_kept(tmp_path, taken):
    path = tmp_path / "there"
    other = socket.socket(socket.AF_UNIX)
    with other:
        if taken == "file":
            path.write_text("mine")
        else:
            other.bind(str(path))
            other.listen()
        with pytest.raises(OSError, match="is no socket" if taken == "file" else "another process serves"):
            await NativeServer({}, str(path)).start()
        assert path.exists()


async def test_an_impossible_path_is_an_error(tmp_path):
    with pytest.raises(OSError):
        await NativeServer({}, str(tmp_path / ("a" * 200))).start()


async def test_a_socket_that_was_deleted_is_made_again(native):
    running = await native()
    path = Path(running.path)

    async def accepted(count):
        while len(running.server.peers) < count:
            await asyncio.sleep(0.01)

    reader, first = await asyncio.open_unix_connection(path)
    await accepted(1)
    assert await running.server.look() == ""
    path.unlink()
    assert await running.server.look() == ""
    assert path.stat().st_mode & 0o777 == 0o600
    _, second = await asyncio.open_unix_connection(path)
    await accepted(2)
    assert not reader.at_eof(), "connections that are open go on"
    for writer in (first, second):
        writer.close()
        await writer.wait_closed()
    await running.stop()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["native", "grpcio"])
async def test_a_socket_that_cannot_be_made_again_is_a_reason(tmp_path, kind):
    (tmp_path / "there").mkdir()
    running = await Running(kind, tmp_path / "there" / "extproc.sock").start()
    path = Path(running.path)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")
    assert "was deleted" in await running.server.look() or kind == "native"
    assert str(path) in await running.server.look()
    path.parent.unlink()
    if kind == "native":
        assert await running.server.look() == ""
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            assert await running.server.look() == f"another process serves {path}"
    await running.stop()


async def test_a_stop_removes_only_its_own_socket(native):
    running = await native()
    await running.stop()
    assert not Path(running.path).exists()
    await running.start()
    Path(running.path).unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(running.path)
        await running.stop()
        assert Path(running.path).exists()


async def test_a_server_that_was_never_started_can_be_stopped(tmp_path):
    await NativeServer({}, str(tmp_path / "s")).stop(0.0)


async def test_a_stop_waits_for_every_call_to_end(native):
    running = await native()
    async with RawPeer.connect(running.path) as peer:
        for id, method in ((1, "Slow"), (3, "Echo"), (5, "Stubborn")):
            peer.tell(echo(id, b"x", method=method))
        while len(running.services.made) < 3:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.stop(0.0))
        await peer.to_the_end()
        await stopping
    assert [call.ends for call in running.services.made] == [1, 1, 1]
    assert [call.cancelled for call in running.services.made] == [True, False, True]
    statuses = [what for name, _, what in peer.heard if name == "Headers" and "END_STREAM" in what.flags]
    assert len(statuses) == 3, "each is told that it ends"


async def test_a_peer_that_never_answers_does_not_hold_up_a_stop(native):
    running = await native()
    _, writer = await asyncio.open_unix_connection(running.path)
    writer.transport.pause_reading()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await running.stop(0.1)
    writer.close()


async def test_a_slow_reader_gets_its_last_answer_whole(native):
    """Reading takes longer than the closing handshake may."""
    running = await native()
    async with RawPeer.connect(running.path) as peer:
        peer.tell(settings(window=MOST), window(0, MOST - 65_535))
        peer.tell(request(1, path="/test.Service/Echo"), message(1, b"small"))
        await peer.until("Data", 1)
        peer.tell(echo(3, method="Count"), message(3, b"[100, 30000]", end=True), data(1, end=True))
        while len(running.services.made) < 2 or not running.services.last.ends:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.stop(20.0))
        await peer.until("GoAway")
        await asyncio.sleep(1.5)
        await peer.to_the_end()
        await stopping
    answers = b"".join(what for name, id, what in peer.heard if (name, id) == ("Data", 3))
    assert answers == b"".join(grpc_message(b"%d" % number + b"." * 30_000) for number in range(100))


async def test_settings_and_windows_between_the_two_goaways_still_work(native):
    """Open calls continue between the two GOAWAYs of a drain."""
    running = await native()
    async with RawPeer.connect(running.path) as peer:
        peer.tell(settings(window=10), request(1, path="/test.Service/Echo"), message(1, b"0123456789"))
        await peer.until("Data", 1)
        stopping = asyncio.create_task(running.stop(10.0))
        await peer.until("GoAway", count=2)
        peer.tell(window(1, 100), data(1, end=True))
        await peer.to_the_end()
        await stopping
    assert b"".join(what for name, _, what in peer.heard if name == "Data") == b"\0\0\0\0\x0a0123456789"


# --- code that needs a task

NEEDS_A_TASK = {"timeout", "timeout_at", "TaskGroup", "current_task", "wait_for"}
HAS_ONE = {
    "stores/redis/link.py": "connects in a task of its own",
    "wire/transport/grpcio_server.py": "grpc runs each call in a task",
    "wire/outbound/client.py": "is asked by tasks of their own, tokens and alerts, or in a loop of its own",
    "wire/outbound/service.py": "is asked in tasks of their own, see `together`",
    "upstream/credentials/asking.py": "is asked in tasks of their own, see `Poller`",
    "upstream/credentials/rotation.py": "is a task of its own",
    "money/accounting/alerts.py": "is a task of its own",
    "envoy/server/discovery.py": "offers in the task of reloads",
    "tools/mcp/link.py": "asks in tasks of its own, or behind a wait",
    "tools/mcp/servers.py": "is a task of its own; requests wait before they need one",
    "operate/admin/siblings.py": "runs in the HTTP servers' loop",
    "operate/admin/handling.py": "runs in the HTTP servers' loop",
    "operate/admin/spare.py": "runs in the HTTP servers' loop",
    "envoy/server/pools.py": "follows pools in tasks of its own",
    "envoy/server/slices.py": "as pools.py",
    "routing/pools/placing.py": "sleeps before it waits for room",
    "routing/shadow.py": "posts in a task of its own",
}


def test_code_that_needs_a_task_has_one():
    """A step of a call begins outside of a task, see `extproc.wire.transport.GrpcCall`. The table says why each module
    has one.
    """
    root = Path(extproc.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in NEEDS_A_TASK and ast.unparse(node.value) == "asyncio":
                found.add(path.relative_to(root).as_posix())
    assert {one for one in found if not one.startswith("upstream/mock/")} == set(HAS_ONE)

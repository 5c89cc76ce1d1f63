"""The same calls on both transports, made by the official client and by h2, which checks the protocol strictly."""

import asyncio
import contextlib
import json

import grpc
import grpc.aio
import pytest

from extproc.wire.transport import TransportLimits
from tests.transport.h2_peer import H2Peer, RawPeer
from tests.transport.peers import PING, data, frame, message, request, settings, window
from tests.transport.peers import grpc as framed

MIB = 1 << 20
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@pytest.fixture
async def channel(running):
    async with grpc.aio.insecure_channel(f"unix:{running.path}", options=OPTIONS) as made:
        yield made


@pytest.fixture
async def peer(running):
    async with H2Peer.connect(running.path) as made:
        yield made


def bidi(channel, method, **options):
    return channel.stream_stream(f"/test.Service/{method}")(**options)


async def said(call):
    """Every answer of a call, and its status."""
    answers = []
    try:
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    except grpc.aio.AioRpcError:
        pass
    return answers, await call.code()


# --- the official client


async def test_unary_calls_are_answered(channel):
    assert await channel.unary_unary("/test.Service/Echo")(b"hello") == b"hello"
    assert await channel.unary_unary("/test.Service/Echo")(b"") == b""


async def test_client_streams_are_answered(channel):
    async def messages():
        for number in range(100):
            yield b"x" * number

    assert json.loads(await channel.stream_unary("/test.Service/Sum")(messages())) == [100, 4950]


async def test_an_empty_client_stream_is_answered(channel):
    call = channel.stream_unary("/test.Service/Sum")()
    await call.done_writing()
    assert json.loads(await call) == [0, 0]


async def test_a_call_may_speak_and_end_while_its_client_is_silent(channel):
    call, other = bidi(channel, "Silent"), bidi(channel, "Silent")
    await call.write(b"hello")
    assert await said(call) == ([b"hello", b"there", b"tired"], grpc.StatusCode.OK)
    await other.done_writing()
    assert await said(other) == ([], grpc.StatusCode.OK)


async def test_a_message_may_be_answered_in_steps_before_the_next_one(channel):
    call = bidi(channel, "Steps")
    for steps in (b"[300, 0]", b"[1, 0]", b"[2, 0]"):
        await call.write(steps)
    await call.done_writing()
    left = [*range(299, -1, -1), 0, 1, 0]
    assert await said(call) == ([b"%d" % number for number in left], grpc.StatusCode.OK)


async def test_other_calls_have_turns_between_the_steps_of_one(running, channel):
    long = bidi(channel, "Steps")
    await long.write(b"[20000, 0]")
    await long.read()
    assert await channel.unary_unary("/test.Service/Later")(b"other") == b"other"
    assert running.services.made[0].more, "it is not over"
    long.cancel()


async def test_a_step_waits_until_its_peer_has_taken_those_before(running, channel):
    """The window of the official client is 64 KiB; its library reads ahead by a few messages."""
    call = bidi(channel, "Steps")
    await call.write(b"[500, 100000]")
    await call.read()
    await asyncio.sleep(0.3)
    assert running.services.last.steps < 250
    call.cancel()
    assert (await running.services.ended()).ends == 1


async def test_server_streams_are_sent(channel):
    answers = [answer async for answer in channel.unary_stream("/test.Service/Count")(b"[100, 1000]")]
    assert answers == [b"%d" % number + b"." * 1000 for number in range(100)]


async def test_an_empty_server_stream_ends_well(channel):
    assert [answer async for answer in channel.unary_stream("/test.Service/Count")(b"[0, 0]")] == []


@pytest.mark.parametrize("method", ["Echo", "Later"])
async def test_both_sides_may_take_turns(channel, running, method):
    call = bidi(channel, method)
    for number in range(50):
        await call.write(b"%d" % number)
        assert await call.read() == b"%d" % number
    await call.done_writing()
    assert await said(call) == ([], grpc.StatusCode.OK)
    assert len((await running.services.ended()).heard) == 50


@pytest.mark.parametrize("method", ["Twice", "Later"])
async def test_the_client_may_send_ahead_of_the_answers(channel, method):
    call = bidi(channel, method)
    for number in range(200):
        await call.write(b"%d" % number)
    await call.done_writing()
    times = 2 if method == "Twice" else 1
    expected = [b"%d" % number for number in range(200) for _ in range(times)]
    assert await said(call) == (expected, grpc.StatusCode.OK)


async def test_metadata_reaches_the_call(channel):
    call = bidi(channel, "Metadata", metadata=(("x-extproc-attachment", "attempt"), ("x-a", "b")))
    await call.write(b"")
    found = json.loads(await call.read())
    assert (found["x-extproc-attachment"], found["x-a"]) == ("attempt", "b")
    call.cancel()


async def test_a_handler_may_end_a_call_early(channel, running):
    call = bidi(channel, "Once")
    await call.write(b"only")
    assert await said(call) == ([b"only"], grpc.StatusCode.OK)
    await running.services.ended()


async def test_a_handler_may_end_a_call_without_an_answer(channel):
    call = bidi(channel, "Never")
    await call.write(b"only")
    assert await said(call) == ([], grpc.StatusCode.OK)


async def test_a_handler_may_end_while_the_client_sends(channel, running):
    call = bidi(channel, "Once")
    with pytest.raises((asyncio.InvalidStateError, grpc.aio.AioRpcError)):  # a write of the client fails
        for _ in range(1000):
            await call.write(b"x" * 100_000)
    assert len((await running.services.ended()).heard) == 1
    assert await channel.unary_unary("/test.Service/Echo")(b"others") == b"others"


async def test_an_unknown_method_is_unimplemented(channel):
    for path in ("/test.Service/Other", "/other.Service/Echo", "/test.Service/"):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary(path)(b"x")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("when", [b"now", b"late"])
async def test_an_exception_ends_the_call_with_13(channel, running, when):
    call = bidi(channel, "Fail")
    await call.write(b"fine")
    assert await call.read() == b"fine"
    await call.write(when)
    assert await said(call) == ([], grpc.StatusCode.INTERNAL)
    assert "secret" not in await call.details()
    await running.services.ended()


async def test_an_exception_at_the_half_close_ends_the_call_with_13(channel):
    call = bidi(channel, "Fail")
    await call.write(b"fine")
    await call.done_writing()
    assert await said(call) == ([b"fine"], grpc.StatusCode.INTERNAL)


async def test_a_call_that_cannot_be_made_ends_with_13(channel):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test.Service/Unmade")(b"x")
    assert error.value.code() == grpc.StatusCode.INTERNAL


async def test_an_exception_after_the_end_does_not_reach_the_client(channel, running):
    assert await channel.unary_unary("/test.Service/FailAtTheEnd")(b"x") == b"x"
    await running.services.ended()


@pytest.mark.parametrize("size", [16_379, 16_380, 65_530, 65_531, MIB, 20 * MIB])
async def test_large_messages_arrive(channel, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await channel.unary_unary("/test.Service/Echo")(content) == content


async def test_large_messages_arrive_side_by_side(channel):
    contents = [bytes([number]) * (3 * MIB + number) for number in range(8)]
    assert await asyncio.gather(*(channel.unary_unary("/test.Service/Later")(one) for one in contents)) == contents


async def test_a_message_above_the_limit_is_refused(channel, running):
    for size in (32 * MIB + 1, 40 * MIB):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test.Service/Echo")(b"x" * size)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await channel.unary_unary("/test.Service/Echo")(b"next") == b"next"


async def test_many_concurrent_calls_are_answered(channel):
    calls = [channel.unary_unary("/test.Service/Later")(b"%d" % number) for number in range(1500)]
    assert await asyncio.gather(*calls) == [b"%d" % number for number in range(1500)]


@pytest.mark.parametrize("size", [10, 1000])
async def test_five_thousand_messages_at_once_are_answered(channel, running, size):
    """With a busy handler more than the window waits; then all of it has to arrive."""
    call = bidi(channel, "Slow")

    async def write():
        for number in range(5000):
            await call.write(b"%04d" % number + b"." * size)
        await call.done_writing()

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.2)
    running.services.go.set()
    async with asyncio.timeout(60):
        answers, status = await said(call)
    await writing
    assert [answer[:4] for answer in answers] == [b"%04d" % number for number in range(5000)]
    assert status == grpc.StatusCode.OK


async def test_a_client_that_does_not_read_delays_only_itself(channel):
    """Answers wait; nothing else does."""
    call = bidi(channel, "Count")
    await call.write(b"[400, 100000]")
    await asyncio.sleep(0.1)
    assert await channel.unary_unary("/test.Service/Echo")(b"others") == b"others"
    await call.done_writing()
    answers, status = await said(call)
    assert (len(answers), status) == (400, grpc.StatusCode.OK)


async def test_a_deadline_of_the_client_cancels_the_call(channel, running):
    call = bidi(channel, "Slow", timeout=0.2)
    await call.write(b"x")
    assert await said(call) == ([], grpc.StatusCode.DEADLINE_EXCEEDED)
    assert (await running.services.ended()).cancelled


# --- cancellation in every state


async def test_a_call_can_be_cancelled_before_a_message(channel, running):
    call = bidi(channel, "Echo")
    await call.wait_for_connection()
    while not running.services.made:
        await asyncio.sleep(0.01)
    call.cancel()
    await running.services.ended()


async def test_a_call_can_be_cancelled_between_messages(channel, running):
    call = bidi(channel, "Echo")
    await call.write(b"x")
    assert await call.read() == b"x"
    call.cancel()
    assert (await running.services.ended()).heard == [b"x"]


@pytest.mark.parametrize("method", ["Slow", "Stubborn"])
async def test_a_call_can_be_cancelled_while_the_handler_waits(channel, running, method):
    call = bidi(channel, method)
    await call.write(b"x")
    await call.write(b"y")
    while not (running.services.made and running.services.last.heard):
        await asyncio.sleep(0.01)
    call.cancel()
    ended = await running.services.ended()
    assert (ended.cancelled, ended.heard) == (True, [b"x"])


async def test_a_call_can_be_cancelled_after_the_half_close(channel, running):
    call = bidi(channel, "Watch")
    await call.write(b"x")
    await call.done_writing()
    assert await call.read() == b"x"
    await asyncio.sleep(0.05)
    call.cancel()
    assert (await running.services.ended()).cancelled


async def test_a_call_can_be_cancelled_while_answers_wait_for_the_window(channel, running):
    call = bidi(channel, "Count")
    await call.write(b"[400, 100000]")
    assert await call.read() is not None
    call.cancel()
    await running.services.ended()
    assert await channel.unary_unary("/test.Service/Echo")(b"others") == b"others"


async def test_a_broken_connection_ends_every_call(running):
    async with H2Peer.connect(running.path) as peer:
        ids = [peer.begin(method) for method in ("Echo", "Slow", "Count", "Watch") * 5]
        for id in ids[1::4]:
            await peer.send(id, b"x")
        while len(running.services.made) < len(ids) or not all(call.heard for call in running.services.made[1::4]):
            await asyncio.sleep(0.01)
        peer.writer.transport.abort()
    for call in running.services.made:
        await running.services.ended(call)
    assert [call.cancelled for call in running.services.made[1::4]] == [True] * 5


# --- h2, which checks the protocol strictly


async def test_a_call_by_h2_is_answered(peer, running):
    id = peer.begin("Echo")
    await peer.send(id, b"one", b"two")
    answer = await peer.answer(id, 2)
    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"].startswith("application/grpc")
    await peer.send(id, b"three", end=True)
    answer = await peer.answer(id)
    assert (answer.messages, answer.status, answer.ended, answer.reset) == ([b"one", b"two", b"three"], 0, True, None)


async def test_headers_may_carry_the_half_close(peer):
    answer = await peer.answer(peer.begin("Sum", end=True))
    assert (answer.messages, answer.status) == ([b"[0, 0]"], 0)


async def test_a_handler_may_end_a_call_of_h2_early(peer):
    id = peer.begin("Once")
    await peer.send(id, b"x")
    answer = await peer.answer(id)
    assert (answer.messages, answer.status) == ([b"x"], 0)


async def test_an_unknown_method_is_unimplemented_for_h2(peer):
    answer = await peer.answer(peer.begin("Other", end=True))
    assert (answer.status, answer.messages) == (12, [])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 11, 5000])
async def test_messages_may_be_cut_anywhere(peer, size):
    whole = framed(b"hello") + framed(b"") + framed(b"world" * 100)
    id = peer.begin("Echo")
    for at in range(0, len(whole), size):
        await peer.send(id, raw=whole[at : at + size])
    await peer.send(id, end=True)
    answer = await peer.answer(id)
    assert (answer.messages, answer.status) == ([b"hello", b"", b"world" * 100], 0)


async def test_large_messages_arrive_by_h2(peer):
    id = peer.begin("Echo")
    await peer.send(id, b"x" * 3 * MIB, end=True)
    answer = await peer.answer(id)
    assert (answer.messages, answer.status) == ([b"x" * 3 * MIB], 0)


@pytest.mark.parametrize("first", [0, 1, 100, 65_535, 1 << 20])
async def test_windows_of_any_size_work(running, first):
    async with H2Peer.connect(running.path, grants=False, settings={4: first}) as peer:
        id = peer.begin("Count")
        await peer.send(id, b"[3, 1000]", end=True)
        answer = peer.answers[id]
        expected = b"".join(framed(b"%d" % number + b"." * 1000) for number in range(3))
        step = 997
        while not answer.ended:
            await peer.until(lambda: len(answer.data) == min(first, len(expected)) or answer.ended)  # noqa: B023
            if not answer.ended and len(answer.data) < len(expected):
                peer.h2.increment_flow_control_window(step, id)
                peer.flush()
                first += step
            elif not answer.ended:
                await peer.hear()
        assert (answer.data, answer.status) == (expected, 0)


async def test_a_window_that_becomes_negative_holds_answers_back(running):
    async with RawPeer.connect(running.path) as peer:
        peer.tell(settings(window=5000), window(0, 1 << 20), request(1, path="/test.Service/Count"))
        peer.tell(message(1, b"[10, 989]", end=True))
        while sum(map(len, [what for name, _, what in peer.heard if name == "Data"])) < 5000:
            await peer.hear()
        peer.tell(settings(window=1000))
        await peer.until("Settings", count=4)
        peer.tell(window(1, 4000), frame(PING, 0, 0, b"12345678"))
        await peer.until("Ping")
        assert sum(len(what) for name, _, what in peer.heard if name == "Data") == 5000, "exactly nothing"
        peer.tell(*[window(1, 500)] * 10)
        await peer.until("Headers", 1, 2)
        assert b"".join(await peer.until("Data", 1)) == b"".join(
            framed(b"%d" % number + b"." * 989) for number in range(10)
        )


async def test_a_client_may_forbid_the_header_table(running):
    """A client may set the table's size to 0. The server's encoder has to say so correctly."""
    async with H2Peer.connect(running.path, settings={1: 0}) as peer:
        for _ in range(3):
            id = peer.begin("Echo")
            await peer.send(id, b"x", end=True)
            assert (await peer.answer(id)).status == 0


async def test_headers_over_several_frames_are_read(peer):
    id = peer.begin("Metadata", ("x-a", "a" * 7000), ("x-b", "b" * 7000), ("x-c", "{}" * 5000))
    await peer.send(id, b"", end=True)
    answer = await peer.answer(id)
    if answer.status != 0:  # grpcio allows 16 KiB
        assert answer.status == 8
    else:
        assert json.loads(answer.messages[0])["x-c"] == "{}" * 5000


async def test_resets_are_accepted_in_every_state(peer, running):
    for method, sends in (("Echo", 0), ("Echo", 1), ("Slow", 3), ("Once", 1), ("Watch", 1), ("Count", 0)):
        id = peer.begin(method)
        await peer.send(id, *[b"x"] * sends, end=method == "Watch")
        await asyncio.sleep(0.02)
        peer.reset(id)
    running.services.go.set()
    id = peer.begin("Echo")
    await peer.send(id, b"x", end=True)
    assert (await peer.answer(id)).status == 0


async def test_a_ping_is_answered_by_both_transports(peer):
    peer.h2.ping(b"12345678")
    peer.flush()
    await peer.hear()
    id = peer.begin("Echo")
    await peer.send(id, b"x", end=True)
    assert (await peer.answer(id)).status == 0


@pytest.mark.parametrize(("encoding", "statuses"), [("gzip", {12, 13}), ("identity", {13}), (None, {13})])
async def test_compressed_messages_are_refused(peer, encoding, statuses):
    """The official library may try to decompress a message. This one is not valid."""
    id = peer.begin("Echo", *([("grpc-encoding", encoding)] if encoding else []))
    await peer.send(id, raw=framed(b"no gzip", compressed=1), end=True)
    assert (await peer.answer(id)).status in statuses


# --- the drain


async def test_a_drain_lets_calls_end(running):
    async with RawPeer.connect(running.path) as peer:
        peer.tell(request(1, path="/test.Service/Echo"), message(1, b"before"))
        await peer.until("Data", 1)
        stopping = asyncio.create_task(running.stop(10.0))
        await peer.until("GoAway")
        peer.tell(message(1, b"after", end=True))
        await peer.until("Headers", 1, 2)
        async with asyncio.timeout(5):
            await stopping
            await peer.to_the_end()
    goaways = [what for name, _, what in peer.heard if name == "GoAway"]
    assert goaways[0] == ((1 << 31) - 1, 0), "the peer may begin others until it has seen this"
    assert goaways[1:2] == [(1, 0)]
    assert await peer.until("Data", 1) == [framed(b"before"), framed(b"after")]


async def test_a_drain_accepts_no_new_connections(running):
    async with RawPeer.connect(running.path) as peer:
        peer.tell(request(1, path="/test.Service/Echo"), message(1, b"x"))
        await peer.until("Data", 1)
        stopping = asyncio.create_task(running.stop(10.0))
        await peer.until("GoAway")
        async with asyncio.timeout(5):  # grpcio closes its listener some time after it announced it
            while await reachable(running.path):
                await asyncio.sleep(0.01)
        peer.tell(data(1, end=True))
        await peer.to_the_end()
        await stopping


async def reachable(path):
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def test_a_drain_ends_when_its_grace_is_over(running):
    async with H2Peer.connect(running.path) as peer:
        ids = [peer.begin(method) for method in ("Echo", "Slow", "Watch")]
        for id in ids:
            await peer.send(id, b"x", end=id == ids[2])
        while len(running.services.made) < 3 or not running.services.made[1].heard:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await running.stop(0.2)
    assert [call.ends for call in running.services.made] == [1, 1, 1]


async def test_a_drain_waits_for_the_last_message_of_a_call_that_lasts_and_not_for_its_end(running):
    async with RawPeer.connect(running.path) as peer:
        for id, method in ((1, "Standing"), (3, "Echo")):
            peer.tell(request(id, path=f"/test.Service/{method}"), message(id, b"before"))
        await peer.until("Data", 3)
        stopping = asyncio.create_task(running.stop(60.0))
        await peer.until("GoAway")
        peer.tell(message(1, b"last"), message(3, b"after", end=True))
        await peer.until("Data", 3, 2)
        async with asyncio.timeout(5):
            await peer.to_the_end()
            await stopping
    assert [call.heard for call in running.services.made] == [[b"before", b"last"], [b"before", b"after"]]


async def test_a_drain_without_calls_is_quick(running):
    async with RawPeer.connect(running.path) as peer:
        await peer.until("Settings", count=2)
        hearing = asyncio.create_task(peer.to_the_end())
        async with asyncio.timeout(5):
            await running.stop(60.0)
            await hearing


async def test_the_official_client_survives_a_drain(running, channel):
    calls = [bidi(channel, "Later") for _ in range(20)]
    for call in calls:
        await call.write(b"x")
        assert await call.read() == b"x"
    stopping = asyncio.create_task(running.stop(10.0))
    await asyncio.sleep(0.1)
    for call in calls:
        await call.write(b"y")
        await call.done_writing()
    assert [await said(call) for call in calls] == [([b"y"], grpc.StatusCode.OK)] * 20
    await stopping


async def test_limits_of_messages_are_those_of_the_settings(running, tmp_path):
    await running.stop()
    await running.start(TransportLimits(message=1000))
    async with grpc.aio.insecure_channel(f"unix:{running.path}") as channel:
        assert await channel.unary_unary("/test.Service/Echo")(b"x" * 1000) == b"x" * 1000
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test.Service/Echo")(b"x" * 1001)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

"""The services that Envoy calls, over both transports, called through a socket as Envoy calls them."""

import asyncio
import contextlib
import json
import stat
from pathlib import Path

import grpc
import grpc.aio
import pytest

from extproc.envoy.server import access_log, wire
from extproc.envoy.server.server import HEALTH, Server
from extproc.exchange.gateway import GatewayStream
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport.grpcio_server import GrpcioServer
from extproc.wire.transport.native import NativeServer
from extproc.words import contract

PROCESS = f"/{wire.SERVICE}/{wire.METHOD}"
LOGS = f"/{access_log.SERVICE}/{access_log.METHOD}"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
BUDGET = "budgets: [{name: t, unit: tokens, limit: 100000, window: minute}]"


class Running:
    def __init__(self, world, path, transport):
        self.world = world
        self.server = Server(lambda: world.pipeline, world.telemetry)
        self.path = str(path)
        self.transport = transport

    async def start(self):
        await self.server.start(socket=self.path, transport=self.transport)
        self.channel = grpc.aio.insecure_channel(f"unix:{self.path}")

    def process(self, attachment="gateway"):
        return self.channel.stream_stream(PROCESS)(metadata=((contract.ATTACHMENT, attachment),))

    async def ended(self):
        """Wait until no ext_proc stream is left."""
        for _ in range(1000):
            if self.world.metric("extproc_grpc_streams") == 0:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("a stream is left")


@pytest.fixture(params=["native", "grpcio"])
async def serve(request, world, tmp_path):
    """Starts the services of a pipeline with the given YAML."""
    made = []

    async def make(yaml=""):
        made.append(Running(world(yaml), tmp_path / f"{len(made)}.sock", request.param))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.channel.close()
        await one.server.drain(0.0, 0.0)


def headers(phase, *pairs, end=False, **attributes):
    message = pb.ProcessingRequest()
    part = getattr(message, phase)
    part.end_of_stream = end
    for key, value in pairs:
        part.headers.headers.add(key=key, raw_value=value.encode())
    if attributes:
        message.attributes["envoy.filters.http.ext_proc"].update(
            {name.replace("__", "."): value for name, value in attributes.items()}
        )
    return message.SerializeToString()


def body(phase, content, *, end=True):
    message = pb.ProcessingRequest()
    getattr(message, phase).body = content
    getattr(message, phase).end_of_stream = end
    return message.SerializeToString()


ASKS = headers("request_headers", (":method", "POST"), (":path", "/v1/chat/completions"))
QUESTION = body("request_body", json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode())
ANSWERED = headers(
    "response_headers",
    (":status", "200"),
    ("content-type", "application/json"),
    upstream__request_attempt_count=1,
    response__code_details="via_upstream",
)
ANSWER = body(
    "response_body",
    b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
)


async def say(call, *messages):
    """The kind of each response to the messages."""
    found = []
    for message in messages:
        await call.write(message)
        found.append(pb.ProcessingResponse.FromString(await call.read()).WhichOneof("response"))
    return found


async def test_an_exchange_runs_from_its_headers_to_its_end(serve):
    running = await serve(BUDGET)
    call = running.process()
    assert await say(call, ASKS, QUESTION, ANSWERED, ANSWER) == [
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
    ]
    assert running.world.metric("extproc_grpc_streams") == 1 or await call.code() == grpc.StatusCode.OK
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK
    await running.ended()
    assert await running.world.level("t") == (10, 0)


@pytest.mark.parametrize("leaves", ["resets", "half-closes"])
@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_client_that_disconnects_is_settled_once(serve, leaves, after):
    running = await serve(BUDGET)
    call = running.process()
    await say(call, *(ASKS, QUESTION, ANSWERED)[:after])
    if leaves == "resets":
        call.cancel()
    else:
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
    await running.ended()
    async with asyncio.timeout(20):  # a process that has yet to begin counts what the client got
        while not running.world.log:
            await asyncio.sleep(0.005)
    settled, reserved = await running.world.level("t")
    assert reserved == 0
    assert bool(settled) == (after > 1)
    assert set(running.world.leases) == set()
    assert len(running.world.log) == 1


async def test_a_refusal_is_an_answer(serve):
    running = await serve()
    call = running.process()
    await call.write(headers("request_headers", (":method", "GET"), (":path", "/nowhere")))
    answer = pb.ProcessingResponse.FromString(await call.read()).immediate_response
    assert answer.status.code == 404
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_a_bug_ends_the_stream_with_13(serve, monkeypatch):
    running = await serve()

    async def broken(*_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(GatewayStream, "on_request_headers", broken)
    call = running.process()
    await call.write(ASKS)
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert await call.code() == grpc.StatusCode.INTERNAL
    assert await call.details() == "internal error"
    assert running.world.metric("extproc_internal_errors_total", where="GatewayStream") == 1
    assert running.world.metric("extproc_peer_faults_total", kind="message") == 0
    await running.ended()


@pytest.mark.parametrize("attachment", ["gateway", "attempt"])
@pytest.mark.parametrize(
    "messages",
    [
        (b"\xff not protobuf",),
        (b"",),
        (b"\x22\x84\x80\x10" + b"\x0a" * (300 << 10),),  # a large body whose lengths are none
        (b"\x22" + b"\xff" * (300 << 10),),
        (QUESTION,),
        (ANSWER,),
        (ASKS, ASKS),
        (ASKS, QUESTION, QUESTION),
        (ASKS, QUESTION, ASKS),
        (ASKS, ANSWER),
    ],
    ids=range(10),
)
async def test_garbage_and_messages_at_the_wrong_place_are_faults_of_the_peer_and_no_bug(serve, attachment, messages):
    running = await serve(BUDGET)
    call = running.process(attachment)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it may have ended before the last one
        for message in messages:
            await call.write(message)
        while await call.read() is not grpc.aio.EOF:
            pass
    await running.ended()
    if attachment == "gateway":
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert running.world.metric("extproc_peer_faults_total", kind="message") == 1
        assert (await running.world.level("t"))[1] == 0
    assert running.world.metric("extproc_internal_errors_total", where="GatewayStream") == 0
    assert running.world.metric("extproc_internal_errors_total", where="AttemptStream") == 0


@pytest.mark.parametrize("path", [LOGS])
async def test_garbage_in_a_log_of_envoys_is_a_fault_of_the_peer(serve, path):
    running = await serve()
    call = running.channel.stream_stream(path)()
    await call.write(b"\xff not protobuf")
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert running.world.metric("extproc_peer_faults_total", kind="message") == 1


async def test_a_peer_that_breaks_http2_is_counted_and_logged_once(serve, caplog):
    running = await serve()
    if running.transport == "grpcio":
        pytest.skip("the library tells nobody")
    for _ in range(20):
        reader, writer = await asyncio.open_unix_connection(running.path)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
        await reader.read()
        writer.close()
    assert running.world.metric("extproc_peer_faults_total", kind="http2") == 20
    assert running.world.metric("extproc_internal_errors_total", where="GatewayStream") == 0
    assert len([record for record in caplog.records if "faults of peers" in record.getMessage()]) == 1


async def test_a_header_selects_the_attempt_attachment(serve):
    running = await serve()
    call = running.process("attempt")
    targets = contract.encode_targets(running.world.pipeline.catalog.resolve("m").targets)
    pairs = ((contract.TARGETS, targets), (contract.ATTEMPT_COUNT, "1"))
    assert await say(call, headers("request_headers", *pairs), body("request_body", b"{}")) == [
        "request_headers",
        "request_body",
    ]
    assert await call.read() is grpc.aio.EOF


async def test_access_logs_reach_the_history(serve):
    running = await serve()
    call = running.channel.stream_unary(LOGS)()
    for name in ("gateway", ""):  # only the first message names the log
        message = pb.StreamAccessLogsMessage()
        message.identifier.log_name = name
        entry = message.http_logs.log_entry.add()
        entry.common_properties.response_flags.downstream_connection_termination = True
        await call.write(message.SerializeToString())
    await call.done_writing()
    assert await call == b""
    assert running.world.metric("extproc_downstream_ends_total", reason="client_left") == 2


async def test_health_is_reported(serve):
    running = await serve()
    check = running.channel.unary_unary(f"/{HEALTH}/Check")
    assert await check(b"") == SERVING
    watch = running.channel.unary_stream(f"/{HEALTH}/Watch")(b"")
    assert await watch.read() == SERVING
    call = running.process()
    await say(call, ASKS)
    draining = asyncio.create_task(running.server.drain(0.2, 5.0))
    assert await watch.read() == NOT_SERVING, "before anything else"
    assert running.server.unready == "draining"
    assert await check(b"") == NOT_SERVING, "and calls are still taken"
    assert await watch.read() is grpc.aio.EOF
    await asyncio.sleep(0.3)
    assert await say(call, QUESTION) == ["request_body"], "what is under way goes on"
    await call.done_writing()
    await draining
    await running.ended()


async def test_the_settings_choose_the_transport(serve, world, tmp_path):
    running = await serve()
    kind = {"native": NativeServer, "grpcio": GrpcioServer}[running.transport]
    assert type(running.server._transport) is kind
    assert stat.S_IMODE(Path(running.path).stat().st_mode) == 0o600


async def test_grpcio_serves_tcp_addresses(world):
    one = world()
    server = Server(lambda: one.pipeline, one.telemetry)
    await server.start(address="127.0.0.1:0")
    assert type(server._transport) is GrpcioServer
    await server.drain(0.0, 0.0)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_an_unusable_socket_path_is_an_error(world, tmp_path, transport):
    one = world()
    (tmp_path / "file").write_text("mine")
    server = Server(lambda: one.pipeline, one.telemetry)
    with pytest.raises(OSError, match="is no socket"):
        await server.start(socket=str(tmp_path / "file"), transport=transport)
    await server.drain(0.0, 0.0)

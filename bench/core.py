"""The processor's own share of a request, without gRPC: `python -m bench.core` (add `profile` for a profile)."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Coroutine

from extproc.envoy.server.wire import converse
from extproc.exchange import pipeline
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import open_counters
from extproc.wire.pb import extproc_pb2 as pb

SETTINGS = """
providers: {sandbox: {kind: mock}}
models: {stub: {provider: sandbox}}
consumers: [{name: bench, keys: [{env: BENCH_KEY}]}]
budgets: [{name: rate, per: [consumer], unit: requests, limit: 1000000000, window: minute}]
telemetry: {access_log: "off"}
"""

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"stub","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello there","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}'
)
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"stub","choices":'
    b'[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)


Work = Callable[[pipeline.Pipeline, int], Coroutine[None, None, None]]


def headers(phase: str, headers: dict[str, str], attributes: dict[str, float] | None = None) -> bytes:
    message = pb.ProcessingRequest()
    part = getattr(message, phase)
    for key, value in headers.items():
        part.headers.headers.add(key=key, raw_value=value.encode())
    if attributes:
        message.attributes["envoy.filters.http.ext_proc"].update(attributes)
    return message.SerializeToString()


def conversation() -> list[bytes]:
    """The messages of Envoy for a plain request."""
    body = b'{"model": "stub", "messages": [{"role": "user", "content": "' + b"word " * 20 + b'"}]}'
    return [
        headers(
            "request_headers",
            {
                ":method": "POST",
                ":path": "/v1/chat/completions",
                "authorization": "Bearer sk-gw-bench",
                "content-type": "application/json",
                "content-length": "100",
                "x-request-id": "7d33b42e-0f8d-49ed-a5b5-e7d76332b58b",
            },
        ),
        pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)).SerializeToString(),
        headers(
            "response_headers",
            {":status": "200", "content-type": "application/json"},
            {"upstream.request_attempt_count": 1},
        ),
        pb.ProcessingRequest(response_body=pb.HttpBody(body=ANSWER, end_of_stream=True)).SerializeToString(),
    ]


async def _requests(build: pipeline.Pipeline, count: int) -> None:
    messages = conversation()
    for _ in range(count):
        stream = GatewayStream(build)
        for message in messages:
            await converse(stream, message)
        await stream.on_end()


async def _events(build: pipeline.Pipeline, count: int) -> None:
    head, request, *_ = conversation()
    stream = GatewayStream(build)
    event = pb.ProcessingRequest(response_body=pb.HttpBody(body=_EVENT)).SerializeToString()
    sse = headers(
        "response_headers",
        {":status": "200", "content-type": "text/event-stream"},
        {"upstream.request_attempt_count": 1},
    )
    for message in (head, request, sse):
        await converse(stream, message)
    for _ in range(count):
        await converse(stream, event)
    await stream.on_end()


def _timed(work: Work, build: pipeline.Pipeline, count: int) -> float:
    start = time.process_time()
    asyncio.run(work(build, count))
    return (time.process_time() - start) / count


def main() -> None:
    import os

    os.environ["BENCH_KEY"] = "sk-gw-bench"
    settings = config.parse(SETTINGS)
    build = pipeline.build(settings, Services(open_counters("memory:"), Telemetry(settings)))
    for name, work, count in (("request", _requests, 5000), ("event", _events, 20000)):
        asyncio.run(work(build, 200))
        if "profile" in sys.argv:
            with cProfile.Profile() as profile:
                asyncio.run(work(build, count))
            pstats.Stats(profile).sort_stats("tottime").print_stats(28)
        best = min(_timed(work, build, count // 10) for _ in range(20))  # the least disturbed of many
        print(f"{name}: {best * 1e6:.1f} µs CPU")


if __name__ == "__main__":
    main()

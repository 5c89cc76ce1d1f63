"""A bounded load: HTTP/1.1 over loopback, just enough of it to be no bottleneck itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.harness import KEY


@dataclass
class Result:
    """What a load saw. Times are in seconds."""

    latencies: list[float] = field(default_factory=list)  # to the end of the answer
    first_bytes: list[float] = field(default_factory=list)  # to the first byte of its body
    events: int = 0
    errors: list[str] = field(default_factory=list)


def request(model: str, *, stream: bool = False, size: int = 0, words: int = 0) -> bytes:
    """One chat request with about `size` bytes of text."""
    text = "Tell me about gateways. " + "word " * (size // 5)
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    if words:
        body["max_tokens"] = words
    payload = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nuser-agent: bench/1\r\naccept: application/json\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


async def run(port: int, message: bytes | Sequence[bytes], *, total: int, concurrency: int) -> Result:
    """Send `message`, or several in turn, `total` times in all over `concurrency` connections."""
    result = Result()
    messages = (message,) if isinstance(message, bytes) else message
    left = iter(range(total))

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        try:
            for index in left:
                await exchange(reader, writer, messages[index % len(messages)], result)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            result.errors.append(repr(error))
        finally:
            writer.close()

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return result


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes, result: Result) -> None:
    """Send one request, and read its answer to the end."""
    start = time.perf_counter()
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    status = head[9:12]
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        first = 0.0
        while True:
            size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
            data = await reader.readexactly(size + 2)
            if size and not first:
                first = time.perf_counter()
            result.events += data.count(b"data: ")
            if size == 0:
                break
        result.first_bytes.append(first - start)
    else:
        length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    result.latencies.append(time.perf_counter() - start)
    if status != b"200":
        result.errors.append(status.decode())

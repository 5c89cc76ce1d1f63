"""Providers that break the rules: `python -m bench.faults.provider --port N garbage`.

garbage    speaks no HTTP
endless    never ends an answer, plain or streamed, and sends as fast as it is read
"""

from __future__ import annotations

import argparse
import asyncio

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % (b"word " * 20)
_PIECE = b"word " * 2000


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"\0\xff SMTP ready, what else\r\n\r\n" * 20)
    await writer.drain()


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    streamed = b'"stream":true' in (await reader.readexactly(length)).replace(b" ", b"")
    writer.write(_HEAD % (b"text/event-stream" if streamed else b"application/json"))
    piece = _EVENT if streamed else _PIECE
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0.001)


async def _serve(port: int, what: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await {"garbage": _garbage, "endless": _endless}[what](reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("what", choices=["garbage", "endless"])
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.what))

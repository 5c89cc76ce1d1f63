"""An MCP server that costs as little as possible: canned answers of 2026-07-28. `python -m bench.mcp_stub --port N`."""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import uvloop

from bench.stub import Connection

TOOLS = 40
_META = {"io.modelcontextprotocol/serverInfo": {"name": "stub", "version": "1"}}
_SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "The text that the tool works on, in plain words."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
    },
    "required": ["text"],
}
_LISTED = {
    "tools": [
        {
            "name": f"tool-{n:02}",
            "description": f"Tool number {n} of the stub. " + "It does its work. " * 8,
            "inputSchema": _SCHEMA,
        }
        for n in range(TOOLS)
    ]
}
_CACHED = {"ttlMs": 3_600_000, "cacheScope": "public"}
_ANSWERS = {
    b"tools/call": {"content": [{"type": "text", "text": "You said: Tell me about gateways."}]},
    b"tools/list": _LISTED | _CACHED,
    b"server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}} | _CACHED,
}
_MISSING = b'"error":{"code":-32601,"message":"Method not found"}}'
_PARTS = {
    method: json.dumps({"result": {"resultType": "complete", **found, "_meta": _META}}).encode()[1:]
    for method, found in _ANSWERS.items()
}
_method = re.compile(rb'"method"\s*:\s*"([^"]*)"').search
_id = re.compile(rb'"id"\s*:\s*("[^"]*"|-?\d+)').search
NAMES = [tool["name"] for tool in _LISTED["tools"]]


def answer(method: bytes, id: bytes) -> bytes:
    """The body of an answer."""
    return b'{"jsonrpc":"2.0","id":%b,%b' % (id, _PARTS.get(method, _MISSING))


class Tools(Connection):
    """Answers one request after the other."""

    def _answer(self, body: bytes) -> None:
        method, id = _method(body), _id(body)
        if method is None or id is None:
            self._transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            return
        text = answer(method[1], id[1])
        status = b"200 OK" if method[1] in _PARTS else b"404 Not Found"
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(text)) + text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Tools, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(serve())


if __name__ == "__main__":
    main()

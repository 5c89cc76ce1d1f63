"""The least that an MCP gateway in Python can do, for comparison: an ASGI application that forwards with httpx.

`python -m bench.mcp_forwarder --port N --server N`. It compares a key, reads the JSON, knows the server's tools,
changes the name of the called one and passes the answer on whole. Lists are its own. It has no limits, and no records.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvicorn

from bench.harness import KEY
from bench.mcp_stub import NAMES as OWN
from bench.mcp_stub import answer

PREFIX = "tools__"
EXPECTED = f"Bearer {KEY}".encode()
NAMES = {PREFIX + name: name for name in OWN}
TAKEN = (b"content-type", b"accept", b"mcp-protocol-version", b"mcp-method")


class Forwarder:
    def __init__(self, server: int) -> None:
        self._url = f"http://127.0.0.1:{server}/mcp"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._http = httpx.AsyncClient(limits=limits, trust_env=False, verify=False)

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        message = json.loads(body)
        if headers.get(b"authorization") != EXPECTED:
            status, content = 401, b"{}"
        elif message["method"] == "tools/list":
            status, content = 200, answer(b"tools/list", json.dumps(message["id"]).encode())
        else:
            message["params"]["name"] = NAMES[message["params"]["name"]]
            passed = {name: value for name, value in headers.items() if name in TAKEN}
            passed[b"mcp-name"] = message["params"]["name"].encode()
            reply = await self._http.post(self._url, content=json.dumps(message), headers=passed)
            status, content = reply.status_code, reply.content
        more = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": more})
        await send({"type": "http.response.body", "body": content})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", type=int, required=True)
    options = parser.parse_args()
    app = Forwarder(options.server)
    uvicorn.run(app, port=options.port, log_level="critical", loop="uvloop", lifespan="off", access_log=False)


if __name__ == "__main__":
    main()

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from extproc.upstream.mock import Options, serve


@dataclass
class Asker:
    """A client of a mock. Plain answers are returned as JSON, streams as their events (name, JSON)."""

    url: str
    client: httpx.AsyncClient
    headers: dict[str, str] = field(default_factory=dict)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers | headers)

    async def plain(self, path: str, body: Any, **headers: str) -> Any:
        answer = await self.post(path, body, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def stream(self, path: str, body: Any, **headers: str) -> list[tuple[str, Any]]:
        answer = await self.post(path, body, **headers)
        assert answer.status_code == 200, answer.text
        return [_sse(frame) for frame in answer.text.split("\n\n") if frame]

    async def refused(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        answer = await self.post(path, body, **headers)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()

    async def seen(self) -> Any:
        return (await self.client.get("/requests")).json()[-1]


def _sse(frame: str) -> tuple[str, Any]:
    lines = dict(line.split(": ", 1) for line in frame.split("\n"))
    data = lines["data"]
    return lines.get("event", ""), data if data == "[DONE]" else json.loads(data)


@asynccontextmanager
async def _asking(**options):
    server = await serve(Options(**options))
    try:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=5) as client:
            yield Asker(server.url, client)
    finally:
        await server.close()


@pytest.fixture
def asking():
    return _asking

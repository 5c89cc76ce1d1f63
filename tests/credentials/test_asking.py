"""Requests of this process to providers."""

import asyncio
import json

import pytest

from extproc.upstream.credentials.asking import Asking, NotAskedError, TooLargeError
from extproc.upstream.credentials.rotation import write_secret
from extproc.upstream.providers import ProviderSettings


@pytest.fixture
async def provider():
    """A server that answers with the head it got; `/file` has a megabyte, `/gone` is 404."""

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1]
        body = b"x" * (1 << 20) if b"/file" in path else json.dumps(head.decode().splitlines()).encode()
        status = b"404 Not Found" if b"/gone" in path else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def settings(provider, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-some")

    def make(kind="anthropic", path="/v1", **fields):
        return {"p": ProviderSettings(kind=kind, base_url=provider + path, **fields)}

    return make


async def test_a_request_has_the_path_the_headers_and_the_key_of_the_provider(settings):
    asking = Asking(settings(path="/base", api_key="env:SOME_KEY", headers={"x-more": "1"}), None)
    status, body = await asking.get("p", "/v1/batches/1")
    first, *headers = json.loads(body)
    assert (status, first) == (200, "GET /base/batches/1 HTTP/1.1")
    assert {"x-api-key: sk-some", "anthropic-version: 2023-06-01", "x-more: 1"} <= set(headers)


async def test_a_token_of_a_cloud_is_the_one_that_envoy_has(settings, tmp_path):
    azure = {"tenant": "t", "client_id": "c", "client_secret": "env:SOME_KEY"}
    asking = Asking(settings("azure_openai", credentials={"azure": azure}), tmp_path, lambda name: f"{name}-1")
    with pytest.raises(NotAskedError, match="no key"):
        await asking.get("p", "/v1/batches/1")
    write_secret(tmp_path, "p-1", "token")
    assert "authorization: Bearer token" in json.loads((await asking.get("p", "/v1/batches/1"))[1])


async def test_a_file_comes_in_pieces_up_to_a_limit(settings):
    asking, pieces = Asking(settings(), None), []
    assert await asking.get("p", "/v1/file", sink=pieces.append, most=1 << 20) == (200, b"")
    assert b"".join(pieces) == b"x" * (1 << 20)
    with pytest.raises(TooLargeError):
        await asking.get("p", "/v1/file", sink=pieces.append, most=(1 << 20) - 1)
    pieces.clear()
    status, body = await asking.get("p", "/v1/gone", sink=pieces.append)
    assert (status, pieces) == (404, [])
    assert body


async def test_a_provider_that_cannot_be_asked_is_told_from_the_others(settings):
    found = {**settings(), "aws": ProviderSettings(kind="aws_bedrock", region="us-east-1")}
    asking = Asking(found, None)
    assert [asking.able(name) for name in ("p", "aws", "unknown")] == [True, False, False]
    for name in ("aws", "unknown"):
        with pytest.raises(NotAskedError, match=name):
            await asking.get(name, "/v1/batches/1")
    gone = Asking({"p": ProviderSettings(kind="anthropic", base_url="http://127.0.0.1:1/v1")}, None)
    with pytest.raises(NotAskedError, match="reached"):
        await gone.get("p", "/v1/batches/1")

"""A client of MCP that signs its user in: `python mcp_oauth.py MODE URL`, with the OAuth of the official SDK (`mcp` 2).

It knows nothing but the address of the profile. It follows the redirect of the issuer itself, as a browser would, which
asks nothing. Prints the names of the tools, and the result of the first, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth.oauth2 import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata


class Kept:
    """Tokens and the client's registration, in memory."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


async def main(mode: str, url: str) -> None:
    given: dict[str, list[str]] = {}

    async def redirect(where: str) -> None:
        async with httpx2.AsyncClient() as browser:
            answer = await browser.get(where, follow_redirects=False)
        given.update(parse_qs(urlsplit(answer.headers["location"]).query))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=given["code"][0], state=given["state"][0], iss=given["iss"][0])

    metadata = OAuthClientMetadata(client_name="test", redirect_uris=["http://127.0.0.1:9/callback"])
    auth = OAuthClientProvider(url, metadata, Kept(), redirect, callback)
    async with (
        httpx2.AsyncClient(auth=auth, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        names = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool(names[0], {"text": "signed in"})
        print(json.dumps([names, result.content[0].text]))  # noqa: T201


asyncio.run(main(*sys.argv[1:]))

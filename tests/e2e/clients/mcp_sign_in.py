"""The official SDK as a client that opens links: `python mcp_sign_in.py MODE URL`, with its token in KEY. Prints the
text of the call's result.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import httpx2
import mcp_types
from mcp import Client, UrlElicitationRequiredError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


async def browse(url: str) -> None:
    """What the user's browser does."""
    async with httpx2.AsyncClient(follow_redirects=True) as browser:
        (await browser.get(url)).raise_for_status()
        (await browser.get(f"{url}?go")).raise_for_status()


async def main(mode: str, url: str) -> None:
    async def answered(_context: Any, params: Any) -> Any:
        await browse(params.url)
        return mcp_types.ElicitResult(action="accept")

    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {os.environ['KEY']}"}, timeout=30) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=answered) as client:
            await client.list_tools()
            try:
                result = await client.call_tool("mail__echo", {"text": "signed in"})
            except MCPError as error:  # 2025-11-25
                required = UrlElicitationRequiredError.from_error(error.error)
                await browse(required.elicitations[0].url)
                result = await client.call_tool("mail__echo", {"text": "signed in"})
            sys.stdout.write(json.dumps(result.content[0].text))


asyncio.run(main(*sys.argv[1:]))

"""A client of MCP, driven by a script: `python mcp_python.py KIND '{"url": …, "key": …, "steps": […]}'`.

KIND is auto or legacy (`mcp` 2), v1 (`mcp` 1), fastmcp or langchain. Prints the results of the steps as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

ANSWER = {"answer": "blue"}


async def connected(kind: str, wanted: Any, stack: AsyncExitStack) -> Any:
    """The client's session. Each kind names its methods alike."""
    url, headers = wanted["url"], {"authorization": f"Bearer {wanted['key']}", **wanted.get("headers", {})}
    if kind == "v1":
        from mcp import ClientSession, types
        from mcp.client.streamable_http import streamablehttp_client

        async def told(_context: Any, _params: Any) -> Any:
            return types.ElicitResult(action="accept", content=ANSWER)

        reader, writer, _ = await stack.enter_async_context(streamablehttp_client(url, headers=headers))
        session = await stack.enter_async_context(ClientSession(reader, writer, elicitation_callback=told))
        await session.initialize()
        return session
    if kind == "langchain":
        from langchain_mcp_adapters.client import MultiServerMCPClient

        given = {"transport": "http", "url": url, "headers": {**headers, **wanted.get("lists", {})}}
        tools = await MultiServerMCPClient({"tools": given}).get_tools()
        given["headers"] = headers  # of the sessions that it opens for each call
        return {tool.name: tool for tool in tools}
    import mcp_types

    if kind == "fastmcp":
        from fastmcp import Client as Fast
        from fastmcp.client.transports import StreamableHttpTransport

        async def given(_message: Any, _type: Any, _params: Any, _context: Any) -> Any:
            return ANSWER

        transport = StreamableHttpTransport(url, headers=headers)
        return await stack.enter_async_context(Fast(transport, elicitation_handler=given))
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async def answered(_context: Any, _params: Any) -> Any:
        return mcp_types.ElicitResult(action="accept", content=wanted.get("answer", ANSWER))

    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30))
    transport = streamable_http_client(url, http_client=http)
    return await stack.enter_async_context(Client(transport, mode=kind, elicitation_callback=answered))


async def step(session: Any, kind: str, verb: str, *given: Any) -> Any:
    seen: list[float] = []

    async def progress(done: float, _total: float | None, _message: str | None) -> None:
        seen.append(done)

    if kind == "langchain":
        return [*session] if verb == "tools" else (await session[given[0]].ainvoke(given[1]))[0]["text"]
    match verb:
        case "tools" | "prompts" | "resources":
            found = await getattr(session, f"list_{verb}")()
            each = found if isinstance(found, list) else getattr(found, verb)
            return [str(one.uri) if verb == "resources" else one.name for one in each]
        case "call" | "progress":
            more: dict[str, Any] = {"raise_on_error": False} if kind == "fastmcp" else {}
            handler = "progress_handler" if kind == "fastmcp" else "progress_callback"
            more |= {handler: progress} if verb == "progress" else {}
            result = await session.call_tool(*given, **more)
            if verb == "progress":
                return seen
            failed = getattr(result, "is_error", None)
            return [result.content[0].text, bool(result.isError if failed is None else failed)]
        case "prompt":
            return (await session.get_prompt(*given)).messages[0].content.text
        case "read":
            found = await session.read_resource(*given)
            return (found if isinstance(found, list) else found.contents)[0].text
    raise ValueError(verb)


async def main(kind: str, script: str) -> None:
    wanted = json.loads(script)
    results: list[Any] = []
    async with AsyncExitStack() as stack:
        session = await connected(kind, wanted, stack)
        for each in wanted["steps"]:
            try:
                results.append(await step(session, kind, *each))
            except Exception as error:  # noqa: BLE001 - the test judges it
                told = getattr(error, "error", error)
                results.append({"error": getattr(told, "code", None), "message": str(getattr(told, "message", error))})
    print(json.dumps(results))  # noqa: T201


asyncio.run(main(*sys.argv[1:]))

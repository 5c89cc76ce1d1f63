"""Turns of the event loop that other tasks get beside some work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def turns_during(work: Awaitable[object], every: float = 0.0) -> int:
    """Turns that another task got while `work` was under way; it asks for one every so many seconds."""
    turns, running = 0, True

    async def count() -> None:
        nonlocal turns
        while running:
            turns += 1
            await asyncio.sleep(every)

    task = asyncio.create_task(count())
    await work
    running = False
    await task
    return turns

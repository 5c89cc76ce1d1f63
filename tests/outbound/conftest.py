"""The loops of these tests."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories(config, item):
    """The gateway runs on uvloop, the command line on asyncio's own loop."""
    loops = {"asyncio": asyncio.new_event_loop}
    return loops | {"uvloop": uvloop.new_event_loop} if item.path.name == "test_pool.py" else loops

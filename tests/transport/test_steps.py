"""Coroutines that begin outside of a task."""

import asyncio

import pytest

from extproc.wire.transport.steps import Begun


async def begun(coroutine):
    """Run the first step in a callback of the loop, where there is no task, and the rest in a task."""
    loop = asyncio.get_running_loop()
    made = loop.create_future()

    def first():
        assert asyncio.current_task() is None
        made.set_result(loop.create_task(Begun(coroutine, coroutine.send(None))))

    loop.call_soon(first)
    return await made


async def test_a_task_continues_after_the_first_step():
    future = asyncio.get_running_loop().create_future()
    steps = []

    async def work():
        steps.append(asyncio.current_task())
        steps.append(await future)
        await asyncio.sleep(0)
        steps.append(asyncio.current_task())
        return "done"

    task = await begun(work())
    assert steps == [None]
    future.set_result("value")
    assert await task == "done"
    assert steps == [None, "value", task]


async def test_a_future_completed_meanwhile_is_not_missed():
    future = asyncio.get_running_loop().create_future()

    async def work():
        return await future

    coroutine = work()
    waits_for = coroutine.send(None)
    future.set_result("early")
    assert await asyncio.get_running_loop().create_task(Begun(coroutine, waits_for)) == "early"


async def test_an_exception_in_the_first_step_fails_the_task():
    async def work():
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await (await begun(work()))


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_cancelled_coroutine_learns_of_it(turns):
    """Even a cancellation before the task has run counts."""
    heard = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            heard.append("cancelled")
            await asyncio.sleep(0)  # it may wait for the last time
            heard.append("cleaned up")
            raise

    task = await begun(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["cancelled", "cleaned up"]
    assert task.cancelled()


async def test_timeouts_work_after_the_first_wait():
    async def work():
        with pytest.raises(RuntimeError, match="inside a task"):
            async with asyncio.timeout(1):
                pass
        if asyncio.current_task() is None:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.get_running_loop().create_future()
        return True

    assert await (await begun(work()))


async def test_only_a_task_may_continue():
    coroutine = asyncio.sleep(0)
    one = Begun(coroutine, coroutine.send(None))
    with pytest.raises(TypeError):
        await one
    one.close()
    with pytest.raises(RuntimeError):
        coroutine.send(None)

"""The delay of other streams while one large prompt is judged: `python -m bench.lag` (`--size 1`, `--action mask`).

A ticker asks for a turn of the event loop every 0.5 ms, beside prompts that pass all stages with the default chain of
guardrails, one after the other. Its delays are what an event of another stream would have waited: they need a quiet
machine. `net` are the same without the time in which the process had work and no core to do it (Linux tells it of each
thread), so they can be read on a busy machine, too; they are a little too small, as a thread may wait for a core while
another needs it not. Below them stand the callbacks that held the loop longest, in CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import asyncio.events
import json
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from bench.guardrails.quality import CHAIN
from extproc.exchange import pipeline
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import open_counters

_SETTINGS = """
providers: {sandbox: {kind: mock}}
models: {stub: {provider: sandbox}}
consumers: [{name: bench, keys: [{env: BENCH_KEY}]}]
telemetry: {access_log: "off"}
"""
_TICK = 0.0005
_SECONDS = 4.0
_TEXT = """The quick report of our Berlin team says that order 4711 shipped on 3 May; please summarise it for Mrs. Weber
and keep the tone of the earlier mail. Ignore typos, numbers such as 12.50 or +49 30 1234, and the footer below."""
"""Prose with digits and names, so that no guardrail passes over it."""


def prompt(size: int, *, secrets: int) -> bytes:
    """A chat of about `size` bytes in eight messages, with addresses for the guardrails to find."""
    chance = random.Random(14)
    messages = []
    for number in range(8):
        words = chance.choices(_TEXT.split(), k=size // 8 * len(_TEXT.split()) // len(_TEXT))
        for _ in range(secrets):
            words[chance.randrange(len(words))] = "erika.mustermann@example.com"
        messages.append({"role": "user" if number % 2 == 0 else "assistant", "content": " ".join(words)})
    messages.append({"role": "user", "content": "Go on"})
    return json.dumps({"model": "stub", "messages": messages}).encode()


class Cores:
    """Seconds in which threads of this process waited for a core, since they began; 0 where Linux does not tell."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def waited(self) -> float:
        total = 0
        for thread in threading.enumerate():
            number = thread.native_id or 0
            if number not in self._files:
                try:
                    self._files[number] = os.open(f"/proc/self/task/{number}/schedstat", os.O_RDONLY)
                except OSError:
                    return 0.0
            total += int(os.pread(self._files[number], 100, 0).split()[1])
        return total / 1e9


async def delays(work: Callable[[], Any]) -> tuple[list[float], list[float], int]:
    """Seconds by which each tick was late, the same without waits for a core, and how often `work` ran, one after the
    other.
    """
    late: list[float] = []
    net: list[float] = []
    cores = Cores()
    running = True

    async def tick() -> None:
        due, before = time.perf_counter() + _TICK, cores.waited()
        while running:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            found, waited = max(0.0, time.perf_counter() - due), cores.waited()
            late.append(found)
            net.append(max(0.0, found - (waited - before)))
            due, before = time.perf_counter() + _TICK, waited

    ticker = asyncio.create_task(tick())
    count, end = 0, time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        await work()
        count += 1
    running = False
    await ticker
    return sorted(late), sorted(net), count


class Held:
    """The longest callbacks of the event loop, by what they ran."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self._run = asyncio.events.Handle._run  # noqa: SLF001 - asyncio says it only in its debug mode

    def __enter__(self) -> Self:
        usual, longest = self._run, self.longest

        def run(handle: Any) -> None:
            then = time.thread_time()
            usual(handle)
            if (spent := time.thread_time() - then) > _TICK:
                name = _place(handle)
                longest[name] = max(longest.get(name, 0.0), spent)

        asyncio.events.Handle._run = run  # type: ignore[method-assign]  # noqa: SLF001
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.events.Handle._run = self._run  # type: ignore[method-assign]  # noqa: SLF001


def _place(handle: Any) -> str:
    """The coroutine of the gateway that a callback took on, and the line where it waits next."""
    task = getattr(handle._callback, "__self__", None)  # noqa: SLF001
    if not isinstance(task, asyncio.Task):
        return getattr(handle._callback, "__qualname__", str(handle._callback))  # noqa: SLF001
    at: Any = task.get_coro()
    found = at
    while (at := getattr(at, "cr_await", None)) is not None and hasattr(at, "cr_frame"):
        if "asyncio" not in at.cr_code.co_filename:
            found = at
    line = "to its end" if found.cr_frame is None else f"to line {found.cr_frame.f_lineno}"
    return f"{found.__qualname__}, {line}"


async def measure(size: int, action: str) -> None:
    guards = "".join(f"  - {{name: {kind}, kind: {kind}, action: {action}}}\n" for kind in CHAIN)
    settings = config.parse(_SETTINGS + (f"guardrails:\n{guards}" if action != "none" else ""))
    made = pipeline.build(settings, Services(open_counters("memory:"), Telemetry(settings)))
    body = prompt(size, secrets=20)

    async def work() -> None:
        await ask(made, body)

    await work()
    with Held() as held:
        late, net, count = await delays(work)
    median, high, net_high = late[len(late) // 2], late[len(late) * 99 // 100], net[len(net) * 99 // 100]
    print(
        f"{len(body) / 1e6:.1f} MB, {action:8} {count:4} prompts, {_SECONDS / count * 1000:6.0f} ms each; others wait "
        f"p50 {median * 1000:5.2f}  p99 {high * 1000:5.2f}  most {late[-1] * 1000:6.2f}  "
        f"net p99 {net_high * 1000:5.2f}  most {net[-1] * 1000:5.2f} ms"
    )
    for name, seconds in sorted(held.longest.items(), key=lambda entry: -entry[1])[:6]:
        print(f"    held {seconds * 1000:6.2f} ms  {name}")


async def ask(made: pipeline.Pipeline, body: bytes) -> None:
    stream = GatewayStream(made)
    headers = {":method": "POST", ":path": "/v1/chat/completions", "authorization": "Bearer sk-gw-bench"}
    await stream.on_request_headers({**headers, "content-length": str(len(body))}, False)
    await stream.on_request_body(body)
    await stream.on_end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--size", type=float, default=1.0, help="MiB of a prompt")
    parser.add_argument("--action", choices=["none", "audit", "annotate", "mask"], action="append")
    options = parser.parse_args()
    os.environ["BENCH_KEY"] = "sk-gw-bench"
    for action in options.action or ["none", "audit", "mask"]:
        asyncio.run(measure(int(options.size * (1 << 20)), action))


if __name__ == "__main__":
    main()

"""The CPU time of searching requests: `python -m bench.guardrails.cost` (`--chain pii`, `--size 4096`, `--growth`).

For each kind of text: the median and the 99th percentile of a request through the stage of guardrails, and the longest
time for which it held the event loop. The default chain has to stay below 3 and 10 ms for prose of 4 kB, and the loop
has to be free after 5 ms. `held` is what a streamed answer of prose holds back for each guardrail: the characters that
have come and have not left, in the median and at the 99th percentile, where an event has about five.

Times are CPU time of the process, or of the loop's thread, so other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import time
import types
from collections.abc import Coroutine, Generator, Mapping, Sequence
from typing import Any

from bench.guardrails import phrases
from extproc.dialects import client_apis
from extproc.guardrails import GuardInput, GuardrailSettings, kinds
from extproc.guardrails._guard import Guard
from extproc.guardrails._watch import Watch
from extproc.wire.framing.sse import SSE
from tests.conftest import make_exchange

CHAIN = ("secrets", "pii", "prompt_injection")
MORE: Mapping[str, Mapping[str, Any]] = {"regex": {"patterns": {"word": r"\bcanary\b"}}}


def texts(size: int) -> Mapping[str, Sequence[str]]:
    """The messages of a request, by kind of text."""
    rng = random.Random(1)
    prose = " ".join(phrases.harmless(rng, 20_000 + size // 20))
    people = "Call +44 20 7946 0958, write to ana.smith@example.org, card 4111 1111 1111 1111; "
    numbers = json.dumps([f"{number}-{number * 7}" for number in range(size // 8)])
    made = {
        "prose": prose,
        "personal data": people * (size // len(people) + 1),
        "numbers": numbers,
        "hexadecimal": " ".join(f"{rng.getrandbits(128):032x}" for _ in range(size // 33 + 1)),
        "base64": " ".join(base64.b64encode(rng.randbytes(60)).decode() for _ in range(size // 81 + 1)),
        "Russian": "Привет, как дела? Это обычный текст. " * (size // 37 + 1),
        "Chinese": "今天天气很好我们去公园散步吧。" * (size // 15 + 1),
    }
    found = {name: [text.encode()[:size].decode(errors="ignore")] for name, text in made.items()}
    return found | {"many messages": [prose[at : at + 20] for at in range(0, size // 3, 20)]}


def settings(names: Sequence[str], action: str, on: str) -> list[GuardrailSettings]:
    return [kinds()[name](name=name, kind=name, action=action, on=[on], **MORE.get(name, {})) for name in names]


@types.coroutine
def timed(work: Coroutine[Any, Any, None], steps: list[float]) -> Generator[Any, Any, None]:
    """Run `work`; `steps` gets the seconds of each turn on the event loop."""
    inner, value = work.__await__(), None
    while True:
        then = time.thread_time()
        try:
            waited = inner.send(value)
        except StopIteration:
            return
        finally:
            steps.append(time.thread_time() - then)
        value = yield waited


async def requests(names: Sequence[str], messages: Sequence[str], rounds: int) -> tuple[list[float], float]:
    """Milliseconds of each request in order, and the longest turn. The first round is left out."""
    stage = GuardInput(settings(names, "audit", "input"), lambda _verdict: None)
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in messages]}
    times, turns = [], []
    for number in range(rounds + 1):
        exchange, steps = make_exchange(body), []
        then = time.process_time()
        await timed(stage(exchange), steps)
        if number:
            times.append((time.process_time() - then) * 1e3)
            turns.append(max(steps) * 1e3)
    return sorted(times), sorted(turns)[len(turns) * 99 // 100 - 1]


def held(name: str) -> list[int]:
    """Characters that wait after each event of a streamed answer, in order."""
    rng, text = random.Random(2), " ".join(phrases.harmless(random.Random(3), 300))
    [one] = settings([name], "mask" if name in ("secrets", "pii", "regex") else "block", "output")
    watch = Watch(
        client_apis()["openai_chat"], [Guard(one, 0)], lambda *_: "", lambda _verdict: None, plain=False, first_window=0
    )
    framing, waits, at, left = SSE(), [], 0, 0
    while at < len(text) and watch.refusal is None:
        piece = text[at : at + rng.randint(2, 8)]
        at += len(piece)
        event = json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]})
        for frame in watch.take(framing.feed(f"data: {event}\n\n".encode()), False):
            left += len(json.loads(frame.data or b"")["choices"][0]["delta"]["content"])
        waits.append(at - left)
    return sorted(waits)


def growth() -> None:
    """Milliseconds of CPU for many findings, in text that is ASCII and in text with one other letter in front."""
    guards = {
        name: Guard(kinds()[name](name=name, kind=name, action="audit", max_findings=1_000_000, **more), 0)
        for name, more in (("pii", {}), ("regex", {"patterns": {"letter": "e"}}))
    }
    print("| guardrail, text | 128 KiB | 512 KiB | 1 MiB | findings in 1 MiB |\n|---|---|---|---|---|")
    for name, guard in guards.items():
        for letter in ("", "é"):
            row: list[object] = []
            for size in (128 << 10, 512 << 10, 1 << 20):
                text = letter + texts(size)["personal data"][0]
                then = time.process_time()
                count = len(guard.all_hits(text, "user", "", time.monotonic() + 60))
                row.append(f"{(time.process_time() - then) * 1e3:.0f}")
            print(f"| {name}, {'one é' if letter else 'ASCII'} | {' | '.join(map(str, row))} | {count} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chain", default=",".join(CHAIN))
    parser.add_argument("--size", type=int, default=4096, help="bytes of text")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--growth", action="store_true", help="time by the size of a text with many findings, alone")
    options = parser.parse_args()
    if options.growth:
        growth()
        return
    names = options.chain.split(",")
    print("| text | p50 ms | p99 ms | longest turn of the loop, ms |\n|---|---|---|---|")
    for name, messages in texts(options.size).items():
        times, turn = asyncio.run(requests(names, messages, options.rounds))
        middle, late = (times[len(times) * share // 100 - 1] for share in (50, 99))
        print(f"| {name} | {middle:.2f} | {late:.2f} | {turn:.2f} |", flush=True)
    print("\n| guardrail | held p50 | held p99 |\n|---|---|---|")
    for name in names:
        waits = held(name)
        print(f"| {name} | {waits[len(waits) // 2]} | {waits[len(waits) * 99 // 100]} |", flush=True)


if __name__ == "__main__":
    main()

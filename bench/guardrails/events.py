"""The CPU time of masking for each event of a streamed answer.

    python -m bench.guardrails.events                     secrets and pii, then each alone
    python -m bench.guardrails.events --rounds 50

The bar is 120 µs for each event, and 5 ms for the one with which the held text leaves: `longest` is the longest event
of an answer, so the first text comes no later than that behind the text that is held back. Streams have 400 events with
a word or less each, in every client API that streams text piece by piece; one answer in two has an e-mail address to
mask. Times are CPU time of the process, so that other work on the machine counts little. They are the median of the
rounds, and the 90th percentile. `framing` is the time without guardrails, which is not in the others.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence

from bench.guardrails import phrases
from extproc.dialects import client_apis
from extproc.guardrails import kinds
from extproc.guardrails._guard import Guard
from extproc.guardrails._mask import Mask
from extproc.guardrails._watch import Watch
from extproc.wire.framing.sse import SSE

EVENTS = 400
MASKED = ("secrets", "pii")

PIECES: dict[str, Callable[[str], dict]] = {
    "openai_chat": lambda text: {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    },
    "openai_responses": lambda text: {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": text,
    },
    "anthropic_messages": lambda text: {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    },
}


def stream(dialect: str, rng: random.Random) -> bytes:
    """The bytes of an answer."""
    text = " ".join(phrases.harmless(rng, 60))
    if rng.random() < 0.5:
        text = f"{text[:500]} write to ana.smith@example.org {text[500:]}"
    out, at = [], 0
    for _ in range(EVENTS):
        size = rng.choice((2, 3, 4, 5, 6))
        out.append(f"data: {json.dumps(PIECES[dialect](text[at : at + size]))}\n\n")
        at += size
    return "".join(out).encode()


def guards(names: Sequence[str]) -> list[Guard]:
    made = [kinds()[name](name=name, kind=name, on=["output"], action="mask") for name in names]
    return [Guard(settings, order) for order, settings in enumerate(made)]


def play(dialect: str, body: bytes, masking: Sequence[Guard]) -> tuple[float, float]:
    """Seconds of CPU time for each event, in the guardrails alone, and for the longest of them."""
    masks = {guard.name: Mask(guard.settings) for guard in masking}
    watch = Watch(
        client_apis()[dialect],
        masking,
        lambda guard, kind, found: masks[guard.name](kind, found),
        lambda _verdict: None,
        plain=False,
        first_window=0,
    )
    events = [*SSE().feed(body)]
    begun = then = time.process_time()
    longest = 0.0
    for index, event in enumerate(events):
        watch.take([event], index == len(events) - 1)
        now = time.process_time()
        longest, then = max(longest, now - then), now
    return (then - begun) / len(events), longest


def framing(body: bytes) -> tuple[float, float]:
    then = time.process_time()
    events = [*SSE().feed(body)]
    return (time.process_time() - then) / len(events), 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    print("| API | masks | p50 CPU µs for an event | p90 | p50 of the longest |")
    print("| --- | --- | --- | --- | --- |")
    for dialect in PIECES:
        rng = random.Random(3)
        bodies = [stream(dialect, rng) for _ in range(args.rounds)]
        rows = [("framing", [framing(body) for body in bodies])]
        for names in (MASKED, *((name,) for name in MASKED)):
            made = guards(names)
            play(dialect, bodies[0], made)  # compiles the patterns
            rows.append((" and ".join(names), [play(dialect, body, made) for body in bodies]))
        for name, found in rows:
            times = sorted(each for each, _ in found)
            longest = statistics.median(most for _, most in found)
            p90 = times[len(times) * 9 // 10]
            print(
                f"| {dialect} | {name} | {statistics.median(times) * 1e6:.1f} | {p90 * 1e6:.1f} | {longest * 1e6:.0f} |"
            )


if __name__ == "__main__":
    main()

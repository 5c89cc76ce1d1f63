"""CPU of a MiB of an answer that repeats one pattern of bytes: `python -m bench.patterns` (`--size`, `--most 100`).

For each pattern of a generated set: the framing alone, the answer reader with the usual stages, the same under
guardrails, and the translation for a client of another API. In pieces of 16 KiB, as Envoy reads them. `events` are what
the framing alone makes of it.

Some patterns are a thousand events that differ by a number. Patterns with `key` are events with a key in their data.
Their readers teach the framing which of them carry nothing and which say nothing but a text, so that it finds them in
rows. It knows neither when it runs alone: that figure is not theirs. Every other figure has to stay below `BAR`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.core import SETTINGS, conversation, headers
from extproc.envoy.server.wire import converse, go_on
from extproc.exchange import pipeline
from extproc.exchange.attempt import AttemptStream
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.services import Services
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings import config
from extproc.stores import open_counters
from extproc.wire.framing.aws_eventstream import AWSEventStream, encode
from extproc.wire.framing.sse import SSE
from extproc.words import contract
from extproc.words.contract import Edit, Service
from extproc.words.exchange import Target

BAR = 50.0
"""Milliseconds of CPU that a MiB of a pattern may cost."""
PACE = 4.3
"""Milliseconds of CPU of `pace` on the machine that `BAR` is meant for."""
_PIECE = 16 << 10
_TRIES = 8
_AMAZON = "application/vnd.amazon.eventstream"
_SSE = "text/event-stream"
_TOKENS = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b":", b" ", b"\t", b"data:", b"data: ", b"event:", b"id:", b"retry:", b"{", b"}"),
    *(
        b"[",
        b"]",
        b",",
        b"0",
        b"17",
        b"x",
        b"-",
        b".",
        b"{}",
        b"[]",
        b"null",
        b"[DONE]",
        b'"',
        b"\xef\xbb\xbf",
        b"\xff",
    ),
)
_GUARDRAILS = """
guardrails:
  - {name: pii, kind: pii, on: [output], action: block}
  - {name: names, kind: regex, patterns: {key: "sk-[a-z]{20,}"}, on: [output], action: block}
"""
_TINY = ("{}", "[]", "{", "x", "1", "1.5", "null", '""', '"x"', "[DONE]", "[1]", '{"a":1}', '{"":0}', '{"a":"b"}')
_SMALLEST = (
    '{"choices":[]}',
    '{"choices":[{"delta":{"content":"a"}}]}',
    '{"type":"ping"}',
    '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}',
    '{"type":"response.output_text.delta","delta":"a"}',
    '{"candidates":[]}',
    '{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}',
    '{"usageMetadata":{}}',
    '[{"candidates":[]}]',
)
_VARIED = (
    *('{"a":%d}', '{"a":-%d.5,"b":null}', '{"k%d":1,"w":[]}', '{"choices":[],"x":%d}', '{"candidates":[],"x":%d}'),
    '{"choices":[{"index":0,"delta":{"content":"%d"}}]}',
    '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%d"}}',
    '{"type":"response.output_text.delta","delta":"%d"}',
)
"""Events that differ by a number."""
_KEY = re.compile(rb'data:[^\r\n]*"[ \t]*:').search


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of CPU for a MiB."""

    pattern: bytes
    kind: str
    events: int
    framing: float
    reader: float
    guarded: float
    translation: float

    @property
    def keyed(self) -> bool:
        """True where the events have a key, or a name."""
        return bool(_KEY(self.pattern)) or (self.kind == _AMAZON and (b'"' in self.pattern or b"chunk" in self.pattern))

    @property
    def figures(self) -> tuple[float, ...]:
        return self.framing, self.reader, self.guarded, self.translation

    @property
    def worst(self) -> float:
        return max(self.figures[self.keyed and self.kind == _SSE :])

    def __str__(self) -> str:
        figures = (
            f"{self.framing:9.1f} {self.reader:9.1f} {self.guarded:9.1f} {self.translation:12.1f} {self.events:8d}"
        )
        return f"{figures}  {'key' if self.keyed else '   '}  {self.pattern[:56]!r}"


HEAD = f"{'framing':>9} {'reader':>9} {'guarded':>9} {'translation':>12} {'events':>8}  key  pattern"


def patterns(most: int) -> Iterator[tuple[bytes, str]]:
    """Patterns and their content type: single tokens, all pairs, `most` of the longer ones, and the smallest events."""
    chance = random.Random(24)
    yield from ((token, _SSE) for token in _TOKENS)
    yield from ((b"".join(pair), _SSE) for pair in itertools.product(_TOKENS, repeat=2))
    longer = (b"".join(chance.choices(_TOKENS, k=chance.choice((3, 4, 5)))) for _ in range(most))
    yield from ((pattern, _SSE) for pattern in longer)
    for end, text in itertools.product((b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\n\n"), (*_TINY, *_SMALLEST)):
        for begin in (b"data:", b"data: ", b"event: a\ndata: ", b": a\n\ndata: "):
            yield begin + text.encode() + end, _SSE
    for text, begin in itertools.product(_VARIED, ("data:", "data: ", "event: a\ndata: ")):
        yield "".join(f"{begin}{text % number}\n\n" for number in range(1_000)).encode(), _SSE
    for headers_, text in itertools.product(({}, {":a": "b"}, {":event-type": "chunk"}), ("", "{}", "x", '{"a":1}')):
        yield encode(headers_, text.encode()), _AMAZON


def measured(found: Iterable[tuple[bytes, str]], size: int) -> Iterator[Cost]:
    """The cost of each pattern, from `size` bytes of it."""
    os.environ.setdefault("BENCH_KEY", "sk-gw-bench")
    settings = config.parse(SETTINGS)
    builds = [
        pipeline.build(one, Services(open_counters("memory:"), Telemetry(one)))
        for one in (settings, config.parse(SETTINGS + _GUARDRAILS))
    ]
    runner = asyncio.Runner()
    for pattern, kind in found:
        body = pattern * max(1, size // len(pattern))
        scale = 1000 * (1 << 20) / len(body)
        cost = Cost(pattern, kind, 0, math.inf, math.inf, math.inf, math.inf)
        for _ in range(_TRIES):  # the least disturbed counts
            events, framed = _framed(body, kind)
            read = [0.0 if kind == _AMAZON else runner.run(_read(build, body)) for build in builds]
            times = (framed, *read, runner.run(_translated(settings, body, kind)))
            least = [min(one * scale, before) for one, before in zip(times, cost.figures, strict=True)]
            cost = Cost(pattern, kind, events, *least)
            if cost.worst < BAR / 2:
                break
        yield cost
    runner.close()


def pace() -> float:
    """How many times as long as on the bar's machine the interpreter takes for a fixed work now."""
    times = []
    for _ in range(_TRIES):
        then = time.process_time()
        found: dict[bytes, int] = {}
        for number in range(30_000):
            name, _, value = (b"data:%d" % number).partition(b":")
            found[value] = len(name)
        times.append(time.process_time() - then)
    return 1000 * min(times) / PACE


def _framed(body: bytes, kind: str) -> tuple[int, float]:
    """The number of frames, and the seconds of CPU."""
    framing = AWSEventStream() if kind == _AMAZON else SSE()
    then = time.process_time()
    events = sum(len(framing.feed(piece)) for piece in _pieces(body)) + len(framing.end())
    return events, time.process_time() - then


def _pieces(body: bytes) -> list[bytes]:
    return [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)]


async def _read(build: pipeline.Pipeline, body: bytes) -> float:
    stream = GatewayStream(build)
    head, request, *_ = conversation()
    answer = headers(
        "response_headers", {":status": "200", "content-type": _SSE}, {"upstream.request_attempt_count": 1}
    )
    for message in (head, request, answer):
        await converse(stream, message)
    return await _fed(stream, body)


async def _translated(settings: Any, body: bytes, kind: str) -> float:
    service = Service("openai", "openai_chat", "m", stream=True)
    if kind == _AMAZON:
        service = Service("aws_bedrock", "aws_converse", "m", stream=True)
    stream = AttemptStream(settings.limits)
    given = {
        contract.TARGETS: contract.encode_targets([Target("m", "a", "m")]),
        contract.ATTEMPT_COUNT: "1",
        contract.EDITS: contract.encode_edits([Edit({}, (), service)]),
        contract.DIALECT: "anthropic_messages",
    }
    asked = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    await stream.on_request_headers(given, False)
    await stream.on_request_body(json.dumps(asked).encode())
    await stream.on_response_headers({":status": "200", "content-type": kind}, {}, False)
    return await _fed(stream, body)


async def _fed(stream: Any, body: bytes) -> float:
    """Seconds of CPU for a body. A stream that ended takes the rest for nothing."""
    then = time.process_time()
    for piece in _pieces(body):
        if stream.done:
            break
        await stream.on_response_body(piece, False)
        while stream.more:
            await go_on(stream)
    spent = time.process_time() - then
    await stream.on_end()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of each pattern")
    parser.add_argument("--most", type=int, default=300, help="patterns of three to five tokens")
    given = parser.parse_args()
    costs = sorted(measured(patterns(given.most), given.size), key=lambda cost: -cost.worst)
    plain, keyed = ([cost for cost in costs if cost.keyed is which] for which in (False, True))
    print("ms of CPU for a MiB\n" + HEAD)
    for cost in (*plain[:12], *keyed[:12]):
        print(cost)
    print(f"{len(plain)} patterns without a key: at most {plain[0].worst:.1f} ms, bar {BAR:.0f};", end=" ")
    print(f"{len(keyed)} with a key: at most {keyed[0].worst:.1f} ms; this machine's pace: {pace():.1f}")


if __name__ == "__main__":
    main()

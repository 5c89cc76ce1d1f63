"""The size and time of a scrape after requests of 500 consumers to 10 models: `python -m bench.scrape`.

The requests go through a real gateway; then `/metrics` is read. The exit code is 1 beyond 2 MB or 200 ms (the median).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import beside_stub, environment, free_port
from bench.load import request
from bench.steady import LATE, Lateness

MOST_BYTES, MOST_SECONDS = 2_000_000, 0.2
SCRAPES = 20
AT_ONCE = 20

SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
providers:
  stub: {{kind: openai, base_url: "http://127.0.0.1:{stub}/v1"}}
models: {{{models}}}
consumers: [{consumers}]
stores: {{counters: "memory:", ledger: "memory:"}}
telemetry: {{access_log: "off"}}
"""


@contextmanager
def staged(consumers: int, models: int) -> Iterator[dict[str, int]]:
    """The ports of a gateway whose consumer N has the key `sk-gw-N`."""
    ports = {name: free_port() for name in ("listener", "status", "admin", "stub")}
    keys = {f"KEY_{number}": f"sk-gw-{number}" for number in range(consumers)}
    listed = [
        f"{{name: consumer-of-a-department-{number}, keys: [{{env: KEY_{number}}}]}}" for number in range(consumers)
    ]
    targets = [f"provider/a-model-2026-{number}: {{provider: stub}}" for number in range(models)]
    env = {**environment(), **keys, "OPENAI_API_KEY": "sk-stub"}
    with tempfile.TemporaryDirectory(prefix="scrape-") as folder:
        file = Path(folder, "gateway.yaml")
        file.write_text(SETTINGS.format(**ports, models=", ".join(targets), consumers=", ".join(listed)))
        with beside_stub(Path(folder), file, ports, env):
            yield ports


async def fill(port: int, consumers: int, models: int) -> Counter[str]:
    """A request of each consumer to each model. Returns the answers by status."""
    left = [(consumer, model) for model in range(models) for consumer in range(consumers)]
    found: Counter[str] = Counter()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left:
            consumer, model = left.pop()
            message = request(f"provider/a-model-2026-{model}")
            writer.write(message.replace(b"Bearer sk-gw-bench", b"Bearer sk-gw-%d" % consumer))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            found[head[9:12].decode()] += 1
        writer.close()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return found


async def scrape(port: int) -> tuple[bytes, list[float], float]:
    """The text, the seconds of each scrape, and the seconds by which timers of this process were late."""
    url = f"http://127.0.0.1:{port}/metrics"
    text, seconds = b"", []
    async with Lateness() as lateness:
        for _ in range(SCRAPES):
            begun = time.perf_counter()
            text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=30).read())
            seconds.append(time.perf_counter() - begun)
    return text, seconds, lateness.worst


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--consumers", type=int, default=500, help="(default: 500)")
    parser.add_argument("--models", type=int, default=10, help="(default: 10)")
    options = parser.parse_args()
    with staged(options.consumers, options.models) as ports:
        answers = asyncio.run(fill(ports["listener"], options.consumers, options.models))
        text, seconds, late = asyncio.run(scrape(ports["status"]))
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    median = statistics.median(seconds)
    print(f"{dict(answers)} requests of {options.consumers} consumers to {options.models} models")
    print(f"{len(text) / 1e6:.2f} MB, {series} series; {median * 1000:.0f} ms, at worst {max(seconds) * 1000:.0f} ms")
    if late > LATE:
        print(f"the machine is busy with other work: timers here were late by up to {late:.1f} s")
    held = set(answers) == {"200"} and len(text) <= MOST_BYTES and median <= MOST_SECONDS
    print("held" if held else f"NOT HELD: at most {MOST_BYTES / 1e6:.0f} MB and {MOST_SECONDS * 1000:.0f} ms")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

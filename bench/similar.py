"""Questions in other words: how near pairs are, what a model says about them, and the cost of a search.

    python -m bench.similar                                     the pairs, by kind
    python -m bench.similar --url http://127.0.0.1:10000 --key KEY --embeddings NAME --verify NAME [--least 0.6]
    python -m bench.similar --search                            bytes and times of an index of 100,000 questions

With `--url` the models of a gateway are asked, as the cache asks them: which pairs are near at each threshold, and
which of those from `--least` on the model calls the same. It is wrong where it does so and the pair differs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from bench.similar_pairs import Pair, pairs
from extproc.cache.settings import SimilarModelSettings, VerifySettings
from extproc.cache.similar.index import Index, KeptQuestion
from extproc.cache.similar.model import EmbeddingModel
from extproc.cache.similar.verify import Verify
from extproc.guardrails import Around
from extproc.wire.outbound.service import Failure
from extproc.words.values import secret

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
_AT_ONCE = 16
_EMPTY = '{"system":[],"tools":[],"turns":[]}'


def show(found: Sequence[Pair]) -> None:
    kinds = Counter((pair.kind, pair.same) for pair in found)
    print(f"{len(found)} pairs: {sum(pair.same for pair in found)} mean the same")
    for (kind, same), count in sorted(kinds.items()):
        print(f"  {count:5} {kind}{': the same' if same else ''}")


async def judged(found: Sequence[Pair], options: argparse.Namespace) -> None:
    """Ask the models of a gateway about all pairs."""
    os.environ["BENCH_SIMILAR_KEY"] = options.key
    around = Around(door=options.url, keys={"bench": secret("env:BENCH_SIMILAR_KEY")})
    model = EmbeddingModel(SimilarModelSettings(model=options.embeddings, consumer="bench", timeout=5), around)
    verify = Verify(VerifySettings(model=options.verify, consumer="bench", timeout=7), around)
    turns = asyncio.Semaphore(_AT_ONCE)
    known: dict[str, np.ndarray] = {}

    async def vector(text: str) -> None:
        async with turns:
            given = np.asarray(await model.vector(text), np.float32)
            known[text] = given / (np.linalg.norm(given) or 1)

    async def verdict(pair: Pair) -> bool:
        async with turns:
            try:
                return await verify.same(_EMPTY, pair.one, pair.other, time.monotonic() + 7)
            except Failure:
                return False

    await asyncio.gather(*[vector(text) for text in {text for pair in found for text in (pair.one, pair.other)}])
    scores = {pair: float(known[pair.one] @ known[pair.other]) for pair in found}
    for least in THRESHOLDS:
        near = [pair for pair in found if scores[pair] >= least]
        same = sum(pair.same for pair in near)
        print(f"  {least:.2f} {len(near):5} near, {same:4} mean the same, {len(near) - same:5} do not")
    near = [pair for pair in found if scores[pair] >= options.least]
    said = dict(zip(near, await asyncio.gather(*[verdict(pair) for pair in near]), strict=True))
    _show_verdicts(said, options.least)


def _show_verdicts(said: Mapping[Pair, bool], least: float) -> None:
    given = [pair for pair, same in said.items() if same]
    wrong = [pair for pair in given if not pair.same]
    print(f"  of {len(said)} near ones from {least} on {len(given)} get an answer, {len(wrong)} of them a wrong one")
    for pair in wrong:
        print(f"    {pair.kind}: {pair.one!r} {pair.other!r}")


def search(count: int = 100_000) -> None:
    chance = np.random.default_rng(16)
    for size in (256, 1024, 1536):
        index, rows = Index(16 << 30), 0
        vectors = chance.standard_normal((1000, size), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        began = time.process_time()
        while rows < count:
            index.add(b"p", vectors[rows % 1000], KeptQuestion(rows.to_bytes(32, "big"), b"o" * 16, 1e12))
            rows += 1
        added = (time.process_time() - began) / count * 1e6
        times: list[float] = []
        cpu = time.process_time()
        with asyncio.Runner() as runner:
            for number in range(20):
                began = time.perf_counter()
                runner.run(index.best(b"p", vectors[number], 0.95, 0))
                times.append(time.perf_counter() - began)
        cpu = (time.process_time() - cpu) / 20 * 1e3
        print(
            f"{count:,} questions of {size} numbers: {index.size / 1e6:.0f} MB, {added:.0f} µs CPU to add one, "
            f"{sorted(times)[10] * 1e3:.1f} ms and {cpu:.1f} ms CPU to search"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.similar")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--least", type=float, default=0.6)
    for name in ("--url", "--key", "--embeddings", "--verify"):
        parser.add_argument(name)
    options = parser.parse_args(arguments)
    if options.search:
        return search()
    show(found := pairs())
    if options.url is not None:
        asyncio.run(judged(found, options))
    return None


if __name__ == "__main__":
    main()

"""Questions in other words: precision by threshold, and the cost of a search: `python -m bench.similar`.

    python -m bench.similar                               words, on the pairs in bench/similar.jsonl
    python -m bench.similar --queries FILE.jsonl          also: the nearest of many queries with an `intent` each
    python -m bench.similar --url http://127.0.0.1:10000 --key KEY --model NAME     an embedding model of a gateway
    python -m bench.similar --search                      bytes and times of an index of 100,000 questions

A pair is a hit where its score reaches the threshold and, with the guard, where its facts and names agree. A line of
the pairs has a `question`, questions that are the `same`, and `other` ones that differ in one thing. The nearest of
many queries is certainly wrong where its intent is another one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from extproc.cache.similar.finder import words
from extproc.cache.similar.index import Index, Row, _scores
from extproc.cache.similar.wording import Said, agree, said
from extproc.outbound.client import ask

PAIRS = Path(__file__).with_name("similar.jsonl")
THRESHOLDS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
Vectors = Callable[[str], np.ndarray]


def score(one: np.ndarray, other: np.ndarray) -> float:
    norms = [float(np.linalg.norm(vector)) for vector in (one, other)]
    if not all(norms):
        return 0.0
    [found] = _scores((one / norms[0])[None], np.array(norms[:1], np.float32), other / norms[1], norms[1])
    return float(found)


def guarded(one: str, other: str) -> bool:
    a, b = said(one), said(other)
    return a.facts == b.facts and agree(a, b)


def pairs(vectors: Vectors) -> None:
    found: list[tuple[bool, float, bool]] = []
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        group = json.loads(line)
        question = vectors(group["question"])
        for same, texts in ((True, group["same"]), (False, group["other"].values())):
            found += [(same, score(question, vectors(text)), guarded(group["question"], text)) for text in texts]
    all_same = sum(same for same, _, _ in found)
    print(f"{all_same} pairs that are the same, {len(found) - all_same} that differ in one thing")
    for least in THRESHOLDS:
        for guard in (False, True):
            hits = [same for same, near, agrees in found if near >= least and (agrees or not guard)]
            precision = sum(hits) / len(hits) if hits else 1.0
            told = "with the guard" if guard else "without it"
            wrong = len(hits) - sum(hits)
            print(f"  {least:.2f} {told:14} {len(hits):4} hits, {wrong:3} wrong, precision {precision:.3f}")


def queries(path: Path, vectors: Vectors) -> None:
    rows = {row["text"]: row["intent"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    texts, intents = [*rows], [*rows.values()]
    all_vectors = np.stack([vectors(text) for text in texts])
    norms = np.linalg.norm(all_vectors, axis=1)
    units = all_vectors / norms[:, None]
    all_said = [said(text) for text in texts]
    nearest: list[tuple[float, bool, bool]] = []
    for number, unit in enumerate(units):
        scores = _scores(units, norms, unit, float(norms[number]))
        scores[number] = -1
        for guard in (False, True):
            best = np.argpartition(scores, -8)[-8:]
            for other in best[np.argsort(scores[best])[::-1]]:
                one, two = all_said[number], all_said[other]
                if not guard or (one.facts == two.facts and agree(one, two)):
                    nearest.append((float(scores[other]), intents[number] == intents[other], guard))
                    break
    print(f"{len(texts)} queries with {len(set(intents))} intents: the nearest other one")
    for least in THRESHOLDS:
        for guard in (False, True):
            hits = [same for near, same, its in nearest if near >= least and its is guard]
            told = "with the guard" if guard else "without it"
            print(f"  {least:.2f} {told:14} {len(hits):5} hits, {hits.count(False):4} of another intent")


def search(count: int = 100_000) -> None:
    chance = np.random.default_rng(16)
    empty = Said((), said("")[1], frozenset())
    for size in (256, 1024, 1536):
        index, rows = Index(16 << 30), 0
        vectors = chance.standard_normal((1000, size), np.float32)
        began = time.process_time()
        while rows < count:
            noise = np.float32(0.01) * (rows // 1000)
            index.add(b"p", vectors[rows % 1000] + noise, Row(rows.to_bytes(32, "big"), b"o" * 16, 1e12, empty))
            rows += 1
        added = (time.process_time() - began) / count * 1e6
        times: list[float] = []
        cpu = time.process_time()
        with asyncio.Runner() as runner:
            for number in range(20):
                began = time.perf_counter()
                runner.run(index.best(b"p", vectors[number], None, 0.95, 0))
                times.append(time.perf_counter() - began)
        cpu = (time.process_time() - cpu) / 20 * 1e3
        print(
            f"{count:,} questions of {size} numbers: {index.size / 1e6:.0f} MB, {added:.0f} µs CPU to add one, "
            f"{sorted(times)[10] * 1e3:.1f} ms and {cpu:.1f} ms CPU to search"
        )


def model(url: str, key: str, name: str) -> Vectors:
    known: dict[str, np.ndarray] = {}

    def vector(text: str) -> np.ndarray:
        if text not in known:
            body = json.dumps({"model": name, "input": text}).encode()
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            status, answer = ask(f"{url}/v1/embeddings", body, headers, timeout=30, most=1 << 20)
            assert status == 200, answer
            found = np.asarray(json.loads(answer)["data"][0]["embedding"], np.float32)
            known[text] = found / (np.linalg.norm(found) or 1)
        return known[text]

    return vector


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.similar")
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--search", action="store_true")
    for name in ("--url", "--key", "--model"):
        parser.add_argument(name)
    options = parser.parse_args(arguments)
    if options.search:
        return search()
    vectors = words if options.url is None else model(options.url, options.key, options.model)
    pairs(vectors)
    if options.queries is not None:
        queries(options.queries, vectors)
    return None


if __name__ == "__main__":
    main()

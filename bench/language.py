"""Measures the language that routing reads from texts: `python -m bench.language FILE.jsonl`.

Each line is an object with `text` and `language`, an ISO 639-1 code.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from extproc.routing.language import language


def main() -> None:
    counts: dict[str, Counter[str]] = {}
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            told, is_ = language(entry["text"]), entry["language"]
            verdict = "right" if told == is_ else "wrong" if told else "open"
            counts.setdefault(is_, Counter())[verdict] += 1
    print(f"{'language':<10}{'texts':>7}{'right':>7}{'open':>7}{'wrong':>7}")
    whole: Counter[str] = Counter()
    for count in counts.values():
        whole += count
    for name, count in [*sorted(counts.items()), ("all", whole)]:
        print(f"{name:<10}{count.total():>7}{count['right']:>7}{count['open']:>7}{count['wrong']:>7}")


if __name__ == "__main__":
    main()

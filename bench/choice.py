"""CPU of the choice of an endpoint: `python -m bench.choice` (`--endpoints 100`, `--choices 20000`).

Every scorer is on, and every kind of candidate takes part: three endpoints hold the prompt, one has the session, the
digest points to one, two are drawn. The choice has to stay below `BAR` at 100 endpoints. The hashing of the prompt is
not in it. The figure is the least of ten rounds, because other work on the machine only ever adds to it.
"""

from __future__ import annotations

import argparse
import random
import time

from extproc.routing.pools.endpoint import Endpoint, Report
from extproc.routing.pools.picker import Facts, Picker
from extproc.routing.pools.prefixes import BLOCK, chain
from extproc.upstream.providers._pool import WEIGHTS

BAR = 25.0
"""Microseconds of CPU that a choice may cost at 100 endpoints."""
_ROUNDS = 10


def cost(endpoints: int, choices: int) -> float:
    """Microseconds of CPU of one choice."""
    any_ = random.Random(1)
    pool = [
        Endpoint(f"10.0.{number >> 8}.{number & 255}:8000", report=Report(any_.randrange(3), any_.randrange(20), 0.6))
        for number in range(endpoints)
    ]
    picker, blocks, now = Picker(dict(WEIGHTS)), chain(["x" * 8 * BLOCK]), 1000.0
    for endpoint in pool[:3]:
        picker.index.note(blocks, endpoint.address, now)
    asked = [
        Facts(now, blocks, digest=any_.getrandbits(64), adapter="sql", session=any_.choice(pool).address)
        for _ in range(choices // _ROUNDS)
    ]
    took = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for facts in asked:
            picker.choose(pool, facts)
        took.append(time.process_time() - began)
    return min(took) / len(asked) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--choices", type=int, default=20_000)
    options = parser.parse_args()
    micros = cost(options.endpoints, options.choices)
    print(f"{micros:.1f} us for a choice among {options.endpoints} endpoints; the bar is {BAR:g} us at 100")


if __name__ == "__main__":
    main()

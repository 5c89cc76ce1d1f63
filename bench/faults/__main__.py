"""The command: breaks, measures, prints the table."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.faults.faults import FAULTS, HOLD, Fault
from bench.faults.world import World
from bench.load import request
from bench.steady import LATE, Lateness, Steady, counted

_BUGS = "extproc_internal_errors_total"
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
CALM = 1.5  # seconds without a failure that count as recovered
LONGEST = 20.0  # seconds to wait for that
QUICK = 0.5  # seconds of a plain answer, in a calm time
SETTLE = 60.0  # seconds to wait for a calm time before a fault
TRIES = 3  # of a fault that was judged on such a machine


@dataclass(slots=True)
class Result:
    """What one fault did. `recovery` is in seconds; None: not within LONGEST."""

    fault: Fault
    during: str
    after: str
    recovery: float | None
    wrong: list[str]
    tried: bool = True
    late: float = 0.0  # seconds by which the load's own timers were late, at worst

    @property
    def verdict(self) -> str:
        return "not tried" if not self.tried else "WRONG" if self.wrong else "held"


async def trial(world: World, load: Steady, fault: Fault) -> Result:
    """Break one thing and mend it again."""
    await _calm(load)
    async with Lateness() as lateness:
        result = await _broken(world, load, fault)
    result.late = lateness.worst
    return result


async def _calm(load: Steady) -> None:
    """Wait until the effects of the fault before are over: no failure for a time, and quick answers."""
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        latest = load.ended(time.monotonic() - CALM)
        slowest = max((outcome.seconds for outcome in latest if not outcome.stream), default=SETTLE)
        if slowest < QUICK and all(outcome.what == "ok" for outcome in latest):
            return
        await asyncio.sleep(0.2)


async def _broken(world: World, load: Steady, fault: Fault) -> Result:
    world.begun = time.monotonic()
    bugs = await asyncio.to_thread(world.metric, _BUGS)
    async with fault.breaks(world) as complaint:
        if complaint is not None and complaint.startswith("not tried"):
            return Result(fault, "", "", None, [complaint], tried=False)
    mended = time.monotonic()
    recovery = await _recovered(load, mended)
    during, after = load.ended(world.begun, mended), load.ended(mended)
    wrong = [complaint] if complaint else []
    if unexpected := [outcome for outcome in (*during, *after) if outcome.what not in ("ok", *fault.seen)]:
        wrong.append(f"unexpected: {counted(unexpected)}")
    if recovery is None or recovery > fault.recovers:
        wrong.append("not recovered in time")
    if await asyncio.to_thread(world.metric, _BUGS) > bugs:
        wrong.append("an internal error was counted")
    return Result(fault, counted(during), counted(after), recovery, wrong)


async def _recovered(load: Steady, mended: float) -> float | None:
    """Seconds from the repair to the end of the last failure."""
    while (now := time.monotonic()) < mended + LONGEST:
        failed = [outcome.at + outcome.seconds for outcome in load.outcomes[-5000:] if outcome.what != "ok"]
        last = max(failed, default=0.0)
        fresh = [outcome for outcome in load.outcomes[-500:] if outcome.at > max(last, mended)]
        if now - max(last, mended) > CALM and fresh:
            return max(0.0, last - mended)
        await asyncio.sleep(0.1)
    return None


async def run(world: World, faults: Sequence[Fault], rate: float, streams: int) -> list[Result]:
    watching = asyncio.create_task(world.watch())
    plain, streamed = request("plain"), request("slow", stream=True)
    results = []
    load = Steady(lambda: [world.ports["listener"]], rate, streams, plain, streamed)
    try:
        async with load:
            await asyncio.sleep(3)
            for fault in faults:
                for left in reversed(range(TRIES)):
                    result = await trial(world, load, fault)
                    print(line(result), flush=True)
                    if result.verdict != "WRONG" or result.late < LATE or not left:
                        break
                    print(f"          again: the machine is busy, the load itself was late by {result.late:.1f} s")
                results.append(result)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return results


def line(result: Result) -> str:
    recovery = "-" if result.recovery is None else f"{result.recovery:.1f} s"
    found = f"{result.verdict:<10}{result.fault.name}: {result.during}; afterwards {result.after}; {recovery}"
    return found + "".join(f"\n          - {wrong}" for wrong in result.wrong)


def table(results: Sequence[Result], page: str = "") -> str:
    """The table of docs/faults.md. Rows of `page` stay where their fault was not tried now."""
    known = {row.split("|")[1].strip(): row for row in page.partition(BEGIN)[2].splitlines() if row.startswith("| ")}
    lines = [
        "| Fault | Expected | Errors meanwhile | Errors afterwards | Recovered | Verdict |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        recovery = "" if result.recovery is None else f"{result.recovery:.1f} s"
        fault = result.fault
        cells = (fault.name, fault.expected, result.during, result.after, recovery, result.verdict)
        known[fault.name] = f"| {' | '.join(cells)} |"
    lines += [known[fault.name] for fault in FAULTS if fault.name in known]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="faults whose name has this text")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (default: 100)")
    parser.add_argument("--streams", type=int, default=50, help="open at all times (default: 50)")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    wanted = [fault for fault in FAULTS if options.only in fault.name]
    results: list[Result] = []
    for shared in (True, False):
        chosen = [fault for fault in wanted if fault.shared is shared]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            world = World(Path(folder), shared=shared)
            try:
                world.start()
                results += asyncio.run(run(world, chosen, options.rate, options.streams))
            finally:
                world.stop()
                if os.environ.get("FAULTS_LOG"):
                    print(world.log[-20_000:], file=sys.stderr)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{table(results, text)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    held = all(result.verdict != "WRONG" for result in results)
    print(f"{sum(result.verdict == 'held' for result in results)} of {len(results)} held, {HOLD:.0f} s each")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

"""The views of the console over a million rows, in a real browser: `python -m bench.console [ROWS]`.

A processor serves a ledger in SQLite with a month of a company. The table has the milliseconds from the choice of a
view until it is drawn, the slower one of two: as usual, and while all sums are made anew. The bar is 500. Chromium and
playwright must be installed.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
from playwright.sync_api import Page, sync_playwright

from bench.__main__ import row
from bench.harness import SETTINGS, bench, free_port
from bench.ledger import DAYS, START, rows
from extproc.money.ledger import open_ledger
from extproc.money.ledger.ledger import Ledger

BAR = 500
"""Milliseconds until a view is drawn."""
VIEWS = (
    "overview",
    "requests",
    "runs",
    "models",
    "budgets",
    "keys",
    "compare",
    "cache",
    "explain",
    "settings",
    "audit",
)
PERIODS = ("week", "thirty")


def fill(ledger: Ledger, count: int, now: float) -> None:
    """Write the month that ends now."""
    shift = now - START.timestamp() - DAYS * 86_400
    for one in rows(count):
        while not ledger.writer.add(msgspec.structs.replace(one, time=one.time + shift, run=one.labels["run"])):
            time.sleep(0.01)
    while ledger.writer.queued:
        time.sleep(0.01)


@contextlib.contextmanager
def opened(admin: int) -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.goto(f"http://127.0.0.1:{admin}/")
        page.wait_for_selector('main[aria-busy="false"]', state="attached")
        yield page
        browser.close()


def drawn(page: Page, view: str, period: str) -> float:
    """Milliseconds until a view is drawn, the slower one of two."""
    slowest = 0.0
    for _ in range(2):
        page.evaluate("location.hash = 'view=explain'")
        page.wait_for_selector('main[aria-busy="false"]', state="attached")
        begun = time.perf_counter()
        page.evaluate(f"location.hash = 'view={view}&period={period}'")
        page.wait_for_timeout(1)
        page.wait_for_selector('main[aria-busy="false"]', state="attached")
        slowest = max(slowest, (time.perf_counter() - begun) * 1000)
    return slowest


def main(count: int) -> int:
    admin, now = free_port(), time.time()
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        url = f"sqlite:{Path(folder) / 'ledger.db'}"
        ledger = open_ledger(url)
        ledger.writer.start()
        fill(ledger, count, now)
        ledger.roll_up(now)
        settings = SETTINGS.replace("{admin}", str(admin)).replace("sqlite:{dir}/ledger.db", url)
        with bench(settings=settings), opened(admin) as page:
            usual = {(view, period): drawn(page, view, period) for view in VIEWS for period in PERIODS}
            request = urllib.request.Request(
                f"http://127.0.0.1:{admin}/ledger/rebuild", b"{}", {"content-type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=30).close()
            making = threading.Thread(target=ledger.roll_up, args=(now,))
            making.start()
            anew = {place: drawn(page, *place) for place in usual}
            made = "" if making.is_alive() else " (the sums were made before the end)"
            making.join()
        ledger.writer.stop()
        ledger.close()
    row(f"{count:,} rows, ms until a view is drawn", "usual", "made anew", "bar")
    for (view, period), taken in usual.items():
        row(f"  {view}, {period}", f"{taken:.0f}", f"{anew[view, period]:.0f}", BAR)
    print(f"all{made}" if made else "all of it while sums were made")
    return int(max(*usual.values(), *anew.values()) > BAR)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))

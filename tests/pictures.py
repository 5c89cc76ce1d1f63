"""Draws docs/images/console-*.png: `python -m tests.pictures`, which `make pictures` calls. The data are made up."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from extproc.operate.admin.api import admin_app
from extproc.operate.admin.doors import HTTPThread
from tests.admin.fakes import FakeDesk, FakeSources, some

FOLDER = Path(__file__).parents[1] / "docs" / "images"
VIEWS = {"overview": "#view=overview&period=week", "request": "#view=requests&period=week&id={id}"}


def main(chromium: str) -> None:
    now = time.time()
    sources = FakeSources(some(now, 600), now)
    tries = [{"target": "gpt-4o", "provider": "openai", "status": 503, "ms": 1250, "outcome": "5xx"}]
    served = next(entry for entry in reversed(sources.entries) if entry["outcome"] == "ok")
    served |= {
        "tries": tries,
        "target": "spare",
        "duration_ms": 2410.0,
        "charges": {"team-month:team=platform": 25_000_000},
        "levels": {
            "team-month:team=platform": {"before": 455_250_000_000, "limit": 500_000_000_000, "asked": 84_000_000}
        },
    }
    sources.places["groq/llama"]["cooled"] = [(now - hours * 3600, now - hours * 3600 + 900) for hours in (16, 6, 0.2)]
    thread = HTTPThread()
    port = thread.add(lambda: admin_app(sources, None, FakeDesk()), "127.0.0.1", 0)
    thread.start()
    try:
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1300, "height": 900})
            for name, fragment in VIEWS.items():
                page.goto("about:blank")
                page.goto(f"http://127.0.0.1:{port}/" + fragment.format(id=served["id"]))
                page.wait_for_selector('main[aria-busy="false"]', state="attached")
                page.screenshot(path=FOLDER / f"console-{name}.png")
            browser.close()
    finally:
        thread.stop()


if __name__ == "__main__":
    main(sys.argv[1])

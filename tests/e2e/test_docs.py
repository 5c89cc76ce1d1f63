"""`extproc check --explain`, as the pages about virtual models use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Ended
from tests.e2e.pages import (
    settings,
)


@pytest.fixture
def explained(
    extproc: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[str]]:
    """Call it with a page and options. Returns the targets for the consumer `demo`, in order, and the skipped ones."""
    for number, name in enumerate(("OPENAI_API_KEY", "SPARE_KEY", "EU_KEY")):
        monkeypatch.setenv(name, f"sk-{number}")

    def explain(page: str, *options: str) -> list[str]:
        file = tmp_path / "gateway.yaml"
        file.write_text(settings(page))
        done = extproc("check", "--config", file, "--explain", "--consumer", "demo", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = re.search(r"^targets .*\n(?: .*\n)*(?:skipped .*\n(?: .*\n)*)?", done.stdout, re.MULTILINE)
        assert lines, done.stdout
        return [" ".join(line.split()) for line in lines[0].splitlines()]

    return explain


@pytest.mark.parametrize(
    ("page", "model", "more", "wanted"),
    [
        ("failover.md", "assistant", (), [r"targets 1\. gpt-6\.1-sol", r"2\. gpt-6\.1-sol", r"3\. llama-eu"]),
        ("failover.md", "private", ("--label", "data=public"), [r"targets 1\. llama-eu", r"2\. gpt-6\.1-sol"]),
        ("canary.md", "assistant", (), ["targets 1", "2", r"3\. spare .*weight 0", "skipped canary"]),
        ("canary.md", "assistant", ("--label", "stage=staging"), [r"targets 1\. canary"]),
        (
            "sticky-sessions.md",
            "assistant",
            ("--label", "session=chat-42"),
            [".*weight [37]0, sticky by label.session"],
        ),
        ("kill-switch.md", "assistant", (), [r"targets 1\. gpt-6\.1-sol ", r"2\. gpt-6-luna", r"3\. llama"]),
        ("latency.md", "assistant", (), [".*not measured yet", ".*not measured yet"]),
        ("cheap-models.md", "auto", (), [r"targets 1\. small .*complexity 0\.[0-3]", r"2\. large .*complexity 0\."]),
        ("cheap-models.md", "cheapest", (), [r"targets 1\. llama .* USD", r"2\. small .* USD", r"3\. large .* USD"]),
    ],
)
def test_explain_prints_what_the_page_shows(
    page: str, model: str, more: tuple[str, ...], wanted: list[str], explained: Callable[..., list[str]]
):
    lines = explained(page, "--model", model, *more)
    for line, start in zip(lines, wanted, strict=False):
        assert re.match(start, line), lines
    assert len(lines) >= len(wanted)

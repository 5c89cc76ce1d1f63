"""The table of docs/security.md names existing tests, and all tests of abuse."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import abuse_table
from tests.abuse_table import TESTS, Row, functions, rows

ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attempt)
def test_a_row_names_a_verdict_and_existing_tests(row: Row) -> None:
    assert row.verdict
    assert row.patterns
    for pattern in row.patterns:
        assert Row("", "", "", (pattern,)).tests, pattern


def test_every_test_of_abuse_has_a_row() -> None:
    files = [str(path.relative_to(TESTS)) for path in TESTS.glob("e2e/test_abuse*.py")]
    written = {f"{file}::{name}" for file in files for name in functions(file)}
    named = {test for row in ROWS for test in row.tests}
    assert written - named == set(), "name them in a row of docs/security.md"


def test_no_test_stands_behind_two_verdicts_by_accident() -> None:
    assert [row.attempt for row in ROWS] == list(dict.fromkeys(row.attempt for row in ROWS))


REPORT = """<testsuites><testsuite>
  <testcase classname="tests.e2e.test_a" name="test_one[a]"/>
  <testcase classname="tests.e2e.test_a" name="test_one[b]"/>
  <testcase classname="tests.e2e.test_a" name="test_two"><failure message="x"/></testcase>
  <testcase classname="tests.test_b" name="test_three"><skipped/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "report.xml"
    file.write_text(REPORT)
    return file


def test_outcomes_are_counted_by_test(report: Path) -> None:
    assert abuse_table.outcomes(report) == {
        "e2e/test_a.py::test_one": Counter(passed=2),
        "e2e/test_a.py::test_two": Counter(failed=1),
        "test_b.py::test_three": Counter(skipped=1),
    }


@pytest.mark.parametrize(
    ("tests", "told", "good"),
    [
        (["e2e/test_a.py::test_one"], "holds (2 passed): refused", True),
        (["e2e/test_a.py::test_one", "e2e/test_a.py::test_two"], "FAILS (1 failed, 2 passed): refused", False),
        (["test_b.py::test_three"], "skipped (1 skipped): refused", True),
        (
            ["e2e/test_a.py::test_one", "e2e/test_a.py::test_gone"],
            "NOT RUN (2 passed), 1 of 2 tests did not run: refused",
            False,
        ),
    ],
)
def test_a_row_holds_when_all_its_tests_ran_and_passed(
    report: Path, monkeypatch: pytest.MonkeyPatch, tests: list[str], told: str, good: bool
) -> None:
    monkeypatch.setattr(Row, "tests", property(lambda _row: tests))
    monkeypatch.setattr(abuse_table, "rows", lambda: [Row("Group", "An attempt", "refused", ())])
    text, holds = abuse_table.lines(abuse_table.outcomes(report))
    assert told in "\n".join(text)
    assert holds is good

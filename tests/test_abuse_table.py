"""The table of docs/security.md names existing tests, and all tests of abuse."""

from __future__ import annotations

import pytest

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

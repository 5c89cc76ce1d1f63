"""The table of faults and abuse in docs/security.md, with the outcome of its tests.

    python -m tests.abuse_table                 the table, with the number of tests behind each row
    python -m tests.abuse_table REPORT.xml      ... with their outcome, from a JUnit report of pytest
    python -m tests.abuse_table --tests         ids of all tests, for pytest

The page is the only list. A row names tests as `e2e/test_abuse.py::test_name`, where `*` stands for any text.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/security.md"
_FUNCTION = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    group: str
    attempt: str
    verdict: str
    patterns: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        """Ids of its tests, relative to `tests`."""
        return [
            f"{file}::{name}"
            for file, _, pattern in (one.partition("::") for one in self.patterns)
            for name in functions(file)
            if fnmatchcase(name, pattern)
        ]


@cache
def functions(file: str) -> Sequence[str]:
    """The tests of a file, relative to `tests`; none where there is no such file."""
    path = TESTS / file
    return _FUNCTION.findall(path.read_text(encoding="utf-8")) if path.is_file() else ()


def rows() -> list[Row]:
    """The rows of all tables of the page whose last column is "Tests"."""
    found: list[Row] = []
    group, inside = "", False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            group = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[-1] == "Tests":
            inside = True
        elif inside and not cells[0].startswith("--"):
            found.append(Row(group, cells[0], cells[1], tuple(re.findall(r"`([^`]+)`", cells[-1]))))
    return found


def outcomes(report: Path) -> Mapping[str, Counter[str]]:
    """The cases of each test by their outcome: passed, failed or skipped."""
    found: dict[str, Counter[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        file = case.get("classname", "").removeprefix("tests.").replace(".", "/") + ".py"
        name = case.get("name", "").partition("[")[0]
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found.setdefault(f"{file}::{name}", Counter())[outcome] += 1
    return found


def lines(found: Mapping[str, Counter[str]] | None) -> tuple[list[str], bool]:
    """The table as text, and whether every row holds. A row holds when all of its tests ran and none failed. A row all
    of whose cases were skipped is shown as such.
    """
    out: list[str] = []
    group, good = "", True
    for row in rows():
        if row.group != group:
            group = row.group
            out += ["", group]
        tests = row.tests
        if found is None:
            told = f"tests: {len(tests)}"
        else:
            counts = sum((found.get(test, Counter()) for test in tests), Counter[str]())
            silent = [test for test in tests if test not in found]
            good = good and not counts["failed"] and not silent
            word = "FAILS" if counts["failed"] else "NOT RUN" if silent else "holds" if counts["passed"] else "skipped"
            told = f"{word} ({', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))})"
            told += f", {len(silent)} of {len(tests)} tests did not run" if silent else ""
        out.append(f"  {row.attempt}")
        out.append(f"      {told}: {row.verdict}")
    return out, good


def main(arguments: Sequence[str]) -> int:
    if "--tests" in arguments:
        sys.stdout.writelines(
            f"{test}\n" for test in dict.fromkeys(f"tests/{test}" for row in rows() for test in row.tests)
        )
        return 0
    text, good = lines(outcomes(Path(arguments[0])) if arguments else None)
    sys.stdout.write("\n".join(text).strip() + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`extproc cache`: what it prints of the cache."""

import argparse

import pytest

from extproc.cli import cache

SIZE = {"entries": 1200, "bytes": 5000, "limit": 9000, "waiting": 1, "failures": 0}
VERDICTS = {"verified_same": 1001, "verified_different": 7, "verify_failures": 2}
STATS = {**SIZE, **VERDICTS, "vectors": 40, "vector_bytes": 800, "vector_failures": 0}
SIZES = ["1,200 answers, 5,000 of 9,000 bytes", "1 requests wait for equal ones; the store failed 0 times"]
QUESTIONS = "40 questions to compare, 800 bytes"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, [QUESTIONS, "1,010 pairs verified: 1,001 same, 7 different, 2 without a verdict"]),
        ({"verified_same": 0, "verified_different": 0, "verify_failures": 0}, [QUESTIONS]),
        ({"vectors": 0}, ["1,010 pairs verified: 1,001 same, 7 different, 2 without a verdict"]),
        ({"vectors": 0, "verified_same": 0, "verified_different": 0, "verify_failures": 0}, []),
    ],
)
def test_stats_print_sizes_and_verdicts(changes, more, monkeypatch, capsys):
    class Gateway:
        def json(self, path):
            assert path == "/cache"
            return STATS | changes

    monkeypatch.setattr(cache, "connect", lambda _options: Gateway())
    assert cache.run(argparse.Namespace(what="stats", consumer=None)) == 0
    assert capsys.readouterr().out.splitlines() == SIZES + more

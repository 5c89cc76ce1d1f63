from __future__ import annotations

import json

import pytest

from tests.doubles import faults
from tests.doubles.faults import FaultError, Faults, of_model, padded, parse


def test_every_fault_is_in_the_table_that_help_prints():
    table = [line for line in faults.__doc__.splitlines()[2:] if line and line[0] != " "]
    documented = [line.split()[0].partition("=")[0] for line in table]
    assert documented == list(faults.READERS)


def test_every_fault_except_the_counting_ones_is_a_field():
    assert set(faults.READERS) - {"every", "first"} == set(Faults.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("delay=150s", "delay", 150.0),
        ("pace=20ms", "pace", 0.02),
        ("pause=1.5m", "pause", 90.0),
        ("hang", "hang", True),
        ("status=503", "status", 503),
        ("retry_after=7", "retry_after", 7),
        ("size=3MB", "size", 3_000_000),
        ("size=64KiB", "size", 65_536),
        ("size=12", "size", 12),
        ("reset", "reset", 0),
        ("reset=3", "reset", 3),
        ("usage=early", "usage", "early"),
        ("cached=20", "cached", 20),
        ("corrupt=2", "corrupt", 2),
        ("sse=crlf,nodone", "sse", frozenset({"crlf", "nodone"})),
    ],
)
def test_a_suffix_is_read(text, name, value):
    assert dict(parse(text).faults) == {name: value}
    Faults(**parse(text).faults)


@pytest.mark.parametrize(
    "text",
    [
        "foo",
        "",
        "status",
        "status=200",
        "status=abc",
        "hang=1",
        "delay=5",
        "size=3XB",
        "size=3iB",
        "size=300MiB",
        "usage=odd",
        "sse=odd",
        "sse=crlf,odd",
        "every=0",
    ],
)
def test_a_wrong_suffix_is_named(text):
    with pytest.raises(FaultError, match=text.partition("=")[0] or "no fault"):
        of_model(f"gpt-4o+words=3+{text}" if text else "gpt-4o+")


def test_a_model_without_suffixes_has_no_faults():
    assert of_model("gpt-4o") is faults.NO_PLAN
    assert dict(of_model("gpt-4o").due(1)) == {}


def test_every_and_first_select_the_requests():
    assert [bool(parse("hang+every=3").due(nth)) for nth in range(1, 7)] == [False, False, True, False, False, True]
    assert [bool(parse("hang+first=2").due(nth)) for nth in range(1, 5)] == [True, True, False, False]
    assert [bool(parse("first=0+hang").due(nth)) for nth in range(1, 3)] == [False, False]
    assert not parse("hang").counts


def test_padding_reaches_the_exact_size_and_never_shortens():
    document = b'{"id":"x"}'
    assert len(padded(document, 1000)) == 1000
    assert json.loads(padded(document, 1000))["id"] == "x"
    assert padded(document, 5) == document

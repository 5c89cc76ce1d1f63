"""Stored rows: any value becomes one that every database accepts."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.ledger import Row
from extproc.money.ledger.rows import COLUMNS, MAX_AMOUNT, MAX_COUNT, label_key, label_name, micros, text, values


def stored(**fields):
    return dict(
        zip(
            COLUMNS,
            values(Row(id="id", time=0.0) if not fields else Row(**{"id": "i", "time": 0.0} | fields)),
            strict=True,
        )
    )


@given(st.text(st.characters()), st.integers(1, 300))
def test_any_text_becomes_storable(value, most):
    found = text(value, most)
    assert len(found.encode()) <= most  # encode refuses surrogates
    assert "\0" not in found
    if len(value.encode(errors="surrogatepass")) <= most and "\0" not in value and value.isprintable():
        assert found == value


def test_a_long_text_is_cut_between_characters():
    assert text("é" * 1000) == "é" * 128
    assert text("x" + "😀" * 1000) == "x" + "😀" * 63
    assert text("\ud800\0") == "\ufffd\ufffd"
    assert text("x" * 10_000_000) == "x" * 256


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_a_label_name_survives_quoting(name):
    key = label_key(name)
    assert key.isascii()
    assert not set(key) & set("\"'\\$[]: ")
    assert label_name(key) == name


@pytest.mark.parametrize(
    ("seconds", "kept"), [(-1.0, 0), (math.nan, 0), (1.5, 1_500_000), (math.inf, 253402300799000000), (-math.inf, 0)]
)
def test_times_are_clamped_to_the_calendar(seconds, kept):
    assert micros(seconds) == kept


def test_numbers_are_clamped():
    found = stored(
        input_tokens=-5, output_tokens=1 << 80, status=1 << 40, cost=1 << 80, duration_ms=-1, first_token_ms=-1
    )
    assert (found["input_tokens"], found["output_tokens"], found["status"]) == (0, MAX_COUNT, MAX_COUNT)
    assert (found["cost"], found["duration_ms"], found["first_token_ms"]) == (MAX_AMOUNT, 0, 0)
    assert stored(cost=None, charges=None)["cost"] is None
    assert stored(levels={"a": (-1, 1 << 70, 2)})["levels"] == f'{{"a":[0,{MAX_AMOUNT},2]}}'
    assert stored(charges={"a": -1, "b": 1 << 70})["charges"] == f'{{"a":0,"b":{MAX_AMOUNT}}}'


def test_labels_are_bounded():
    labels = {"": "nameless", **{f"label-{number}": "v" * 64_000 for number in range(100)}}
    kept = msgspec.json.decode(stored(labels=labels)["labels"])
    assert len(kept) == 31  # of the first 32 labels, one has no name
    assert all(len(value) == 256 for value in kept.values())
    assert len(msgspec.json.decode(stored(guardrails=["x" * 999] * 999)["guardrails"])) == 32
    assert len(msgspec.json.decode(stored(charges={str(number): 1 for number in range(999)})["charges"])) == 256


@pytest.mark.parametrize(
    "fields", [{"consumer": None}, {"labels": {"a": 1}}, {"input_tokens": "5"}, {"charges": {1: 1}}]
)
def test_wrong_types_are_reported(fields):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        stored(**fields)

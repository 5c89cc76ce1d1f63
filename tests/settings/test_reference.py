"""Every setting has a description, and its default is written with a unit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from extproc.settings.reference import json_schema, markdown
from extproc.words.values import DURATION, SIZE, show_duration, show_size

VAGUE = ("What", "Who", "Whoever", "Whom", "Whose", "Whether", "Which", "How", "Of", "Where", "When", "Its", "It")


def settings() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each setting by section and key, with its schema. A key whose value is a section is replaced by that section's
    keys.
    """
    schema = json_schema()
    for section, fields in ("file", schema), *schema["$defs"].items():
        for key, value in fields.get("properties", {}).items():
            inner = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            yield f"{section}.{key}", {**inner, **value}


SETTINGS = dict(settings())


def test_every_setting_has_a_description_that_begins_with_a_noun_and_ends_with_a_full_stop() -> None:
    for name, value in SETTINGS.items():
        text = " ".join(value.get("description", "").split())
        assert re.fullmatch(r"[A-Z`].{10,}\.", text), (name, text)
        assert text.split()[0] not in VAGUE, name
        assert not re.search(r"\b(who|whoever|nobody|somebody|whom)\b", text), (name, text)


def test_there_are_settings_to_describe() -> None:
    assert len(SETTINGS) > 150


def test_no_default_is_in_raw_seconds_or_bytes() -> None:
    found = {name: value["default"] for name, value in SETTINGS.items() if value.get("pattern") in (DURATION, SIZE)}
    found = {name: default for name, default in found.items() if default is not None}
    assert found["BudgetSettings.idle_ttl"] == "30d"
    assert found["LimitsSettings.request_body"] == "20MiB"
    for name, default in found.items():
        assert re.fullmatch(SETTINGS[name]["pattern"], default), name
        assert not default.isdigit(), name
    rows = re.findall(r"^\| `(\S+)` \| (?:duration|size) \| (.*?) \|", markdown(), re.MULTILINE)
    assert len(rows) > 15
    assert all(default == "not set" or re.fullmatch(r"`\d+(ms|s|m|h|d|KiB|MiB|GiB)`", default) for _, default in rows)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.005, "5ms"), (0.25, "250ms"), (1, "1s"), (90, "90s"), (60, "1m"), (5400, "90m"), (7200, "2h")],
)
def test_durations_are_written_with_units(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1000, "1000B"), (1024, "1KiB"), (20 << 20, "20MiB"), (1 << 30, "1GiB")]
)
def test_sizes_are_written_with_units(size: int, text: str) -> None:
    assert show_size(size) == text

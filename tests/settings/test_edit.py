"""Changes of single values in a settings file."""

import pytest
import yaml

from extproc.settings.document import ConfigError
from extproc.settings.edit import difference, with_value

TEXT = """\
# Ünïcode before the places
providers:
  openai: {kind: openai, api_key: env:K} # main
models:
  m:
    provider: openai
    context: 10
  lone:
    provider: openai
budgets:
  - name: month   # of all
    limit: 500
    window: month
  - {name: day, limit: 5}
consumers: [{name: demo, keys: []}]
cache: {}
"""


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (["budgets", "month", "limit"], 750.5, "    limit: 750.5"),
        (["budgets", 1, "limit"], 6, "  - {name: day, limit: 6}"),
        (["budgets", "day", "mode"], "shadow", "  - {name: day, mode: shadow, limit: 5}"),
        (["budgets", "month", "mode"], "shadow", "    mode: shadow"),
        (["models", "m", "disabled"], True, "    disabled: true"),
        (["models", "lone", "disabled"], True, "    disabled: true"),
        (["providers", "openai", "disabled"], True, "  openai: {kind: openai, disabled: true, api_key: env:K} # main"),
        (["consumers", "demo", "team"], "no", 'consumers: [{name: demo, team: "no", keys: []}]'),
        (["consumers", 0, "name"], "ü: {", 'consumers: [{name: "ü: {", keys: []}]'),
        (["cache", "similar"], None, "cache: {similar: null}"),
    ],
)  # fmt: skip
def test_a_value_is_changed_or_added_and_all_else_stays(path, value, line):
    after = with_value(TEXT, path, value)
    assert line in after.split("\n")
    changed = [row for row in difference(TEXT, after, "f").split("\n")[2:] if row[:1] in "+-"]
    assert len(changed) == (2 if len(after.split("\n")) == len(TEXT.split("\n")) else 1)
    found = yaml.safe_load(after)
    for part in path:
        named = isinstance(found, list) and isinstance(part, str)
        found = next(item for item in found if item["name"] == part) if named else found[part]
    assert found == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["budgets", "year", "limit"], "budgets.year.limit is not in this file"),
        (["budgets", 7, "limit"], "budgets.7.limit is not in this file"),
        (["budgets"], "budgets is not a single value"),
        (["models", "m"], "models.m is not a single value"),
        (["a", "b", "c"], "a.b.c is not in this file"),
    ],
)
def test_a_path_that_is_not_there_is_refused(path, message):
    with pytest.raises(ValueError, match=message):
        with_value(TEXT, path, 1)


@pytest.mark.parametrize("text", ["[1]", "a: [", "a: &x 1\na: 2"])
def test_a_text_that_is_no_mapping_is_refused(text):
    with pytest.raises(ConfigError):
        with_value(text, ["a"], 1)

"""The expression for every name that is not on a list."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.envoy.envoy_config.others import others

NAMES = st.text("ab-:", max_size=5)
LISTS = st.lists(st.builds(lambda name, more: name + "*" * more, NAMES, st.booleans()), max_size=6)


@given(LISTS, st.text("ab-:c.", max_size=7))
def test_it_matches_exactly_the_names_that_are_not_listed(names, name):
    listed = any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in names)
    assert (re.fullmatch(others(names), name, re.DOTALL) is None) == listed


@pytest.mark.parametrize("name", ["host", "x-acme-", "x-acme-id", ":path", "a.b"])
def test_listed_names_stay(name):
    assert re.fullmatch(others(["host", "x-acme-*", ":*", "a.b"]), name) is None


@pytest.mark.parametrize("name", ["hos", "hosts", "x-acme", "axb", "", "cookie"])
def test_other_names_match(name):
    assert re.fullmatch(others(["host", "x-acme-*", ":*", "a.b"]), name)

"""Samples of exhaustive tests: the usual run takes a sample, `make exhaustive` takes everything.

A test of every case is marked `exhaustive`, as a whole or as one parameter, beside a test of a sample. A property test
tries more examples when it is selected with `-m "exhaustive or hypothesis"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import settings

Value = TypeVar("Value")
exhaustive = pytest.mark.exhaustive


def examples(count: int) -> int:
    """`count` examples in an exhaustive run, otherwise the share that the hypothesis profile sets."""
    return max(min(count, 5), count * settings.default.max_examples // 100)


def some(values: Sequence[Value], count: int) -> list[Value]:
    """At most `count` of the values, always the same: the first, the last, and others evenly between them."""
    if len(values) <= count:
        return list(values)
    return [values[number * (len(values) - 1) // (count - 1)] for number in range(count)]

import time

import pytest
from pydantic import ValidationError

from extproc.guardrails.regex import SETTINGS


def settings(**patterns):
    return SETTINGS(name="g", kind="regex", patterns=patterns)


def find(text, **patterns):
    return [
        (finding.kind, text[slice(*finding.span)]) for finding in settings(**patterns).build().find(text, "user", "x")
    ]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("a", "banana", ["a", "a", "a"]),
        ("(?i)secret", "SeCrEt", ["SeCrEt"]),
        (r"\b\d{4}\b", "1234 12345", ["1234"]),
        ("é+", "aéé🌍é", ["éé", "é"]),
        ("🌍", "x🌍y🌍", ["🌍", "🌍"]),
        ("^b", "a\nb", []),
        ("(?m)^b", "a\nb", ["b"]),
        (r"\x00", "a\0b", ["\0"]),
        ("x", "", []),
    ],
)
def test_every_match_is_found(pattern, text, found):
    assert find(text, p=pattern) == [("p", match) for match in found]


def test_every_pattern_is_searched():
    assert sorted(find("ab", one="a", two="b", three="c")) == [("one", "a"), ("two", "b")]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(x+x+)+y", "a{0,500}a{0,500}b"])
def test_no_pattern_takes_exponential_time(pattern):
    regex = settings(p=pattern).build()
    start = time.perf_counter()
    regex.find("a" * 50_000 + "!", "user", "x")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)", "invalid perl operator"),
        ("(?<=a)b", "invalid perl operator"),
        ("(?!a)b", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        ("(a", "missing )"),
        ("[a", "missing ]"),
        ("a{1001}", "invalid repetition size"),
        ("((a{100}){100}){100}", "repetition"),
        ("x" * 4097, "at most 4096 characters"),
    ],
)
def test_an_unusable_pattern_is_refused_with_the_reason(pattern, reason):
    with pytest.raises(ValidationError) as refused:
        settings(mine=pattern)
    message = refused.value.errors()[0]["msg"]
    assert "mine: " in message
    assert reason in message


@pytest.mark.parametrize("patterns", [{}, {f"p{number}": "a" for number in range(257)}])
def test_the_number_of_patterns_is_limited(patterns):
    with pytest.raises(ValidationError):
        settings(**patterns)

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from extproc.words.values import (
    Duration,
    ModelName,
    Name,
    Pattern,
    Patterns,
    PositiveDuration,
    Secret,
    SecretRef,
    Size,
    is_loopback,
    is_private,
)


def read(type_, value):
    return TypeAdapter(type_).validate_python(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("0s", 0)],
)
def test_durations_are_read(text, seconds):
    assert read(Duration, text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "30",
        30,
        1.5,
        None,
        "s",
        "-1s",
        "1 s",
        "1s ",
        "1S",
        "1e3s",
        "inf s",
        "infs",
        "9" * 400 + "s",
        "367d",
        True,
        [],
    ],
)
def test_invalid_durations_are_refused(value):
    with pytest.raises(ValidationError):
        read(Duration, value)


def test_a_positive_duration_is_not_zero():
    assert read(PositiveDuration, "1ms") == 0.001
    with pytest.raises(ValidationError, match="greater than 0"):
        read(PositiveDuration, "0s")


@pytest.mark.parametrize(
    ("value", "size"), [("64KiB", 65_536), ("10MiB", 10 << 20), ("1GiB", 1 << 30), ("5B", 5), ("7", 7), (7, 7), (0, 0)]
)
def test_sizes_are_read(value, size):
    assert read(Size, value) == size


@pytest.mark.parametrize("value", ["", "64 KiB", "64KB", "64kib", "-1", -1, 1.5, "1.5MiB", None, True, "9" * 5000])
def test_invalid_sizes_are_refused(value):
    with pytest.raises(ValidationError):
        read(Size, value)


@pytest.mark.parametrize("value", ["a", "A-b_c.d", "0", "a" * 63])
def test_names_are_read(value):
    assert read(Name, value) == value


@pytest.mark.parametrize("value", ["", "-a", ".a", "a b", "a:b", "a=b", "a/b", "é", "a\n", "a" * 64])
def test_invalid_names_are_refused(value):
    with pytest.raises(ValidationError):
        read(Name, value)


@pytest.mark.parametrize("value", ["gpt-4o", "meta-llama/Llama-3.3", "anthropic.claude:0", "a" * 256, "*"])
def test_model_names_are_read(value):
    assert read(ModelName, value) == value


@pytest.mark.parametrize("value", ["", "a b", "a\n", "a\r\nx: y", "é", "a\x7f", "a\0", "a" * 257])
def test_invalid_model_names_are_refused(value):
    with pytest.raises(ValidationError):
        read(ModelName, value)


# --- secrets


def test_a_secret_is_read_from_its_place(monkeypatch, tmp_path):
    monkeypatch.setenv("KEY", " sk-1\n")
    (tmp_path / "key").write_text("sk-2\n")
    assert read(SecretRef, "env:KEY").read() == "sk-1"
    assert read(SecretRef, f"file:{tmp_path}/key").read() == "sk-2"


def test_a_missing_secret_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("EMPTY", " ")
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert read(SecretRef, "env:EMPTY").read() is None
    assert read(SecretRef, "env:MISSING_FOR_SURE").read() is None
    for name in ("empty", "missing", "binary", "."):
        assert read(SecretRef, f"file:{tmp_path}/{name}").read() is None


@pytest.mark.parametrize(
    "value",
    [
        "sk-canary",
        "env:",
        "file:",
        "env",
        "ENV:KEY",
        "http://sk-canary",
        "env:sk-canary",
        "env:A B",
        42,
        None,
        ["sk-canary"],
    ],
)
def test_a_literal_secret_is_refused_and_never_repeated(value):
    with pytest.raises(ValidationError) as error:
        read(SecretRef, value)
    assert "canary" not in error.value.errors()[0]["msg"]
    assert "never the secret itself" in error.value.errors()[0]["msg"]


def test_a_reference_prints_as_itself():
    assert str(Secret("env", "KEY")) == "env:KEY"
    assert read(SecretRef, Secret("env", "KEY")) == Secret("env", "KEY")


# --- patterns


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("*", "anything", True),
        ("claude-*", "claude-", True),
        ("claude-*", "xclaude-1", False),
        ("*-mini", "gpt-mini", True),
        ("*-mini", "gpt-minis", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("a.c", "abc", False),
        ("[a]*", "[a]1", True),
        ("a**b", "ab", True),
        ("A*", "abc", False),
        ("*\\d", "1", False),
    ],
)
def test_patterns_match(pattern, value, matches):
    assert Pattern(pattern)(value) is matches


@given(st.text("ab*", max_size=8), st.text("ab\n", max_size=10))
def test_a_star_stands_for_any_run_of_characters(pattern, value):
    naive = re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), value, re.DOTALL)
    assert Pattern(pattern)(value) is (naive is not None)


def test_a_pattern_of_many_stars_takes_little_time():
    start = time.perf_counter()
    assert not Pattern("*a" * 40 + "*b")("a" * 256)
    assert time.perf_counter() - start < 0.1


# --- addresses


@pytest.mark.parametrize(
    ("host", "loopback", "private"),
    [
        ("127.0.0.1", True, True),
        ("127.9.9.9", True, True),
        ("::1", True, True),
        ("localhost", True, True),
        ("10.0.0.1", False, True),
        ("vllm", False, True),
        ("vllm.models.svc", False, True),
        ("0.0.0.0", False, True),
        ("8.8.8.8", False, False),
        ("example.com", False, False),
        ("localhost.example.com", False, False),
    ],
)
def test_hosts_are_read(host, loopback, private):
    assert is_loopback(host) is loopback
    assert is_private(host) is private


def test_any_of_the_patterns_may_match():
    patterns = Patterns(["gpt-4o", "claude-*", "o*-mini"])
    assert [name for name in ("gpt-4o", "gpt-4o-mini", "claude-", "o4-mini", "o4", "") if patterns(name)] == [
        "gpt-4o",
        "claude-",
        "o4-mini",
    ]
    assert not Patterns([])("gpt-4o")
    assert Patterns(["*"])("")

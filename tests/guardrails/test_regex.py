import random
import time

import pytest
import re2
from pydantic import ValidationError

from extproc.guardrails._guard import PIECE, Guard
from extproc.guardrails._patterns import _spans
from extproc.guardrails.regex import SETTINGS, Regex
from extproc.wire.outbound.service import Failure
from extproc.words.errors import Refusal
from tests.guardrails.fakes import Guard as Stage


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


def test_empty_matches_stand_between_characters():
    spans = [found.span for found in settings(p="x*").build().find("é🌍x", "user", "x")]
    assert spans == [(0, 0), (1, 1), (2, 3), (3, 3)]


def test_patterns_too_large_for_one_set_are_searched_one_by_one():
    large = {f"p{number}": rf"(?i)[a-z]{{0,900}}x{number}[\pL]{{300}}" for number in range(8)}
    text = "abcx7" + "a" * 300
    assert find(text, **large) == [("p7", text)]


# --- bounds


def guard(**more):
    return Guard(SETTINGS(name="g", kind="regex", patterns={"e": "e"}, **more), 0)


def hits(guard, text, seconds=60.0):
    return guard.all_hits(text, "user", "x", time.monotonic() + seconds)


@pytest.mark.parametrize("tail", ["", "é"])
def test_further_findings_than_the_bound_are_not_looked_for(tail):
    text = "e" * 300 + tail
    assert len(hits(guard(max_findings=300), text)) == 300
    assert len(hits(guard(max_findings=299), text)) == 299


def test_a_mask_that_would_miss_findings_is_a_failure():
    assert len(hits(guard(action="mask", max_findings=300), "e" * 300)) == 300
    with pytest.raises(Failure) as failure:
        hits(guard(action="mask", max_findings=299), "e" * 300)
    assert failure.value.reason == "too_many"


def test_the_bound_holds_over_the_pieces_of_a_long_text():
    assert len(hits(guard(max_findings=300), ("e" * 200 + " " * PIECE) * 3)) <= 400


def test_the_deadline_is_looked_at_inside_of_a_piece():
    with pytest.raises(Failure) as failure:
        hits(guard(max_findings=1_000_000), "e" * 100_000, 0.005)
    assert failure.value.reason == "timeout"


def test_time_grows_with_the_findings_whatever_the_characters():
    def cpu(text):
        then = time.thread_time()
        hits(guard(max_findings=1_000_000), text)
        return time.thread_time() - then

    plain = "e " * 40_000
    assert cpu(plain + "é") < 12 * cpu(plain)


# --- several guardrails of regular expressions, looked at together

KEYS = {f"k{number}": rf"\bsk-{number}[A-Z]{{8}}\b" for number in range(6)} | {"any": "x*", "word": "(?i)secret"}
REQUESTS = [
    ["nothing to see"],
    ["sk-3ABCDEFGH"],
    ["ｓｋ－２ABCDEFGH and a s\u200becret"],
    ["sk%2D4ABCDEFGH"],
    ["the key is sk-1ABC", "DEFGH", "and sk-5ABCDEFGH"],
]


@pytest.mark.parametrize("texts", REQUESTS)
@pytest.mark.parametrize("action", ["mask", "annotate"])
async def test_guardrails_looked_at_together_find_what_each_finds_alone(exchange, texts, action):
    def body():
        return exchange({"model": "m", "messages": [{"role": "user", "content": text} for text in texts]})

    entries = [
        SETTINGS(name=name, kind="regex", patterns={name: pattern}, action=action) for name, pattern in KEYS.items()
    ]
    together = Stage(*entries)
    await together.stage(body())
    alone = []
    for entry in entries:
        stage = Stage(entry)
        await stage.stage(body())
        alone += stage.told
    assert together.told == alone
    assert len(alone) >= 1


@pytest.mark.parametrize("padding", ["", " x" * 10_000])
async def test_only_guardrails_whose_patterns_match_search(exchange, monkeypatch, padding):
    searched = []
    usual = Regex.find
    monkeypatch.setattr(Regex, "find", lambda self, *rest: searched.append(self.patterns) or usual(self, *rest))
    entries = [SETTINGS(name=f"g{n}", kind="regex", patterns={"p": f"word{n}x"}) for n in range(100)]
    made = exchange({"model": "m", "messages": [{"role": "user", "content": f"It is word7x.{padding}"}]})
    with pytest.raises(Refusal):
        await Stage(*entries).stage(made)
    assert {*searched} == {("word7x",)}


@pytest.mark.parametrize("pattern", ["a*", "(?P<v>a|b)?c", r"\b", "a{2,3}", "(x)|(y)", "$", "^", "[é]", "(?P<v>b*)a"])
def test_spans_are_those_of_the_library(pattern):
    compiled = re2.compile(pattern)
    group = compiled.groupindex.get("v", 0)
    chance = random.Random(1)
    for _ in range(300):
        data = "".join(chance.choices("abcxyé \n", k=chance.randint(0, 12))).encode()
        assert list(_spans(compiled, group, data)) == [match.span(group) for match in compiled.finditer(data)]

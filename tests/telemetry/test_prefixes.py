"""Advice about prompts whose beginning changes with every call."""

import pytest

from extproc.operate.telemetry.prefixes import _MOST, Prefixes
from extproc.words.exchange import Consumer, Usage


@pytest.fixture
def warned(exchange):
    """Call it with system prompts of calls in a row: the warning behind the last one."""

    def run(*systems, prefixes=None, usage=None, consumer="ada"):
        prefixes, found = prefixes or Prefixes(), ""
        for text in systems:
            body = {"model": "m", "messages": [{"role": "system", "content": text}, {"role": "user", "content": "Hi"}]}
            made = exchange(body, consumer=Consumer(consumer))
            made.money.usage = usage or Usage(5000)
            found = prefixes.warning(made)
        return found

    return run


LONG = "Rules. " * 300


def test_a_time_in_the_system_prompt_is_told_with_its_place(warned):
    told = warned(*[f"{LONG}It is {minute} past nine. {LONG}" for minute in range(11)])
    assert "each of the last 10 calls" in told
    assert "from about byte 2048 on" in told
    assert "0" not in warned(*[f"Now: {minute}. {LONG}" for minute in range(10)])
    assert "from about byte 0 on" in warned(*[f"Now: {minute}. {LONG}" for minute in range(12)])


def test_prompts_that_repeat_or_that_a_cache_had_are_no_news(warned):
    assert warned(*[LONG] * 30) == ""
    assert warned(*[f"{number % 8} {LONG}" for number in range(60)]) == ""
    changing = [f"{number} {LONG}" for number in range(30)]
    assert warned(*changing, usage=Usage(5000, cached_tokens=4000)) == ""
    assert warned(*changing, usage=Usage(1000)) == ""
    assert warned(*changing, *[changing[-1]] * 2) == ""


def test_what_is_remembered_is_bounded_and_holds_no_text(warned):
    prefixes = Prefixes()
    for number in range(_MOST + 50):
        warned(f"{LONG}{number}", prefixes=prefixes, consumer=str(number))
    assert len(prefixes._seen) == _MOST
    seen = prefixes._seen[(str(_MOST), "m")]
    assert all(len(digest) == 8 for digest in (*seen.blocks, *seen.known))

"""Tokens are counted in a process of its own: this one has neither its memory nor its pause."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from extproc.dialects import client_apis
from extproc.money.budgets import Exact, counter, tokenizer
from extproc.wire.outbound.helper import Helper
from extproc.words.dialect import Report
from extproc.words.exchange import Target
from tests.budgets.texts import TEXTS

LEAVER = """
import resource, sys
from extproc.money.budgets.passed import tokens

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert tokens("Hello there, how are you?", "gpt-4o") == 7
print([name for name in sys.modules if "tiktoken" in name], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
FIELDS = client_apis()["openai_chat"].fields


@pytest.fixture
def left(exchange):
    """An exchange whose client left in mid-answer."""

    def make(text):
        sent = exchange({"model": "m", "messages": [{"role": "user", "content": text}]})
        sent.answer.target, sent.answer.report = Target("m", "a", "gpt-4o"), Report()
        sent.answer.report.add_text(text)
        return sent

    return make


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setattr(counter, "helper", Helper(("/nonexistent",), within=1.0))
    monkeypatch.setattr(counter, "_logged", -1000.0)


def test_a_process_with_an_early_leaver_never_reads_the_tokenizer():
    told = subprocess.run([sys.executable, "-c", LEAVER], capture_output=True, check=True, text=True).stdout
    modules, grown = re.fullmatch(r"(\[.*\]) (\d+)\n", told).groups()
    assert modules == "[]"
    assert int(grown) < 8 << 10, "KiB"


@pytest.mark.parametrize("name", ["English", "Ethiopic", "mixed"])
def test_it_counts_what_the_tokenizer_counts(name):
    tokenizer.load().join()
    assert counter.about(TEXTS[name]) == tokenizer.about(TEXTS[name])
    body = {"messages": [{"role": "user", "content": TEXTS[name]}], "n": 10**40}
    assert counter.bound(body, (), 1 << 20, FIELDS) == tokenizer.bound(body, (), 1 << 20, FIELDS)


def test_there_is_no_bound_before_the_process_has_begun(monkeypatch):
    monkeypatch.setattr(counter, "helper", new := Helper(counter.helper._command, within=30.0))
    assert counter.bound({"input": "x"}, (), 100, FIELDS) is None
    counter.load().join()
    assert counter.bound({"input": "x"}, (), 100, FIELDS) > 0
    new.end()


async def test_a_count_survives_the_death_of_its_process(left):
    counter.load().join()
    exact, text = Exact({}), TEXTS["mixed"]
    asked = [asyncio.ensure_future(exact.output_passed(left(text))) for _ in range(20)]
    await asyncio.sleep(0)
    os.kill(counter.helper.pid, signal.SIGKILL)
    assert set(await asyncio.gather(*asked)) == {counter.about(text)}


@pytest.mark.usefixtures("broken")
async def test_without_the_process_text_is_estimated_by_its_size_and_the_log_says_so(left, caplog):
    exact, sent = Exact({}), left("word " * 300)
    assert await exact.output_passed(sent) == 500
    assert 400 < await exact.input_passed(sent) < 600
    assert caplog.text.count("tokens are estimated by the size of texts") == 1


async def test_a_count_waits_in_a_bounded_queue_and_for_a_bounded_time(left, monkeypatch):
    exact, sent, go = Exact({}), left("word " * 300), threading.Event()
    monkeypatch.setattr(counter, "about", lambda _text: go.wait(20) and 1)
    monkeypatch.setattr("extproc.money.budgets.exact._MOST_WAITING", 0)
    assert await exact.output_passed(sent) == 500
    monkeypatch.setattr("extproc.money.budgets.exact._MOST_WAITING", 9)
    monkeypatch.setattr("extproc.money.budgets.exact._PATIENCE", 0.01)
    assert await exact.output_passed(sent) == 500
    go.set()

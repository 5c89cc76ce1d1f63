"""A helper: it begins with the first question, ends when it is idle, and is replaced when it dies."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import extproc
from extproc.wire.outbound import helper
from extproc.wire.outbound.helper import Helper, HelperError

ROOT = Path(extproc.__file__).parents[1]
CHILD = f"""
import os, sys, time
sys.path.append({str(ROOT)!r})
from extproc.wire.outbound.helper import serve

def answer(question):
    if question == b"die":
        os._exit(1)
    if question == b"fail":
        raise KeyError("secret")
    if question == b"sleep":
        time.sleep(60)
    return b"%d " % os.getpid() + question

serve(answer, float(sys.argv[1]))
"""


@pytest.fixture
def start(tmp_path):
    file = tmp_path / "child.py"
    file.write_text(CHILD)
    made = []

    def start(*, idle=60.0, within=20.0):
        made.append(Helper((sys.executable, str(file), str(idle)), within=within))
        return made[-1]

    yield start
    for each in made:
        each.end()


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_process_answers_questions_of_any_size(start):
    asked = start()
    assert asked.pid is None
    for question in (b"", b"hello", b"x" * (5 << 20)):
        assert asked.ask(question) == b"%d %b" % (asked.pid, question)


def test_a_process_that_was_killed_is_replaced_and_the_question_asked_again(start):
    asked = start()
    asked.ask(b"first")
    first = asked.pid
    os.kill(first, signal.SIGKILL)
    assert asked.ask(b"second").endswith(b" second")
    assert asked.pid != first


def test_an_idle_process_ends_and_leaves_no_zombie(start):
    asked = start(idle=0.1)
    first = int(asked.ask(b"first").split()[0])
    until(lambda: not Path(f"/proc/{first}").exists())
    until(lambda: asked.pid is None)
    assert asked.ask(b"second").endswith(b" second")


def test_a_question_that_kills_is_asked_twice_and_no_more(start, monkeypatch):
    asked = start()
    with pytest.raises(HelperError, match=r"ended|reset"):
        asked.ask(b"die")
    with pytest.raises(HelperError, match="a moment ago"):
        asked.ask(b"hello")
    monkeypatch.setattr(helper, "_REST", 0.0)
    assert asked.ask(b"hello").endswith(b" hello")


def test_an_answer_that_takes_too_long_ends_the_process(start):
    asked = start(within=2.0)
    first = int(asked.ask(b"first").split()[0])
    with pytest.raises(HelperError, match="longer than 2 s"):
        asked.ask(b"sleep")
    until(lambda: not Path(f"/proc/{first}").exists())


def test_an_exception_is_reported_by_its_name_and_the_process_goes_on(start):
    asked = start()
    with pytest.raises(HelperError, match=r"^KeyError$"):
        asked.ask(b"fail")
    first = asked.pid
    assert asked.ask(b"hello") == b"%d hello" % first


def test_an_end_ends_a_question_which_is_not_asked_again(start):
    asked = start()
    asked.begin()
    first = asked.pid
    outcome = []

    def ask():
        try:
            outcome.append(asked.ask(b"sleep"))
        except HelperError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    asked.end()
    thread.join()
    assert (outcome, asked.pid) == (["it was ended"], None)
    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{first}").exists()
    assert asked.ask(b"hello").endswith(b" hello"), "an end is no failure"


def test_a_command_that_cannot_run_is_a_failure():
    with pytest.raises(HelperError):
        Helper(("/nonexistent",), within=1.0).ask(b"hello")

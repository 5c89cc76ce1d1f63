import signal
import subprocess
import sys
import time

import pytest

from extproc.cli import _stop

PROGRAM = """
import threading, time
from extproc.cli import _stop
_stop.block_signals()
{body}
"""
STUCK = "_stop.on_signal(lambda: None, 0.4); print('ready', flush=True); time.sleep(60)"
PATIENT = "_stop.on_signal(lambda: None, 60); print('ready', flush=True); time.sleep(60)"
GOOD = "done = threading.Event(); _stop.on_signal(done.set, 60); print('ready', flush=True); done.wait()"


@pytest.fixture
def begin():
    children = []

    def start(body):
        child = subprocess.Popen([sys.executable, "-c", PROGRAM.format(body=body)], stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout.readline() == b"ready\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", _stop.STOPS)
def test_a_signal_starts_the_drain(begin, number):
    child = begin(GOOD)
    child.send_signal(number)
    assert child.wait(10) == 0


@pytest.mark.parametrize("ignored", [True, False])
def test_the_end_of_the_terminal_is_a_signal_to_stop_but_for_a_command_that_nohup_started(ignored):
    program = "import signal; from extproc.cli import _supervise; print(signal.SIGHUP in _supervise.STOPS)"
    start = ["nohup"] if ignored else ["env", "--default-signal=HUP"]
    command = [*start, sys.executable, "-c", program]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(not ignored)


def test_a_blocked_main_thread_is_ended_after_its_grace_time(begin):
    child, start = begin(STUCK), time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 1
    assert time.monotonic() - start >= 0.4


def test_a_second_signal_ends_the_process_at_once(begin):
    child = begin(PATIENT)
    child.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    assert child.wait(10) == 1

import contextlib
import fcntl
import logging
import os
import threading
import time

import pytest

from extproc.operate.telemetry.lines import WHOLE, Lines, LinesHandler


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


class Count:
    def __init__(self):
        self.value = 0

    def __call__(self):
        self.value += 1


def drain(reader, size):
    found = b""
    while len(found) < size:
        found += os.read(reader, 1 << 16)
    return found


def test_lines_arrive_whole_and_in_order(pipe):
    reader, writer = pipe
    lost = Count()
    lines = Lines(writer, 1 << 20, lost)
    wanted = "".join(f"{number} {'x' * (number % 300)}\n" for number in range(500))
    for line in wanted.splitlines(keepends=True):
        lines(line)
    assert drain(reader, len(wanted)).decode() == wanted
    assert lines.flush(5)
    assert lost.value == 0


def test_lines_of_two_processes_do_not_mix_in_one_pipe(pipe):
    """A pipe takes 4096 bytes whole, and may split longer writes."""
    reader, writer = pipe
    writers = [Lines(writer, 1 << 22, Count(), at_once=WHOLE) for _ in range(2)]  # each has a thread
    for number in range(2000):
        for each, lines in zip("ab", writers, strict=True):
            lines(each * (number % 400) + "\n")
    found = drain(reader, sum(number % 400 + 1 for number in range(2000)) * 2).decode().splitlines()
    assert len(found) == 4000
    assert all(line in ("a" * len(line), "b" * len(line)) for line in found)


def test_a_line_longer_than_one_write_is_written_all_the_same(pipe):
    reader, writer = pipe
    lines = Lines(writer, 1 << 20, Count(), at_once=WHOLE)
    lines("x" * 10_000 + "\n")
    assert drain(reader, 10_001) == b"x" * 10_000 + b"\n"


def test_a_reader_that_stops_loses_lines_and_delays_nothing(pipe):
    reader, writer = pipe
    lost = Count()
    lines = Lines(writer, 10_000, lost)
    start = time.monotonic()
    for _ in range(1000):
        lines("x" * 99 + "\n")
        time.sleep(0.0001)
    assert time.monotonic() - start < 5
    assert not lines.flush(0.1)
    assert lost.value > 500
    written = 1000 - lost.value
    assert len(drain(reader, written * 100)) == written * 100  # queued lines are not lost
    assert lines.flush(5)
    lines("again\n")
    assert drain(reader, 6) == b"again\n"


def test_a_full_nonblocking_descriptor_is_waited_for(pipe):
    reader, writer = pipe
    os.set_blocking(writer, False)
    lost = Count()
    lines = Lines(writer, 1 << 20, lost)
    for _ in range(300):
        lines("y" * 99 + "\n")
    time.sleep(0.2)
    assert len(drain(reader, 30_000)) == 30_000
    assert lost.value == 0


@pytest.mark.parametrize("broken", ["no reader", "closed"])
def test_lines_that_cannot_be_written_are_counted(pipe, broken):
    reader, writer = pipe
    os.close(reader if broken == "no reader" else writer)
    lost = Count()
    lines = Lines(writer, 1 << 20, lost)
    for _ in range(3):
        lines("z\n")
    assert lines.flush(5)
    assert lost.value == 3


def test_many_threads_may_write(pipe):
    reader, writer = pipe
    lines = Lines(writer, 1 << 20, Count())
    threads = [threading.Thread(target=lambda: [lines("word\n") for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    found = drain(reader, 8 * 200 * 5)
    for thread in threads:
        thread.join()
    assert set(found.decode().splitlines()) == {"word"}


def test_log_records_are_lines(pipe):
    reader, writer = pipe
    handler = LinesHandler(Lines(writer, 1 << 20, Count()))
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.handle(logging.LogRecord("name", logging.ERROR, "file", 1, "lone surrogate \udc80", None, None))
    wanted = b"ERROR lone surrogate \\udc80\n"
    assert drain(reader, len(wanted)) == wanted
